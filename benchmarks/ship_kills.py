"""Recipes killed inside every stage, and gone on with: are the artefacts those of a run that was left alone?

    python benchmarks/ship_kills.py [--quick] [--recipes acasxu,mnist,module] [--images 100] [--keep FOLDER]
        [--data FOLDER] [--json FILE]

Each recipe of examples/recipes is run once as it is, and once with SIGKILL to its whole process group inside
each of its stages. Compared are all files byte for byte; in the report the figures that a clock decides are
left out, and so are the pages that tell them. `--quick` takes the module only.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"

MEASURED = {"seconds", "runtime_seconds", "torch_seconds", "speed", "batch", "picture"}
"""Keys of what a clock decides; pictures may show it."""

TIMED = ("SHA256SUMS", "report.html", "README.md")
"""Files that tell run times."""


def prepare() -> Any:
    """The script beside the recipes, as a module."""
    spec = importlib.util.spec_from_file_location("prepare", EXAMPLES / "recipes" / "prepare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_recipe(folder: Path, said: argparse.Namespace) -> list[str]:
    """Copies the examples; returns what follows `sutura ship`."""
    for name in ("recipes", "vertical_cas"):
        shutil.copytree(EXAMPLES / name, folder / name)
    return [str(folder / "recipes" / "module.toml"), "--run-code"]


def acasxu_recipe(folder: Path, said: argparse.Namespace) -> list[str]:
    data = said.data / "acasxu"
    places = [data / "vnnlib" / f"prop_{n}.vnnlib" for n in (3, 4)]
    prepare().acasxu(data / "onnx" / "ACASXU_run2a_1_1_batch_2000.onnx", places, folder)
    return [str(shutil.copy(EXAMPLES / "recipes" / "acasxu.toml", folder))]


def mnist_recipe(folder: Path, said: argparse.Namespace) -> list[str]:
    import numpy as np

    network = said.data / "vnncomp" / "mnist_fc" / "onnx" / "mnist-net_256x2.onnx"
    with np.load(said.data / "mnist" / "mnist.npz") as held:
        pixels = {name: held[name] / (1.0 if name.startswith("y") else 255.0) for name in held.files}
    how = argparse.Namespace(train=5000, test=2000, images=said.images, few=20, radius=0.005)
    prepare().images(network, pixels, folder, how)
    return [str(shutil.copy(EXAMPLES / "recipes" / "mnist.toml", folder))]


RECIPES = {"module": module_recipe, "acasxu": acasxu_recipe, "mnist": mnist_recipe}


def started(words: list[str], out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sutura", "ship", *words, "-o", str(out)]
    log = out.with_suffix(".log").open("ab")
    with log:
        return subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)


def kept(out: Path) -> int:
    return len(list(out.glob(".stages/[0-9a-f]*/stage.json")))


def killed(words: list[str], out: Path) -> tuple[int, int]:
    """Run it until it ends by itself, killed once inside every stage: its exit code, and how many kills."""
    kills = 0
    while True:
        with started(words, out) as run:
            while run.poll() is None and not (kept(out) >= kills and list(out.glob(".stages/.work-*"))):
                time.sleep(0.005)
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                kills = kept(out) + 1
                if kills > STAGES:
                    raise SystemExit("it never ends")
                continue
        return run.returncode, kills


STAGES = 40
"""More than any recipe has."""


def artefacts(out: Path) -> dict[str, bytes]:
    """Files by name; the report without what a clock decided."""
    found = {
        str(place.relative_to(out)): place.read_bytes()
        for place in out.rglob("*")
        if place.is_file() and ".stages" not in place.parts and place.name not in TIMED
    }
    report = json.loads(found["report.json"])
    found["report.json"] = json.dumps(timeless(report), sort_keys=True).encode()
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in MEASURED}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def compared(name: str, folder: Path, said: argparse.Namespace) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    words = RECIPES[name](folder, said)
    began = os.times()
    with started(words, folder / "whole") as run:
        code = run.wait()
    if code not in (0, 3):
        raise SystemExit((folder / "whole.log").read_text()[-2000:])
    ended = os.times()
    again, kills = killed(words, folder / "killed")
    one, other = artefacts(folder / "whole"), artefacts(folder / "killed")
    differing = sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))
    report = json.loads((folder / "whole" / "report.json").read_text())
    verdicts = [known["verdict"] for known in report["properties"]]
    return {
        "recipe": name, "exit": [code, again], "kills": kills, "files": len(one), "differing": differing,
        "verdicts": {word: verdicts.count(word) for word in dict.fromkeys(verdicts)},
        "cpu_seconds": round(ended.children_user + ended.children_system
                             - began.children_user - began.children_system, 1),
    }  # fmt: skip


def main() -> None:
    """Parse the options, run, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--recipes", default="module,acasxu,mnist")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="leave the folders here")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as spare:
        folder = said.keep or Path(spare)
        for name in ["module"] if said.quick else said.recipes.split(","):
            rows.append(compared(name, folder / name, said))
            print(json.dumps(rows[-1]), flush=True)
    if said.json:
        said.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
