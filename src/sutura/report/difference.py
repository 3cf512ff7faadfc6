"""How far two networks differ, as plain JSON values."""

from __future__ import annotations

from typing import Any

from sutura.report.document import claimed
from sutura.verdict.difference import Difference, Seen


def difference(found: Difference) -> dict[str, Any]:
    """How far two networks differ, from both sides."""
    low, high = found.separate
    return {
        "largest": {"certified": found.largest, "seen": found.largest_seen},
        "outputs": [
            {
                "certified": [float(a), float(b)],
                "separate": [float(c), float(d)],
                "seen": [float(e), float(f)],
            }
            for a, b, c, d, e, f in zip(found.low, found.high, low, high, *found.attained, strict=True)
        ],
        "decides_alike": found.decides_alike,
        "same_share": found.same_share,
        "widest": _seen(found.widest),
        "changed": None if found.changed is None else _seen(found.changed),
        "boxes": found.boxes,
        "seconds": found.seconds,
        **claimed(found.claim),
    }


def _seen(seen: Seen) -> dict[str, Any]:
    return {
        "input": [float(v) for v in seen.input],
        "input_hex": [float(v).hex() for v in seen.input],
        "first": [float(v) for v in seen.first],
        "second": [float(v) for v in seen.second],
    }
