"""How campaigns scale: engines side by side with one and two workers, and more workers simulated.

    python benchmarks/campaign_scaling.py [--quick] [--every N] [--rounds N] [--json FILE] [--data FOLDER]
    python benchmarks/campaign_scaling.py --recorded results.sqlite

Measured: the same ACAS Xu instances by sutura's pool with one and with two processes, by the standard
library's ProcessPoolExecutor with two, and by a Dask cluster of two, one after the other, `rounds` times;
each figure is the least of its rounds. All workers are up and warm (they have decided one instance) before
the clock starts. `waste` is the share of the workers' wall time in which they decided nothing: waiting,
sending, and the end of the list.

One property: the hardest of the instances by `verify` on one thread, on two threads, and cut into 8 parts
for two processes (warm, as above); wall seconds, least of the rounds.

Simulated, and labelled so: list scheduling of the recorded CPU seconds of the jobs on more workers, in the
order of the list and with the longest first; no schedule can be shorter than the longest job, or than the
sum over the workers. Start-up and transport are not in it. With --recorded only this is done, for the jobs of
a store that a campaign has filled.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from sutura.campaign.cluster import Cluster
from sutura.campaign.executor import Ended, Executor, carried_out
from sutura.campaign.instances import read_instances
from sutura.campaign.pool import Pool
from sutura.campaign.split import verify_split
from sutura.campaign.store import reading
from sutura.campaign.task import Limits, Task, decide, read_task
from sutura.network.read import load
from sutura.property.read import parse_property
from sutura.verdict.outcome import Outcome
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

QUICK_EVERY, QUICK_ROUNDS = 31, 1
PARTS, HARDEST = 8, 5
SIMULATED = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Row:
    """One engine: workers, least wall seconds of a round, and that round's jobs' own wall and CPU seconds."""

    engine: str
    workers: int
    wall: float
    busy: float
    cpu: float

    @property
    def waste(self) -> float:
        """Share of the workers' time in which they decided nothing."""
        return 1.0 - self.busy / (self.workers * self.wall)


@dataclass(frozen=True, slots=True)
class Single:
    """One property: its verdict, and wall seconds of each way to it."""

    name: str
    verdict: str
    one_thread: float
    two_threads: float
    split: float


Answers = list[dict[str, object]]
Engine = Callable[[Sequence[Task]], Answers]


def by(executor: Executor) -> Engine:
    """An executor as a function of tasks."""

    def run(tasks: Sequence[Task]) -> Answers:
        return [e.answer for step in carried_out(tasks, executor) for e in step if isinstance(e, Ended)]

    return run


def timed(engine: str, workers: int, run: Engine, tasks: Sequence[Task]) -> Row:
    """One round."""
    started = time.perf_counter()
    answers = run(tasks)
    wall = time.perf_counter() - started
    assert len(answers) == len(tasks)
    busy, cpu = (sum(float(str(a[key])) for a in answers) for key in ("seconds", "cpu_seconds"))
    return Row(engine, workers, wall, busy, cpu)


def measured(tasks: Sequence[Task], rounds: int, console: Console) -> list[Row]:
    """The engines, interleaved; the best round of each."""
    from distributed import LocalCluster

    with ExitStack() as stack:
        local = stack.enter_context(
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50)
        )
        library = stack.enter_context(ProcessPoolExecutor(2, mp_context=get_context("spawn")))
        engines: dict[tuple[str, int], Engine] = {
            ("pool", 1): by(stack.enter_context(Pool(1))),
            ("pool", 2): by(stack.enter_context(Pool(2))),
            ("ProcessPoolExecutor", 2): lambda jobs: list(library.map(decide, jobs)),
            ("Dask", 2): by(stack.enter_context(Cluster(local.scheduler_address))),
        }
        for run in engines.values():
            run(tasks[:1] if run is engines["pool", 1] else tasks[:4])
        best: dict[tuple[str, int], Row] = {}
        for _ in range(rounds):
            for (engine, workers), run in engines.items():
                found = timed(engine, workers, run, tasks)
                console.print(
                    f"{engine}, {workers}: {found.wall:.2f} s, waste {found.waste:.1%}", highlight=False
                )
                known = best.get((engine, workers))
                best[engine, workers] = found if known is None or found.wall < known.wall else known
    return list(best.values())


def one_property(tasks: Sequence[Task], rounds: int) -> list[Single]:
    """Each task as a single search, and as one that is split."""
    with Pool(2) as pool:
        list(carried_out([*tasks, *tasks][:2], pool))
        return [_single(job, rounds, pool) for job in tasks]


def _single(job: Task, rounds: int, pool: Pool) -> Single:
    loaded = load(job.network, name=job.names[0])
    prop = parse_property(job.property, job.names[1], source=job.names[1])
    ways: list[Callable[[], Outcome]] = [
        lambda: verify(loaded, prop, VerifyConfig(workers=1)),
        lambda: verify(loaded, prop, VerifyConfig(workers=2)),
        lambda: verify_split((job.network, job.names[0]), prop, pool, VerifyConfig(workers=1), parts=PARTS),
    ]
    walls = [[math.inf] for _ in ways]
    found: list[Outcome] = []
    for _ in range(rounds):
        for at, way in enumerate(ways):
            started = time.perf_counter()
            found.append(way())
            walls[at].append(time.perf_counter() - started)
    (verdict,) = {type(outcome.verdict).__name__ for outcome in found}
    return Single(f"{job.names[0]} {job.names[1]}", verdict.lower(), *(min(wall) for wall in walls))


def makespan(seconds: Sequence[float], workers: int) -> float:
    """List scheduling: each job goes to the worker that is free first."""
    free = [0.0] * workers
    for job in seconds:
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


def simulated(seconds: Sequence[float]) -> list[dict[str, float]]:
    """Makespans on more and more workers, and the bound that no schedule beats."""
    ordered = sorted(seconds, reverse=True)
    return [
        {
            "workers": workers,
            "in_order": makespan(seconds, workers),
            "longest_first": makespan(ordered, workers),
            "bound": max(ordered[0], sum(seconds) / workers),
        }
        for workers in SIMULATED
    ]


def main() -> int:
    """Measure, simulate, print both tables, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"every {QUICK_EVERY}th instance, one round")
    parser.add_argument(
        "--every", type=int, default=6, help="every Nth instance is measured; all are simulated"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recorded", type=Path, metavar="STORE")
    parser.add_argument("--json", type=Path)
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", default)))
    given = parser.parse_args()
    every, rounds = (QUICK_EVERY, QUICK_ROUNDS) if given.quick else (given.every, given.rounds)
    console = Console(width=110)
    if given.recorded:
        with reading(given.recorded) as found:
            seconds = [line.document["cpu_seconds"] for line in found.lines() if line.document is not None]
        show_simulated(simulated(seconds), seconds, console)
        return 0
    instances = read_instances(given.data / "acasxu")
    tasks = [read_task(instance, Limits(instance.timeout)) for instance in instances]
    rows = measured(tasks[::every], rounds, console)
    show_measured(rows, len(tasks[::every]), console)
    with Pool(1) as pool:
        wanted = tasks[::every] if given.quick else tasks
        said = {e.key: e.answer for s in carried_out(wanted, pool) for e in s if isinstance(e, Ended)}
    seconds = [float(said[job.key]["cpu_seconds"]) for job in wanted]
    hardest = sorted(zip(seconds, wanted, strict=True), key=lambda pair: -pair[0])[
        : 1 if given.quick else HARDEST
    ]
    singles = one_property([job for _, job in hardest], rounds)
    show_singles(singles, console)
    spans = simulated(seconds)
    show_simulated(spans, seconds, console)
    if given.json:
        written = {
            "measured": [asdict(r) | {"waste": r.waste} for r in rows],
            "one_property": [asdict(single) for single in singles],
            "simulated": spans,
        }
        given.json.write_text(json.dumps(written, indent=2) + "\n")
    return 0


def show_measured(rows: Sequence[Row], jobs: int, console: Console) -> None:
    """The engines as a table."""
    table = Table(
        "engine", "workers", "wall s", "speed-up", "jobs' CPU s", "waste", title=f"{jobs} instances, measured"
    )
    one = rows[0].wall
    for r in rows:
        cells = (str(r.workers), f"{r.wall:.2f}", f"{one / r.wall:.2f}", f"{r.cpu:.2f}", f"{r.waste:.1%}")
        table.add_row(r.engine, *cells)
    console.print(table)


def show_singles(singles: Sequence[Single], console: Console) -> None:
    """One property at a time, as a table."""
    table = Table(
        "instance", "verdict", "1 thread, s", "2 threads, s", "2 processes, s", title="one property"
    )
    for s in singles:
        walls = (f"{wall:.2f}" for wall in (s.one_thread, s.two_threads, s.split))
        table.add_row(s.name, s.verdict, *walls)
    console.print(table)


def show_simulated(spans: Sequence[dict[str, float]], seconds: Sequence[float], console: Console) -> None:
    """The simulation as a table."""
    title = (
        f"SIMULATED: {len(seconds)} recorded jobs, {sum(seconds):.1f} CPU s, the longest {max(seconds):.2f}"
    )
    table = Table(
        "workers",
        "in the list's order, s",
        "speed-up",
        "longest first, s",
        "speed-up",
        "bound, s",
        title=title,
    )
    for span in spans:
        order, first, bound = (span[key] for key in ("in_order", "longest_first", "bound"))
        whole = sum(seconds)
        table.add_row(
            f"{span['workers']:.0f}", f"{order:.2f}", f"{whole / order:.1f}",
            f"{first:.2f}", f"{whole / first:.1f}", f"{bound:.2f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
