"""Invariant examples, honestly: how far the decision is carried towards real inputs of another class.

A human's answer changes somewhere between two real inputs of different classes, and no code knows where. So
there is no lower bound. What can be said: a real input of another class with the same decision is an
invariant example, given the labels; and how far from the centre towards such inputs the decision stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from sutura.errors import DataError
from sutura.risk.ball import Points, extreme
from sutura.risk.boundary import Asked
from sutura.risk.model import Model
from sutura.risk.safety import at_risk, margins, safety, seeds

TOWARDS = 16
"""Nearest inputs of other classes looked at."""

SHARES = np.linspace(0.0, 1.0, 65)[1:]
STEPS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Invariant:
    """`upper`: distance of the nearest input of another class with the same decision (inf: none in the data).
    `estimate`: distance of the farthest input with the same decision that was found on the way to one of
    another class; `witness` is the one of `upper` where there is one, else that one."""

    upper: float
    estimate: float
    witness: Float32[np.ndarray, " n"]
    safety: float
    figures: Mapping[str, float]


def invariance(seen: Model, asked: Asked, reference: tuple[np.ndarray, np.ndarray] | None) -> list[Invariant]:
    """One answer for each input. Raises DataError without labelled reference inputs of another class."""
    if reference is None:
        raise DataError(
            "the invariance risk needs inputs of other classes with their true labels: give labelled data"
        )
    x, y = reference
    return [_one(seen, asked.take(np.array([i])), (x.astype(np.float32), y)) for i in range(len(asked.label))]


def _one(
    seen: Model, asked: Asked, reference: tuple[Float32[np.ndarray, "batch n"], np.ndarray]
) -> Invariant:
    others = reference[0][reference[1] != asked.label[0]]
    if not len(others):
        raise DataError(f"no reference input is labelled otherwise than {asked.label[0]}")
    far = asked.take(np.zeros(len(others), dtype=np.int64)).far(others.astype(np.float64))
    kept = _kept(seen, asked, others)
    upper = float(far[kept].min(initial=np.inf))
    nearest = np.argsort(far, kind="stable")[:TOWARDS]
    share, farthest, at = _carried(seen, asked, others[nearest].astype(np.float64))
    witness = others[kept][far[kept].argmin()] if kept.any() else at
    safe = float(
        safety(asked.risk, seen.run(asked.centre.astype(np.float32)).astype(np.float64), asked.label)[0]
    )
    figures = {
        "farthest_share_of_the_way": share,
        "least_output_change_per_unit": _least_change(seen, asked, others[nearest]),
    }
    return Invariant(upper, farthest, witness.astype(np.float32), safe, figures)


def _kept(seen: Model, asked: Asked, x: Float32[np.ndarray, "batch n"]) -> np.ndarray:
    """Which inputs get the same decision."""
    rows = asked.label[np.zeros(len(x), dtype=np.int64)]
    return ~at_risk(asked.risk, seen.run(x), rows)


def _carried(seen: Model, asked: Asked, targets: Points) -> tuple[float, float, Float32[np.ndarray, " n"]]:
    """The largest share of the way to a target at which the decision still stands, with gradient steps that
    hold it up; the distance of the farthest such point, and the point."""
    at = np.zeros(len(targets) * len(SHARES), dtype=np.int64)
    way = np.repeat(targets, len(SHARES), axis=0) - asked.centre
    x = asked.centre + np.tile(SHARES, len(targets))[:, None] * way
    rows = asked.take(at)
    if seen.slopes is not None:
        x = _held_up(seen, rows, x, 0.02 * asked.domain.widest)
    x = np.clip(x, asked.domain.low, asked.domain.high).astype(np.float32)
    kept = _kept(seen, asked, x)
    far = rows.far(x.astype(np.float64))
    share = float(np.where(kept, np.tile(SHARES, len(targets)), 0.0).max())
    best = int(np.where(kept, far, -1.0).argmax())
    return share, float(far[best]) if kept.any() else 0.0, x[best]


def _held_up(seen: Model, rows: Asked, x: Points, step: float) -> Points:
    """A few small steps that raise the margin of the decision."""
    assert seen.slopes is not None
    for _ in range(STEPS):
        outputs, pull = seen.slopes(x)
        way = margins(rows.risk, outputs, rows.label).argmin(axis=1)
        slope = np.nan_to_num(pull(seeds(rows.risk, outputs, rows.label, way)))
        x = extreme(rows.domain, rows.norm, x, -slope, np.full(len(x), step / STEPS))
    return x


def _least_change(seen: Model, asked: Asked, others: Float32[np.ndarray, "batch n"]) -> float:
    """Smallest |f(x) - f(x0)| / ||x - x0|| seen at and on the way to inputs of other classes: no bound."""
    x = (asked.centre + SHARES[7::8, None, None] * (others - asked.centre)).reshape(-1, asked.centre.shape[1])
    x = x.astype(np.float32)
    change = seen.run(x).astype(np.float64) - seen.run(asked.centre.astype(np.float32))
    far = asked.take(np.zeros(len(x), dtype=np.int64)).far(x.astype(np.float64))
    return float((np.sqrt((change * change).sum(axis=1)) / np.maximum(far, 1e-12)).min())
