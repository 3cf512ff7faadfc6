"""What a store says of its campaign, as plain JSON values and as CSV."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sutura.campaign.store import Line, Reading

SLOWEST = 5

COLUMNS = ("network", "property", "timeout", "verdict", "seconds", "cpu_seconds", "boxes", "reason", "job")
"""Columns of the CSV form; where a verdict has no such figure the cell is empty."""


def survey(found: Reading) -> dict[str, Any]:
    """The body of a `sutura/campaign` document: counts, what runs, the slowest, and every instance."""
    lines, about = found.lines(), found.about()
    decided = [line for line in lines if line.document is not None]
    documents = {line.job: line.document for line in lines if line.document is not None}
    seconds = [said["cpu_seconds"] for said in documents.values()]
    now = time.time()
    running = [
        {"network": r.network, "property": r.property, "worker": r.worker, "seconds": now - r.started}
        for r in found.running()
    ]
    slowest = sorted(decided, key=lambda line: -_said(line)["seconds"])[:SLOWEST]
    return {
        "instances": len(lines),
        "jobs": len({line.job for line in lines}),
        "done": len(decided),
        "verdicts": dict(Counter(_said(line)["verdict"] for line in decided)),
        "cpu_seconds": sum(seconds),
        "runs": found.endings(),
        "computed_twice": found.computed_twice(),
        "running": running,
        "seen_seconds_ago": now - float(about["seen"]) if "seen" in about else None,
        "slowest": [entry(line) for line in slowest],
        "results": [entry(line) for line in lines],
    }


def entry(line: Line) -> dict[str, Any]:
    """An instance with its verdict: `open` where there is none yet."""
    named = {"network": line.network, "property": line.property, "timeout": line.timeout, "job": line.job}
    said = line.document or {"verdict": "open"}
    return {**named, **{k: v for k, v in said.items() if k not in ENVELOPE}}


def as_csv(results: Sequence[dict[str, Any]]) -> bytes:
    """The results as CSV, one line an instance, in the order of the list."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([result.get(column, "") for column in COLUMNS] for result in results)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _said(line: Line) -> dict[str, Any]:
    assert line.document is not None
    return line.document


ENVELOPE = frozenset({"schema", "version", "sutura"})
"""What a document says of itself."""
