"""What a stranger gets: the wheel in a bare environment, and the shipped example through `sutura ship`.

    python benchmarks/bare_wheel.py [--quick] [--json FILE]

Builds the wheel, makes a bare virtual environment, installs the wheel in it (its dependencies from the
index, held to constraints.txt), and ships the example from the installed package: no other step, no checkout.
Then the installed checker checks what was shipped. `--quick` builds and looks into the wheel only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HELD = ("sutura/examples/vertical_cas/ship.toml", "sutura/examples/vertical_cas/vertical_cas.onnx")


def ran(*command: str | Path, cwd: Path) -> str:
    """What the command printed; ends the program where it fails. PYTHONPATH plays no part."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return done.stdout


def built(folder: Path) -> Path:
    """The wheel, with the example in it and no test or benchmark."""
    ran(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        names = held.namelist()
    missing = [name for name in HELD if name not in names]
    astray = [n for n in names if n.split("/")[0] != "sutura" and ".dist-info/" not in n]
    if missing or astray:
        raise SystemExit(f"the wheel lacks {missing} and has {astray}")
    return wheel


def shipped(wheel: Path, folder: Path) -> dict[str, object]:
    """Install, ship, check; what each took in wall seconds."""
    started = time.monotonic()
    venv.create(folder / "bare", with_pip=True)
    tool = folder / "bare" / ("Scripts" if os.name == "nt" else "bin")
    ran(tool / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    installed = time.monotonic()
    example = Path(ran(tool / "sutura", "--examples-dir", cwd=folder).strip()) / "vertical_cas"
    ran(tool / "sutura", "ship", example / "ship.toml", "-o", folder / "shipped", cwd=folder)
    done = time.monotonic()
    out = folder / "shipped"
    report = json.loads((out / "report.json").read_text())
    places = [f"properties/{known['property']}" for known in report["properties"]]
    ran(tool / "sutura", "check", "model.onnx", *places, "certificate.json", cwd=out)
    packages = ran(tool / "python", "-m", "pip", "list", "--format=freeze", cwd=folder).split()
    return {
        "verdicts": {known["property"]: known["verdict"] for known in report["properties"]},
        "files": sorted(p.name for p in out.iterdir() if not p.name.startswith(".")),
        "packages": len(packages),
        "seconds": {"install": installed - started, "ship": done - installed},
        "from": str(example.relative_to(folder / "bare")),
    }


def main() -> None:
    """Parse the options, run, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = built(Path(folder))
        found: dict[str, object] = {"wheel": wheel.name, "bytes": wheel.stat().st_size}
        if not said.quick:
            found |= shipped(wheel, Path(folder))
    print(json.dumps(found, indent=1))
    if said.json:
        said.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
