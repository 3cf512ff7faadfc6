"""The open boxes of a search: a batch of them halved and bounded, and the stack that they wait on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sutura.bounds.crown import Checkpoint, Enclosure, join
from sutura.bounds.program import Program
from sutura.bounds.region import Region, halves
from sutura.verdict.goal import Goal
from sutura.verdict.narrow import Narrowed, narrow

SHRUNK = 0.25
"""A box of which less than this share was left by clipping is bounded again before it is halved."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Open boxes: the bounds of each, the share of the property's box that it stands for, its margin, the
    promise of each of its sides, and whether so little is left of it that it is bounded again uncut."""

    region: Region
    known: Enclosure
    share: Float64[np.ndarray, " batch"]
    margin: Float64[np.ndarray, " batch"]
    promise: Float64[np.ndarray, "batch n"]
    shrunk: Bool[np.ndarray, " batch"]

    def take(self, rows: Int64[np.ndarray, " k"]) -> Waiting:
        """Some of them."""
        return Waiting(
            self.region.take(rows),
            self.known.take(rows),
            self.share[rows],
            self.margin[rows],
            self.promise[rows],
            self.shrunk[rows],
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
    kept = found.kept[rows]
    return Waiting(
        found.rest.take(rows),
        found.enclosure.take(rows),
        share[rows] * kept,
        found.margin[rows],
        found.promise[rows],
        kept < SHRUNK,
    )


def advance(program: Program, aim: Goal, batch: Waiting, checkpoint: Checkpoint) -> Advance:
    """Halve every box of a batch along its most promising side, the shrunk ones apart, and bound the parts.

    A half counts as settled only where `narrow` proves it, which is sound for float32 execution.
    """
    rows = np.flatnonzero(batch.promise.max(axis=1) > 0)
    stuck = len(batch.region) - len(rows)
    if not len(rows):
        return Advance(batch.take(rows), 0.0, 0, stuck, batch.region.low[:0])
    uncut, cut = rows[batch.shrunk[rows]], rows[~batch.shrunk[rows]]
    parts = (batch.region.take(uncut), *halves(batch.region.take(cut), batch.promise[cut].argmax(axis=1)))
    region = Region(np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts]))
    origin = np.concatenate([uncut, cut, cut])
    found = narrow(program, aim, region, batch.known.take(origin), checkpoint)
    share = batch.share[origin] * np.where(batch.shrunk[origin], 1.0, 0.5)
    still = waiting(found, share)
    settled = float(share.sum() - still.share.sum())
    return Advance(still, settled, len(region), stuck, found.corner[~found.safe])


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
        np.concatenate([p.shrunk for p in parts]),
    )
