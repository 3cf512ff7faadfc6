"""The 36 published ACAS Xu cases, repaired by every method side by side in one run.

    python benchmarks/repair_36.py [--quick] [--joint] [--json FILE [--resume]] [--only CASE;...]
                                   [--methods NAME,...] [--samples N] [--limit SECONDS] [--data FOLDER]

Property 2 on the 34 networks N2..5,1..9 without N3,3 and N4,2; property 7 on N1,9; property 8 on N2,9. With
--joint, each network that breaks a property which applies to it (instances.csv) gets all of these in one
call; --only takes any such case, as in N2,9:1+2+3+4+8. Every figure is measured here on the files that the
methods write, against the original file; estimates are by uniform samples of the properties' boxes.
Published methods get a limit of CPU seconds a case (--limit). Run-time
ratios are of minima of CPU time, interleaved with the network without gates as sutura writes it.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
from repair_rows import keep, markdown, resumed, table
from rich.console import Console

import sutura
from sutura.gates.deliver import Repair
from sutura.gates.evaluate import nearest_possible, outside, same_bits, strewn, uniform, violating
from sutura.gates.mend import ClampConfig, RepairConfig
from sutura.gates.minimal import MinimalConfig
from sutura.gates.nrepair import NRepairConfig
from sutura.gates.problem import Problem, problem
from sutura.gates.repair import Config, mended
from sutura.gates.speed import ROUNDS, speed
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session
from sutura.verdict import deadline
from sutura.verdict.replay import Runner, runner

Case = tuple[str, tuple[int, ...]]

PROPERTY_2 = [f"N{i},{j}" for i in range(2, 6) for j in range(1, 10) if (i, j) not in ((3, 3), (4, 2))]
CASES: tuple[Case, ...] = (*((n, (2,)) for n in PROPERTY_2), ("N1,9", (7,)), ("N2,9", (8,)))
QUICK: tuple[Case, ...] = (("N2,1", (2,)), ("N2,9", (8,)))

NEAREST = 500
"""Wrong outputs whose exact projection is computed."""


class CpuClock:
    """What deadlines read here: a busy machine takes nothing from a method that has a limit."""

    monotonic = staticmethod(time.process_time)


def configs(limit: float) -> dict[str, Config]:
    """Method -> its configuration."""
    return {
        "default": RepairConfig(),
        "nrepair": NRepairConfig(timeout=limit),
        "minimal": MinimalConfig(timeout=limit),
        "clamp": ClampConfig(),
        "neuron": RepairConfig(gate="neuron", timeout=limit),
    }


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one case. Shares lie in 0..1; changes are mean absolute changes of a score; `success` is
    that of the authors, repaired boxes among those with a counterexample, for their method alone."""

    case: str
    method: str
    cpu_seconds: float
    certified: bool
    success: float | None
    violating_before: int
    violating_after: int
    attack_after: int
    agreeing_right: float
    identical_right: float
    change_right: float
    change_wrong: float | None
    nearest_wrong: float | None
    identical_outside: float
    proved_share: float
    gates: int
    onnx_bytes: int
    batch_1: float
    batch_1024: float
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What all methods of a case are measured on: samples, original outputs, points of an attack."""

    name: str
    asked: Problem
    original: Runner
    x: np.ndarray
    was: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    nearest: float | None
    attacked: np.ndarray


def ground(data: Path, case: Case, samples: int) -> Ground:
    """Sample the boxes of a case once for all methods."""
    net, numbers = case
    file = data / "acasxu" / "onnx" / f"ACASXU_run2a_{net[1:].replace(',', '_')}_batch_2000.onnx"
    properties = [sutura.read_property(data / "acasxu" / "vnnlib" / f"prop_{n}.vnnlib") for n in numbers]
    asked = problem(sutura.load(file), properties)
    original = runner(open_session(unbatched(file.read_bytes())))
    boxes = [case.box.float32_hull() for _, case in asked.cases]
    x = np.concatenate([uniform(*hull, samples // len(boxes), at) for at, hull in enumerate(boxes)])
    was = original(x)
    wrong = violating(properties, x, was)
    first = np.flatnonzero(wrong)
    first = first[:: max(1, len(first) // NEAREST)]
    nearest = None
    if len(first):
        nearest = float(nearest_possible(properties, x[first], was[first]).mean())
    return Ground(named(case), asked, original, x, was, ~wrong, first, nearest, attacked(asked))


def attacked(asked: Problem) -> np.ndarray:
    """Where gradient search on the network as it was ends, and points around."""
    found = [strewn(asked.program, case, asked.network.output_size, 128, 0) for _, case in asked.cases]
    return np.concatenate(found)


def measure(on: Ground, method: str, config: Config) -> Row:
    """Repair with one method and compare the two networks."""
    started = time.process_time()
    fixed = mended(on.asked, config)
    seconds = time.process_time() - started
    session = open_session(fixed.onnx, gated=True)
    now, properties = runner(session), on.asked.properties
    y = now(on.x)
    change = abs(y.astype(np.float64) - on.was).mean(axis=1)
    plain = open_session(write_onnx(on.asked.network))
    return Row(
        on.name,
        method,
        seconds,
        fixed.certified,
        _success(fixed),
        int((~on.right).sum()),
        int(violating(properties, on.x, y).sum()),
        int(violating(properties, on.attacked, now(on.attacked)).sum()),
        float((on.was.argmin(axis=1) == y.argmin(axis=1))[on.right].mean()),
        float(same_bits(on.was, y)[on.right].mean()),
        float(change[on.right].mean()),
        float(change[on.wrong].mean()) if len(on.wrong) else None,
        on.nearest,
        outside((on.original, now), properties, samples=len(on.x) // 5).identical,
        fixed.regions.proved_share,
        fixed.regions.rows - 1,
        len(fixed.onnx),
        *(speed((plain, session), spread(on.x, size)).ratio for size in ROUNDS),
        fixed.note,
    )


def spread(x: np.ndarray, size: int) -> np.ndarray:
    """So many samples, from all boxes alike."""
    return x[:: max(1, len(x) // size)][:size].copy()


def _success(fixed: Repair) -> float | None:
    if fixed.trials is None:
        return None
    return fixed.trials.repaired / max(1, fixed.trials.counterexamples + fixed.trials.skipped)


def unbatched(original: bytes) -> bytes:
    """The original file with its batch axis set free, so that both networks run the same batches."""
    model = onnx.load_from_string(original)
    for value in (*model.graph.input, *model.graph.output):
        if not any(value.name == i.name for i in model.graph.initializer):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    return model.SerializeToString()


def rows(arguments: argparse.Namespace, done: Sequence[Row]) -> Iterator[Row]:
    """The rows that are not done, each as it comes."""
    chosen = configs(arguments.limit)
    known = {(row.case, row.method) for row in done}
    for case in cases(arguments):
        left = [m for m in arguments.methods.split(",") if (named(case), m) not in known]
        on = ground(arguments.data, case, arguments.samples) if left else None
        for method in left if on else ():
            yield measure(on, method, chosen[method])


def named(case: Case) -> str:
    """As tables have it."""
    return f"{case[0]} p{'+'.join(map(str, case[1]))}"


def cases(arguments: argparse.Namespace) -> Sequence[Case]:
    """What `--only` asks for, such as N2,1 or N2,9:1+2+3+4+8, with ; between; else all, or the quick ones."""
    if arguments.joint:
        return joint(arguments.data)
    if not arguments.only:
        return QUICK if arguments.quick else CASES
    found: list[Case] = []
    for part in arguments.only.split(";"):
        net, _, numbers = part.partition(":")
        known = [c for c in CASES if c[0] == net]
        found += [(net, tuple(map(int, numbers.split("+"))))] if numbers else known
    return found


def joint(data: Path) -> list[Case]:
    """Each network that breaks a property that applies to it, by the majority of the competition's tools,
    with all that apply."""
    asked: dict[str, list[tuple[int, bool]]] = {}
    with (data / "acasxu" / "instances.csv").open() as file:
        for row in csv.DictReader(file):
            net = "N" + ",".join(re.findall(r"_(\d)(?=_)", row["onnx"]))
            number = int(row["vnnlib"].removesuffix(".vnnlib").rpartition("_")[2])
            asked.setdefault(net, []).append((number, row["majority"] == "violated"))
    broken = sorted(net for net, found in asked.items() if any(broken for _, broken in found))
    return [(net, tuple(sorted(number for number, _ in asked[net]))) for net in broken]


def small(value: float | None) -> str:
    """A change, or a dash where no sample was wrong."""
    return "-" if value is None else f"{value:.2e}"


COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "case": lambda r: r.case,
    "method": lambda r: r.method,
    "CPU s": lambda r: f"{r.cpu_seconds:.1f}",
    "certified": lambda r: "yes" if r.certified else "no",
    "success": lambda r: "-" if r.success is None else f"{r.success:.0%}",
    "wrong": lambda r: f"{r.violating_before:,}",
    "after": lambda r: f"{r.violating_after:,}",
    "attack": lambda r: f"{r.attack_after:,}",
    "right agree": lambda r: f"{r.agreeing_right:.3%}",
    "same bits": lambda r: f"{r.identical_right:.2%}",
    "right change": lambda r: f"{r.change_right:.1e}",
    "wrong change": lambda r: small(r.change_wrong),
    "nearest": lambda r: small(r.nearest_wrong),
    "same outside": lambda r: f"{r.identical_outside:.2%}",
    "proved": lambda r: f"{r.proved_share:.1%}",
    "gates": lambda r: f"{r.gates:,}",
    "kB": lambda r: f"{r.onnx_bytes / 1000:.0f}",
    "x1": lambda r: f"{r.batch_1:.2f}",
    "x1024": lambda r: f"{r.batch_1024:.2f}",
}
"""Heading -> text of a row."""


def by_method(found: Sequence[Row]) -> list[list[Row]]:
    """All rows of each method."""
    return [[r for r in found if r.method == method] for method in dict.fromkeys(r.method for r in found)]


def mean(values: Sequence[float | None]) -> float:
    """Of what was measured."""
    return float(np.mean([v for v in values if v is not None] or [np.nan]))


SUMMARY: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "method": lambda r: r[0].method,
    "certified": lambda r: f"{sum(x.certified for x in r)} of {len(r)}",
    "CPU s": lambda r: f"{sum(x.cpu_seconds for x in r):.0f}",
    "wrong before": lambda r: f"{sum(x.violating_before for x in r):,}",
    "after": lambda r: f"{sum(x.violating_after for x in r):,}",
    "attack": lambda r: f"{sum(x.attack_after for x in r):,}",
    "right agree": lambda r: (
        f"{mean([x.agreeing_right for x in r]):.3%} ({min(x.agreeing_right for x in r):.2%})"
    ),
    "right same bits": lambda r: f"{mean([x.identical_right for x in r]):.2%}",
    "wrong change": lambda r: small(mean([x.change_wrong for x in r])),
    "nearest": lambda r: small(mean([x.nearest_wrong for x in r])),
    "same outside": lambda r: f"{mean([x.identical_outside for x in r]):.2%}",
    "gates": lambda r: f"{mean([x.gates for x in r]):.1f}",
    "x1": lambda r: f"{mean([x.batch_1 for x in r]):.2f} ({max(x.batch_1 for x in r):.2f})",
    "x1024": lambda r: f"{mean([x.batch_1024 for x in r]):.2f} ({max(x.batch_1024 for x in r):.2f})",
}
"""Heading -> text for all rows of a method; in brackets the worst case."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two cases, 50,000 samples, a limit of 4 s")
    parser.add_argument("--joint", action="store_true", help="all properties of each network, by default")
    parser.add_argument("--json", type=Path, help="write the rows here, as they come")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the file has")
    parser.add_argument("--markdown", action="store_true", help="tables for RESULTS.md")
    parser.add_argument("--only", help="cases such as N2,1;N2,9:8")
    parser.add_argument("--methods", help="of default, nrepair, minimal, clamp (all four) and neuron")
    parser.add_argument("--samples", type=int, help="samples a case (default 1,000,000)")
    parser.add_argument("--limit", type=float, help="CPU seconds a case for published methods (default 20)")
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SUTURA_DATA", default)))
    arguments = parser.parse_args()
    arguments.samples = arguments.samples or (50_000 if arguments.quick else 1_000_000)
    arguments.limit = arguments.limit or (4.0 if arguments.quick else 20.0)
    arguments.methods = arguments.methods or (
        "default" if arguments.joint else "default,nrepair,minimal,clamp"
    )
    deadline.time = CpuClock
    console = Console(width=260)
    found = resumed(arguments.json, Row) if arguments.resume else []
    for row in rows(arguments, found):
        found.append(row)
        console.print(f"{row.case} {row.method}: {row.cpu_seconds:.1f} CPU s, {row.note or 'nothing left'}")
        keep(arguments.json, found)
    if arguments.markdown:
        print(markdown(SUMMARY, by_method(found)), markdown(COLUMNS, found), sep="\n\n")
        return
    console.print(table("repaired ACAS Xu networks", COLUMNS, found, ("case", "method")))
    console.print(table("over all cases", SUMMARY, by_method(found), ("method",)))


if __name__ == "__main__":
    main()
