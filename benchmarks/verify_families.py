"""Verify a sample of every family of the data bundle, against the record, and how the cost of a bound grows.

    python benchmarks/verify_families.py [--quick] [--all | --sample N] [--family NAME ...] [--timeout S]
        [--workers N] [--json FILE] [--data FOLDER] [--marabou PYTHON] [--peer NAME=EXECUTABLE ...]

The limit of an instance is the competition's or --timeout (60 s), whichever is less. `refused` are instances
whose network or property sutura does not read or bound, with the reason below the table. `recorded` names the
tool that solved most of the same instances in the competition, and how many others solved as many: on the
machine and within the limits of then; answers against the majority are left out. CPU seconds and peers are
those of verify_acasxu.py. Exits with 1 where sutura was wrong or crashed.

The second table bounds boxes of random ReLU networks (5 inputs, 1 output): one step of the search, for every
float32 execution, on one thread. From one network and batch, one of batch, depth and width is doubled at a
time; `ratio` compares with the line before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from contestants import options, tools
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits
from verify_acasxu import (
    COLUMNS,
    WARM_UP,
    Columns,
    Instance,
    Row,
    ask_all,
    collect,
    failed,
    instances,
    notes,
    plain_row,
    table,
)

from sutura.bounds.lower import lower
from sutura.bounds.region import Region
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.property.spec import Inequality
from sutura.verdict.goal import goal
from sutura.verdict.step import step

TIMEOUT, SAMPLE = 60.0, 6
QUICK_TIMEOUT, QUICK_SAMPLE, QUICK_DOUBLINGS = 1.5, 2, 2

INPUTS = 5
RADIUS = 0.1
"""Half the side of a box, where inputs have unit variance: many neurons are open, none explode."""

ENOUGH, REPEATS = 1.0, 100
"""CPU seconds of repeats, and their number, after which the least is taken."""


@dataclass(frozen=True, slots=True)
class Size:
    """Boxes bounded together, hidden layers, and neurons of each."""

    batch: int = 8
    depth: int = 4
    width: int = 64


@dataclass(frozen=True, slots=True)
class Growth:
    """CPU seconds of one bound of `size`; `ratio` to those of the half as large `axis`."""

    axis: str
    size: Size
    cpu_seconds: float
    ratio: float | None


def families(data: Path) -> list[Path]:
    """The folders that hold an instances.csv."""
    return [
        f for f in (data / "acasxu", *sorted((data / "vnncomp").glob("*"))) if (f / "instances.csv").exists()
    ]


def sample(folder: Path, most: int | None) -> list[Instance]:
    """All instances of a family, or `most` of them, evenly spread over the file."""

    def naming(network: Path, asked: Path) -> tuple[str, str]:
        inner = network.relative_to(folder / "onnx").with_suffix("")
        return folder.name, f"{inner} {asked.name.removesuffix('.gz').removesuffix('.vnnlib')}"

    found = instances(folder, naming)
    count = len(found) if most is None else min(most, len(found))
    return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]


def refused(part: Sequence[Row]) -> str:
    """How many instances were refused before any search."""
    return str(sum(r.answer.verdict == "refused" for r in part))


def recorded(part: Sequence[Row]) -> str:
    """The tool on record that solved most of these instances."""
    names = (tool.lower() for row in part for tool in row.instance.solved_by)
    solved = Counter(SPELLINGS.get(name, name) for name in names)
    if not solved:
        return "none"
    name, most = solved.most_common(1)[0]
    ties = sum(count == most for count in solved.values()) - 1
    return f"{name}{f' +{ties}' if ties else ''} {most}/{len(part)}"


SPELLINGS = {"a-b-crown": "alpha_beta_crown"}
"""Tools that the lists of different years spell differently -> the newer spelling."""


def peak(part: Sequence[Row]) -> str:
    """Most memory that this process held during one of the instances."""
    known = [r.answer.peak_mb for r in part if r.answer.peak_mb is not None]
    return f"{max(known):,.0f}" if known else "-"


FAMILY_COLUMNS: Columns = {
    "solved": COLUMNS["solved"],
    "recorded": recorded,
    "refused": refused,
    **{heading: COLUMNS[heading] for heading in ("wrong", "CPU s", "median", "max", "reading")},
    "peak MB": peak,
}
"""Heading -> text of the rows of one tool and family."""


def random_network(size: Size) -> Network:
    """Fully connected ReLU layers with weights that keep the variance of activations near one."""
    random = np.random.default_rng((size.depth, size.width))
    sizes = [INPUTS, *[size.width] * size.depth, 1]
    shapes, nodes, name = {"x": (INPUTS,)}, [], "x"
    for at, (n, m) in enumerate(pairwise(sizes)):
        weight = random.normal(size=(n, m)) * np.sqrt(2.0 / n)
        gemm = ops.Gemm(weight.astype(np.float32), (random.normal(size=m) / 10).astype(np.float32))
        for op in (gemm, ops.Relu()) if at < size.depth else (gemm,):
            output = f"v{len(nodes)}"
            nodes.append(Node(f"n{len(nodes)}", op, (name,), output))
            shapes[output], name = (m,), output
    return Network("random", "x", name, tuple(nodes), shapes, "")


def bound_seconds(size: Size) -> float:
    """Least CPU seconds of repeated bounds of a batch of boxes."""
    program = lower(random_network(size))
    centre = np.random.default_rng(size.batch).normal(size=(size.batch, INPUTS)).astype(np.float32)
    ends = [(centre + sign * np.float32(RADIUS)).astype(np.float64) for sign in (-1, 1)]
    region, aim = Region(*ends), goal([(Inequality(((0, Fraction(1)),), Fraction(0)),)], 1)
    times: list[float] = []
    with threadpool_limits(limits=1):
        while len(times) < 2 or (sum(times) < ENOUGH and len(times) < REPEATS):
            started = time.process_time()
            step(program, aim, region)
            times.append(time.process_time() - started)
            if times[0] > ENOUGH:
                break
    return min(times)


def growths(doublings: int) -> Iterator[Growth]:
    """Each axis doubled `doublings` times, the others as they are."""
    bound_seconds(Size(1, 1, 8))
    for axis in ("batch", "depth", "width"):
        before = None
        for power in range(doublings + 1):
            size = replace(Size(), **{axis: getattr(Size(), axis) * 2**power})
            spent = bound_seconds(size)
            yield Growth(axis, size, spent, spent / before if before else None)
            before = spent


def growth_table(found: Sequence[Growth]) -> Table:
    """One line for each size."""
    shown = Table(title="one bound of a batch of boxes of a random ReLU network")
    for heading in ("doubled", "batch", "depth", "width", "CPU s", "ratio"):
        shown.add_column(heading, justify="left" if heading == "doubled" else "right")
    for axis, rows in groupby(found, lambda row: row.axis):
        for row in rows:
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
            size = (str(v) for v in (row.size.batch, row.size.depth, row.size.width))
            shown.add_row(axis, *size, f"{row.cpu_seconds:.4f}", ratio)
        shown.add_section()
    return shown


def wanted_instances(arguments: argparse.Namespace) -> list[Instance]:
    """The sample of every family that was asked for."""
    most = QUICK_SAMPLE if arguments.quick else arguments.sample
    chosen = [f for f in families(arguments.data) if not arguments.family or f.name in arguments.family]
    return [i for folder in chosen for i in sample(folder, None if arguments.all else most)]


def main() -> int:
    """Run the benchmark."""
    parser = options(__doc__ or "")
    parser.add_argument("--quick", action="store_true", help="2 instances a family, 1.5 s each")
    parser.add_argument("--all", action="store_true", help="every instance")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="instances a family")
    parser.add_argument("--family", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--doublings", type=int, default=3, help="of batch, depth and width")
    arguments = parser.parse_args()
    timeout = arguments.timeout or (QUICK_TIMEOUT if arguments.quick else TIMEOUT)
    wanted = wanted_instances(arguments)
    if not wanted:
        parser.error(f"no family of that name with an instances.csv in {arguments.data}")
    asked, console = tools(arguments), Console(width=max(140, Console().width))
    asked["sutura"](wanted[0].network, wanted[0].property, WARM_UP)
    found = collect(ask_all(asked, wanted, timeout), console)
    console.print(table(f"families, at most {timeout:g} s an instance", found, FAMILY_COLUMNS))
    notes(found, console)
    grown = list(growths(QUICK_DOUBLINGS if arguments.quick else arguments.doublings))
    console.print(growth_table(grown))
    if arguments.json:
        rows = {"instances": [plain_row(r) for r in found], "growth": [asdict(g) for g in grown]}
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return int(failed(found))


if __name__ == "__main__":
    sys.exit(main())
