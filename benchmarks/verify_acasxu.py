"""Verify the ACAS Xu instances: verdicts against those on record, and CPU seconds, beside any peers named.

    python benchmarks/verify_acasxu.py [--quick] [--every N] [--timeout S] [--workers N] [--json FILE]
        [--data FOLDER] [--marabou PYTHON] [--peer NAME=EXECUTABLE ...]

Every tool answers an instance before the next instance begins, so that all meet the same load. CPU seconds
are those of all threads and child processes, from reading the files to the verdict. Start-up is apart for
sutura (this process, warmed up on the first instance) and for maraboupy (PYTHON is an interpreter that has
it, with 'numpy<2', onnx and onnxruntime). It counts for an EXECUTABLE, which is run as
`EXECUTABLE NET PROP SECONDS` and prints sat, unsat or unknown first on a line, and for what had to be killed.

A verdict is wrong where the tools on record are unanimous and it contradicts them. Exits with 1 where sutura
was wrong or crashed.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

from contestants import Answer, Tool, cpu, options, tools
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WARM_UP = 2.0
"""Seconds of the untimed run that loads every library."""

QUICK_EVERY, QUICK_TIMEOUT = 12, 2.0

MEANING = {"unsat": "holds", "sat": "violated"}
"""A decided verdict -> the word that instances.csv has for it."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A line of instances.csv: two files, the competition's limit in seconds, and what its tools said."""

    group: str
    name: str
    network: Path
    property: Path
    limit: float
    unanimous: str
    majority: str
    solved_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What one tool said of one instance."""

    instance: Instance
    tool: str
    answer: Answer

    @property
    def decided(self) -> bool:
        """Whether it said sat or unsat."""
        return self.answer.verdict in MEANING

    @property
    def wrong(self) -> bool:
        """Whether it contradicts a verdict that all tools on record share."""
        known = self.instance.unanimous in MEANING.values()
        return known and self.decided and MEANING[self.answer.verdict] != self.instance.unanimous

    @property
    def minority(self) -> bool:
        """Whether it sides with the fewer of the tools on record, where those disagree."""
        disputed = self.instance.unanimous == "disputed" and self.instance.majority in MEANING.values()
        return disputed and self.decided and MEANING[self.answer.verdict] != self.instance.majority


Columns = Mapping[str, Callable[[Sequence[Row]], str]]


def instances(folder: Path, naming: Callable[[Path, Path], tuple[str, str]]) -> list[Instance]:
    """The lines of a folder's instances.csv; `naming` gives group and name."""
    with (folder / "instances.csv").open(newline="") as file:
        return [_instance(folder, line, naming) for line in csv.DictReader(file)]


def _instance(
    folder: Path, line: dict[str, str], naming: Callable[[Path, Path], tuple[str, str]]
) -> Instance:
    network, asked = folder / line["onnx"], folder / line["vnnlib"]
    solved_by = line.get(f"tools_{line['majority']}") or ""
    limit, unanimous, majority = float(line["timeout_s"]), line["unanimous"], line["majority"]
    return Instance(
        *naming(network, asked), network, asked, limit, unanimous, majority, (*solved_by.split(),)
    )


def acas_name(network: Path, asked: Path) -> tuple[str, str]:
    """ACASXU_run2a_1_2_batch_2000.onnx and prop_3.vnnlib -> property 3, N1,2 p3."""
    number = asked.name.removesuffix(".vnnlib").removeprefix("prop_")
    return f"property {number}", f"N{','.join(network.stem.split('_')[2:4])} p{number}"


def ask_all(asked: Mapping[str, Tool], wanted: Sequence[Instance], timeout: float | None) -> Iterator[Row]:
    """Every tool on every instance, within the competition's limit or a smaller one."""
    for instance in wanted:
        limit = instance.limit if timeout is None else min(timeout, instance.limit)
        for name, tool in asked.items():
            yield Row(instance, name, tool(instance.network, instance.property, limit))


def collect(rows: Iterator[Row], console: Console) -> list[Row]:
    """All rows, each shown as it comes; those there are where the run is interrupted."""
    found: list[Row] = []
    try:
        for row in rows:
            found.append(row)
            said = row.answer
            console.print(
                f"{escape(row.instance.name)} {row.tool}: {said.verdict}, {said.cpu_seconds:.2f} CPU s",
                "[bold red]WRONG[/]" if row.wrong else "",
                highlight=False,
            )
    except KeyboardInterrupt:
        console.print("interrupted: the table covers what was answered")
    return found


def table(title: str, found: Sequence[Row], columns: Columns) -> Table:
    """One line for each group and tool, and one for each tool in all."""
    shown = Table(title=title)
    for heading in ("", "tool", *columns):
        shown.add_column(heading, justify="left" if heading in ("", "tool") else "right")
    groups = list(dict.fromkeys(row.instance.group for row in found))
    for group in (*groups, "all"):
        for tool in dict.fromkeys(row.tool for row in found):
            part = [r for r in found if r.tool == tool and group in ("all", r.instance.group)]
            if part:
                shown.add_row(group, tool, *(text(part) for text in columns.values()))
        shown.add_section()
    return shown


def seconds(part: Sequence[Row]) -> list[float]:
    """CPU seconds of each instance, the undecided ones included."""
    return [row.answer.cpu_seconds for row in part]


def reading(part: Sequence[Row]) -> str:
    """CPU seconds spent on reading files; peers do not say theirs."""
    known = [r.answer.load_seconds for r in part if r.answer.load_seconds is not None]
    return f"{sum(known):.2f}" if known else "-"


COLUMNS: Columns = {
    "solved": lambda part: f"{sum(r.decided for r in part)}/{len(part)}",
    "wrong": lambda part: str(sum(r.wrong for r in part)),
    "CPU s": lambda part: f"{sum(seconds(part)):.2f}",
    "median": lambda part: f"{median(seconds(part)):.3f}",
    "max": lambda part: f"{max(seconds(part)):.2f}",
    "reading": reading,
}
"""Heading -> text of the rows of one tool and group; `reading` is a share of the CPU seconds."""


def notes(found: Sequence[Row], console: Console) -> None:
    """By name: each disagreement (of tools that ran or are on record), and what is undecided."""
    for row in found:
        others = {r.answer.verdict for r in found if r.instance == row.instance and r.decided}
        if row.wrong or row.minority or (row.decided and len(others) > 1):
            recorded = f"on record: {row.instance.unanimous}, by majority {row.instance.majority}"
            console.print(f"{escape(row.instance.name)}: {row.tool} says {row.answer.verdict}; {recorded}")
    for tool in dict.fromkeys(row.tool for row in found):
        left = [r for r in found if r.tool == tool and not r.decided]
        console.print(f"{tool}: {len(left)} undecided")
        for line in undecided(left):
            console.print(f"  {escape(line)}")


def undecided(left: Sequence[Row]) -> Iterator[str]:
    """Each instance with the reason; of those refused, each reason once with its networks."""
    refused: dict[str, dict[str, None]] = {}
    for row in left:
        if row.answer.verdict == "refused":
            refused.setdefault(row.answer.reason, {})[row.instance.network.name] = None
        else:
            yield f"{row.instance.name}: {row.answer.verdict}, {row.answer.reason}"
    for reason, networks in refused.items():
        yield f"{', '.join(networks)}: refused, {reason}"


def failed(found: Sequence[Row]) -> bool:
    """Whether sutura was wrong or crashed anywhere."""
    return any(r.wrong or r.answer.verdict == "error" for r in found if r.tool == "sutura")


def plain_row(row: Row) -> dict[str, object]:
    """A row as JSON; files by name only."""
    instance = {**asdict(row.instance), "network": row.instance.network.name}
    instance["property"] = row.instance.property.name
    return {"tool": row.tool, "wrong": row.wrong, **instance, **asdict(row.answer)}


def main() -> int:
    """Run the benchmark."""
    parser = options(__doc__ or "")
    parser.add_argument(
        "--quick", action="store_true", help=f"every {QUICK_EVERY}th, {QUICK_TIMEOUT:g} s each"
    )
    parser.add_argument("--every", type=int, default=1, help="every Nth instance, from the first")
    arguments = parser.parse_args()
    every = QUICK_EVERY if arguments.quick else arguments.every
    timeout = arguments.timeout or (QUICK_TIMEOUT if arguments.quick else None)
    wanted = instances(arguments.data / "acasxu", acas_name)[::every]
    asked, console = tools(arguments), Console(width=max(110, Console().width))
    started = cpu()
    asked["sutura"](wanted[0].network, wanted[0].property, WARM_UP)
    console.print(f"start-up: {cpu() - started:.2f} CPU s (imports and one warm-up run), not counted below")
    found = collect(ask_all(asked, wanted, timeout), console)
    console.print(table(f"ACAS Xu, {len(wanted)} instances", found, COLUMNS))
    notes(found, console)
    if arguments.json:
        arguments.json.write_text(json.dumps([plain_row(r) for r in found], indent=2) + "\n")
    return int(failed(found))


if __name__ == "__main__":
    sys.exit(main())
