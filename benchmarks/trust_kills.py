"""Kill repairs and verifications with SIGKILL at random moments, damage their journals now and then, and give
the same command again until it ends: is the result that of a run that nobody killed, byte for byte?

    python benchmarks/trust_kills.py --kills 200
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "vertical_cas"


def main() -> None:
    """Print a table, and write it as JSON where asked; exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="4 kills of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    kills = 4 if given.quick else (given.kills + 1) // 2
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in COMMANDS:
            rows.append(torture(name, kills, random.Random(given.seed), Path(folder)))
    print(f"{'command':8} {'kills':>6} {'damaged':>8} {'ended':>6} {'identical':>10} {'resumed':>8}")
    for row in rows:
        print(
            f"{row['command']:8} {row['kills']:6} {row['damaged']:8} {row['ended']:6} "
            f"{row['identical']:10} {row['resumed']:8}"
        )
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, "rows": rows}, indent=2))
    sys.exit(any(row["identical"] != row["ended"] for row in rows))


def torture(name: str, kills: int, dice: random.Random, folder: Path) -> dict[str, int | str]:
    """Kill a command so many times; `resumed` counts starts that found records of an earlier run."""
    wanted, seconds = undisturbed(name, folder)
    found = {"kills": 0, "damaged": 0, "ended": 0, "identical": 0, "resumed": 0}
    place = folder / name
    place.mkdir()
    while found["kills"] < kills:
        journal = place / "out.journal"
        found["resumed"] += journal.is_file() and journal.stat().st_size > 100
        child = started(name, place)
        if not ended(child, dice.uniform(0.0, seconds)):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            found["kills"] += 1
            if journal.is_file() and dice.random() < 0.3:
                damage(journal, dice)
                found["damaged"] += 1
            if found["kills"] < kills:
                continue
            child = started(name, place)
            os.waitpid(child, 0)
        found["ended"] += 1
        found["identical"] += result(name, place) == wanted and not journal.exists()
        shutil.rmtree(place)
        place.mkdir()
    return {"command": name, **found}


def undisturbed(name: str, folder: Path) -> tuple[bytes, float]:
    """The result of a run that nobody kills, and how long it takes."""
    place = folder / f"whole_{name}"
    place.mkdir()
    began = time.monotonic()
    os.waitpid(started(name, place), 0)
    return result(name, place), time.monotonic() - began


def started(name: str, place: Path) -> int:
    """A child that runs the command in the folder; everything is imported already, so it starts at once."""
    child = os.fork()
    if child:
        return child
    try:
        with (place / "out.txt").open("w") as out, (place / "err.txt").open("w") as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            with contextlib.suppress(SystemExit):
                command(COMMANDS[name](place))
            sys.stdout.flush()
    finally:
        os._exit(0)  # whatever happened, this process must not go on as its parent


def ended(child: int, seconds: float) -> bool:
    """Whether the child ends by itself within so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    return bool(os.waitpid(child, os.WNOHANG)[0])


def damage(journal: Path, dice: random.Random) -> None:
    """A torn tail: bytes cut off, or bytes that were never written."""
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        if dice.random() < 0.5:
            file.truncate(max(0, size - dice.randint(1, 3000)))
        else:
            file.seek(size)
            file.write(dice.choice([bytes, dice.randbytes])(dice.randint(1, 3000)))


def result(name: str, place: Path) -> bytes:
    """What must not depend on kills: network and certificate, or verdicts with all but their seconds."""
    if name == "repair":
        files = [place / "out.onnx", place / "out.cert.json"]
        return b"\n".join(file.read_bytes() for file in files if file.exists())
    text = (place / "out.txt").read_text()
    if not text.strip():
        return b""
    found = json.loads(text)
    for entry in found["properties"]:
        del entry["seconds"]
    return json.dumps(found).encode()


def repair_command(place: Path) -> list[str]:
    properties = [EXAMPLE / "no_climb.vnnlib", EXAMPLE / "alert.vnnlib"]
    return [*map(str, ["repair", EXAMPLE / "vertical_cas.onnx", *properties, "-o", place / "out.onnx"]), *FEW]


def verify_command(place: Path) -> list[str]:
    properties = [EXAMPLE / "alert.vnnlib", EXAMPLE / "clear.vnnlib"]
    journal = ["--journal", place / "out.journal", "--json", "--workers", "1"]
    return [*map(str, ["verify", EXAMPLE / "vertical_cas.onnx", *properties, *journal])]


def command(arguments: list[str]) -> None:
    from sutura.cli.app import main as sutura

    sutura(arguments)


FEW = ["--boxes", "2500", "--workers", "1", "--json"]
COMMANDS = {"repair": repair_command, "verify": verify_command}

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    # Everything that the commands need is imported before the first fork, so that starts take no time.
    import onnxruntime  # noqa: F401

    import sutura.cli.repair
    import sutura.cli.verify  # noqa: F401

    main()
