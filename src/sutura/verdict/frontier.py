"""The open boxes of a search: a batch of them halved and bounded, and the stack that they wait on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from sutura.bounds.crown import Checkpoint, Enclosure, join
from sutura.bounds.program import Program
from sutura.bounds.region import Region, halves
from sutura.verdict.goal import Goal
from sutura.verdict.narrow import Narrowed, narrow


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Open boxes: the bounds of each, the share of the property's box that it stands for, its margin, and the
    promise of each of its sides."""

    region: Region
    known: Enclosure
    share: Float64[np.ndarray, " batch"]
    margin: Float64[np.ndarray, " batch"]
    promise: Float64[np.ndarray, "batch n"]

    def take(self, rows: Int64[np.ndarray, " k"]) -> Waiting:
        """Some of them."""
        return Waiting(
            self.region.take(rows),
            self.known.take(rows),
            self.share[rows],
            self.margin[rows],
            self.promise[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Advance:
    """What became of a batch: the open halves, most hopeless first, the share settled, boxes bounded,
    boxes that cannot be halved, and inputs where a witness may lie."""

    open: Waiting
    settled: float
    boxes: int
    stuck: int
    corners: Float64[np.ndarray, "k n"]


def waiting(found: Narrowed, share: Float64[np.ndarray, " batch"]) -> Waiting:
    """What is left open of boxes that stand for these shares, most hopeless first."""
    rows = np.flatnonzero(~found.safe)
    rows = rows[np.argsort(found.margin[rows], kind="stable")]
    left = share[rows] * found.kept[rows]
    return Waiting(
        found.rest.take(rows), found.enclosure.take(rows), left, found.margin[rows], found.promise[rows]
    )


def advance(program: Program, aim: Goal, batch: Waiting, checkpoint: Checkpoint) -> Advance:
    """Halve every box of a batch along its most promising side and bound the halves.

    A half counts as settled only where `narrow` proves it, which is sound for float32 execution.
    """
    rows = np.flatnonzero(batch.promise.max(axis=1) > 0)
    stuck = len(batch.region) - len(rows)
    if not len(rows):
        return Advance(batch.take(rows), 0.0, 0, stuck, batch.region.low[:0])
    left, right = halves(batch.region.take(rows), batch.promise[rows].argmax(axis=1))
    both = Region(np.concatenate([left.low, right.low]), np.concatenate([left.high, right.high]))
    twice = np.concatenate([rows, rows])
    found = narrow(program, aim, both, batch.known.take(twice), checkpoint)
    share = batch.share[twice] / 2.0
    still = waiting(found, share)
    return Advance(still, float(share.sum() - still.share.sum()), len(both), stuck, found.corner[~found.safe])


def pop(stack: Sequence[Waiting], size: int, most: int) -> tuple[list[Waiting], list[Waiting]]:
    """Up to `most` chunks of `size` boxes from the top of the stack, and what remains."""
    rest, taken = list(stack), []
    while rest and len(taken) < most:
        parts, count = [], 0
        while rest and count < size:
            top = rest.pop()
            keep = len(top.region) - (size - count)
            if keep > 0:
                rest.append(top.take(np.arange(keep)))
                top = top.take(np.arange(keep, len(top.region)))
            parts.append(top)
            count += len(top.region)
        taken.append(together(parts))
    return taken, rest


def together(parts: Sequence[Waiting]) -> Waiting:
    """One batch out of several, in their order."""
    if len(parts) == 1:
        return parts[0]
    return Waiting(
        Region(np.concatenate([p.region.low for p in parts]), np.concatenate([p.region.high for p in parts])),
        join([p.known for p in parts]),
        np.concatenate([p.share for p in parts]),
        np.concatenate([p.margin for p in parts]),
        np.concatenate([p.promise for p in parts]),
    )
