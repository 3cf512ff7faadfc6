"""Rows of the repair benchmarks: written one by one, taken up again after a stop, shown as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rich.table import Table

R = TypeVar("R")

Columns = Mapping[str, Callable[[R], str]]
"""Heading -> text of a row."""


def resumed(file: Path | None, kind: Callable[..., R]) -> list[R]:
    """The rows that an earlier run left in its file."""
    if file is None or not file.exists():
        return []
    return [kind(**row) for row in json.loads(file.read_text())]


def keep(file: Path | None, rows: Sequence[Any]) -> None:
    """Write all rows there are, beside the file first, so that a stop loses none."""
    if file is None:
        return
    beside = file.with_name(file.name + ".new")
    beside.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    beside.replace(file)


def table(title: str, columns: Columns[R], rows: Sequence[R], names: Sequence[str]) -> Table:
    """The figures that people compare; `names` are the columns that hold words."""
    found = Table(title=title)
    for heading in columns:
        found.add_column(heading.strip(), justify="left" if heading in names else "right")
    for row in rows:
        found.add_row(*(text(row) for text in columns.values()))
    return found


def markdown(columns: Columns[R], rows: Sequence[R]) -> str:
    """The same for RESULTS.md."""
    lines = ["| " + " | ".join(heading.strip() for heading in columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(text(row) for text in columns.values()) + " |" for row in rows]
    return "\n".join(lines)
