"""The ACAS Xu instances as campaigns: left alone, with driver and workers killed on a pool of processes, and
with a worker and the driver killed on a Dask cluster. Are the verdicts the same, each job computed once?

    python benchmarks/campaign_kills.py [--quick] [--every N] [--kills N] [--seed N] [--json FILE]
        [--data FOLDER]

No instance has a limit: a busy machine would turn verdicts into timeouts. Every kill is SIGKILL. A driver is
killed when a number of jobs drawn at random is done, and the same command is given again; workers are killed
in the middle of a job, at numbers drawn the same way. On the cluster one of two workers is killed half-way,
and the driver after that. CPU seconds are those of finished jobs; what kills threw away is not in them.
`wrong` counts contradictions of verdicts that the tools on record share. Exits with 1 where a verdict is
wrong or another one, or a job was computed twice.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from sutura.campaign.store import reading
from sutura.campaign.survey import survey

QUICK_EVERY = 12
MEANING = {"proved": "holds", "violated": "violated"}
"""A decided verdict -> the word that instances.csv has for it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One campaign: kills of its driver and of workers, and what its store says in the end."""

    name: str
    driver_kills: int
    worker_kills: int
    proved: int
    violated: int
    unknown: int
    same: int
    wrong: int
    computed_once: int
    computed_twice: int
    runs_lost: int
    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True, slots=True)
class Kills:
    """Numbers of finished jobs at which the driver is killed, and at which a worker is."""

    driver: tuple[int, ...] = ()
    worker: tuple[int, ...] = ()


def sliced(data: Path, every: int, folder: Path) -> tuple[Path, list[str]]:
    """Every nth line of the list, with full paths, and what the tools on record say of each."""
    with (data / "acasxu" / "instances.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))[::every]
    place = folder / "instances.csv"
    with place.open("w", newline="") as file:
        named = [[str(data / "acasxu" / line[c]) for c in ("onnx", "vnnlib")] for line in lines]
        csv.writer(file).writerows(named)
    return place, [line["unanimous"] for line in lines]


def state(place: Path) -> dict[str, Any]:
    """What the store says; nothing done where there is none yet."""
    if not place.is_file() or not place.stat().st_size:
        return {"done": 0, "running": []}
    with reading(place) as found:
        return survey(found)


def tortured(command: Sequence[str], place: Path, kills: Kills) -> tuple[int, int]:
    """Give the command until it ends by itself, killing as planned; kills of the driver and of workers."""
    driver_at, worker_at, killed = list(kills.driver), list(kills.worker), [0, 0]
    while True:
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while driver.poll() is None:
            now = state(place)
            pids = [pid_of(r["worker"]) for r in now["running"]]
            if worker_at and now["done"] >= worker_at[0] and any(pids):
                worker_at.pop(0)
                killed[1] += ended(next(filter(None, pids)))
            elif driver_at and now["done"] >= driver_at[0]:
                driver_at.pop(0)
                driver.kill()
                killed[0] += 1
            time.sleep(0.05)
        if driver.returncode != -signal.SIGKILL:
            return killed[0], killed[1]


def pid_of(worker: str) -> int:
    """The process id of a worker of the pool, or of one of the local cluster by its address."""
    return ADDRESSES.get(worker) or (int(worker.split()[1]) if worker.startswith("process ") else 0)


def ended(pid: int) -> int:
    """Kill a process; 1 where it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


ADDRESSES: dict[str, int] = {}
"""Address of each worker of the local cluster -> its process id; filled when the cluster is up."""


def row(
    name: str, place: Path, killed: tuple[int, int], told: tuple[Sequence[str], Mapping[str, str], float]
) -> Row:
    """A campaign's row; `told` are the verdicts on record, those of the campaign left alone, wall seconds."""
    record, alone, wall = told
    found = state(place)
    said = {r["job"]: r["verdict"] for r in found["results"]}
    wrong = sum(
        known in MEANING.values() and r["verdict"] in MEANING and MEANING[r["verdict"]] != known
        for known, r in zip(record, found["results"], strict=True)
    )
    count = found["verdicts"].get
    return Row(
        name, *killed, count("proved", 0), count("violated", 0), count("unknown", 0),
        sum(alone.get(job, verdict) == verdict for job, verdict in said.items()), wrong,
        found["runs"]["done"] - found["computed_twice"], found["computed_twice"],
        found["runs"].get("lost", 0) + found["runs"].get("interrupted", 0), found["cpu_seconds"], wall,
    )  # fmt: skip


def planned(jobs: int, kills: int, draw: random.Random) -> tuple[int, ...]:
    """Numbers of finished jobs, ascending."""
    return tuple(sorted(draw.randrange(1, jobs) for _ in range(kills)))


def main() -> int:
    """Run the campaigns, print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"every {QUICK_EVERY}th instance, 2 kills")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--kills", type=int, default=8, help="of the driver, and as many of workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", default)))
    given = parser.parse_args()
    every, kills = (QUICK_EVERY, 2) if given.quick else (given.every, given.kills)
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        files, record = sliced(given.data, every, Path(folder))
        rows = [*on_pool(files, record, kills, draw), *on_cluster(files, record)]
    shown = Table(title=f"{len(record)} ACAS Xu instances, two workers")
    for heading in ("", *NAMES.values()):
        shown.add_column(heading, justify="left" if not heading else "right")
    for each in rows:
        values = asdict(each)
        cells = (f"{values[n]:.1f}" if isinstance(values[n], float) else str(values[n]) for n in NAMES)
        shown.add_row(each.name, *cells)
    Console(width=150).print(shown)
    if given.json:
        given.json.write_text(json.dumps([asdict(each) for each in rows], indent=2) + "\n")
    bad = any(r.wrong or r.computed_twice or min(r.same, r.computed_once) < len(record) for r in rows)
    return int(bad)


def on_pool(files: Path, record: Sequence[str], kills: int, draw: random.Random) -> list[Row]:
    """A campaign left alone and one under kills."""
    rows: list[Row] = []
    alone: dict[str, str] = {}
    for name, plan in (
        ("pool, left alone", Kills()),
        ("pool, killed", Kills(planned(len(record), kills, draw), planned(len(record), kills, draw))),
    ):
        place = files.with_name(f"{name}.sqlite")
        started = time.monotonic()
        killed = tortured(command(files, place, "--workers", "2"), place, plan)
        rows.append(row(name, place, killed, (record, alone, time.monotonic() - started)))
        alone = alone or {r["job"]: r["verdict"] for r in state(place)["results"]}
    return rows


def on_cluster(files: Path, record: Sequence[str]) -> list[Row]:
    """One of two workers of a Dask cluster killed half-way, and the driver at three quarters."""
    from distributed import LocalCluster

    alone = {r["job"]: r["verdict"] for r in state(files.with_name("pool, left alone.sqlite"))["results"]}
    place = files.with_name("cluster.sqlite")
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as local:
        ADDRESSES.update({w.worker_address: w.pid for w in local.workers.values()})
        plan = Kills((3 * len(record) // 4,), (len(record) // 2,))
        started = time.monotonic()
        killed = tortured(command(files, place, "--cluster", local.scheduler_address), place, plan)
        wall = time.monotonic() - started
    return [row("Dask, killed", place, killed, (record, alone, wall))]


def command(files: Path, place: Path, *more: str) -> list[str]:
    """The campaign as a person gives it."""
    return [sys.executable, "-m", "sutura", "campaign", str(files), "-o", str(place), *more]


NAMES = {
    "driver_kills": "driver kills",
    "worker_kills": "worker kills",
    "proved": "proved",
    "violated": "violated",
    "unknown": "unknown",
    "same": "same verdict",
    "wrong": "wrong",
    "computed_once": "computed once",
    "computed_twice": "twice",
    "runs_lost": "runs cut short",
    "cpu_seconds": "CPU s",
    "wall_seconds": "wall s",
}
"""Figure -> heading."""

if __name__ == "__main__":
    sys.exit(main())
