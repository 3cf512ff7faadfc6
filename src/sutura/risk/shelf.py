"""Open boxes in the order of their distance from a point, so that the nearest are at hand and no more moves.

A search holds tens of thousands of boxes with all their bounds: sorting them anew for each batch would copy
more than the batch costs. The near ones are one batch, the others lie where they came until it is used up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from sutura.verdict.frontier import Waiting, together

AT_HAND = 4096
"""Least number of boxes that are fetched together, where there are so many."""

SHARE = 8
"""Else one in so many: each box is moved a bounded number of times."""

Far = Float64[np.ndarray, " batch"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Open boxes, and how far each is."""

    boxes: Waiting
    far: Far

    def __len__(self) -> int:
        return len(self.far)

    def take(self, rows: np.ndarray) -> Batch:
        """Some of them."""
        return Batch(self.boxes.take(rows), self.far[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """`near`: every box that is nearer than `reach`. `later`: the others, in no order."""

    near: Batch
    later: tuple[Batch, ...]
    reach: float

    def __len__(self) -> int:
        return len(self.near) + sum(len(part) for part in self.later)

    @property
    def nearest(self) -> float:
        """Distance of the nearest box; infinite where there is none."""
        parts = (self.near, *self.later)
        return min((float(part.far.min()) for part in parts if len(part)), default=np.inf)


def shelf(first: Batch) -> Shelf:
    """A shelf with these boxes."""
    return Shelf(first, (), np.inf)


def taken(held: Shelf, most: int) -> tuple[Batch, Shelf]:
    """Up to `most` of the nearest boxes, none only where there are none, and the rest."""
    if not len(held.near):
        held = _fetched(held)
    if len(held.near) <= most:
        return held.near, Shelf(held.near.take(np.arange(0)), held.later, held.reach)
    order = np.argpartition(held.near.far, most)
    return held.near.take(order[:most]), Shelf(held.near.take(order[most:]), held.later, held.reach)


def put(held: Shelf, new: Batch) -> Shelf:
    """With more boxes."""
    close = new.far < held.reach
    near, far = (new.take(np.flatnonzero(rows)) for rows in (close, ~close))
    return Shelf(_joined((held.near, near)), (*held.later, far) if len(far) else held.later, held.reach)


def within(held: Shelf, limit: float) -> Shelf:
    """Without what is not nearer than `limit`."""
    parts = (part.take(np.flatnonzero(part.far < limit)) for part in held.later)
    later = tuple(part for part in parts if len(part))
    return Shelf(held.near.take(np.flatnonzero(held.near.far < limit)), later, held.reach)


def _fetched(held: Shelf) -> Shelf:
    """The nearest of those that lie further off, at hand."""
    if not held.later:
        return held
    every = _joined(held.later)
    count = max(AT_HAND, len(every) // SHARE)
    if len(every) <= count:
        return Shelf(every, (), np.inf)
    reach = float(np.partition(every.far, count)[count])
    close = every.far < reach
    if not close.any():
        return Shelf(every, (), np.inf)
    near, rest = (every.take(np.flatnonzero(rows)) for rows in (close, ~close))
    return Shelf(near, (rest,), reach)


def _joined(parts: tuple[Batch, ...]) -> Batch:
    filled = [part for part in parts if len(part)] or [parts[0]]
    if len(filled) == 1:
        return filled[0]
    return Batch(together([part.boxes for part in filled]), np.concatenate([part.far for part in filled]))
