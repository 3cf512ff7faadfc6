"""Where to cut: halve each open box along its most promising sides, bound all halves, keep the best pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from sutura.bounds.crown import Checkpoint, Enclosure
from sutura.bounds.program import Program
from sutura.bounds.region import Region, halves
from sutura.verdict.goal import Goal
from sutura.verdict.step import Step, step

TRIED = 3
"""Sides tried for each box."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Open boxes: the bounds of each, how often it was halved, and the promise of each of its sides."""

    region: Region
    known: Enclosure
    depth: Int64[np.ndarray, " batch"]
    promise: Float64[np.ndarray, "batch n"]

    def take(self, rows: Int64[np.ndarray, " k"]) -> Waiting:
        """Some of them."""
        return Waiting(self.region.take(rows), self.known.take(rows), self.depth[rows], self.promise[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Advance:
    """What became of a batch: the open halves, most hopeless first, the share of the first box that was
    settled, boxes bounded, boxes that cannot be halved, and inputs where a witness may lie."""

    open: Waiting
    settled: float
    boxes: int
    stuck: int
    corners: Float64[np.ndarray, "k n"]


def waiting(region: Region, found: Step, depth: Int64[np.ndarray, " batch"]) -> Waiting:
    """The open boxes of a step, most hopeless first."""
    rows = np.flatnonzero(~found.safe)
    rows = rows[np.argsort(found.margin[rows], kind="stable")]
    return Waiting(region.take(rows), found.enclosure.take(rows), depth[rows], found.promise[rows])


def advance(program: Program, aim: Goal, batch: Waiting, every: int, checkpoint: Checkpoint) -> Advance:
    """Halve every box of a batch along the side that leaves its halves nearest to a proof.

    Sides are tried at every `every`-th level; at the others the most promising one is taken, which keeps the
    search from going on forever about sides that help a little each time. A half counts as settled only where
    `step` proves it, which is sound for float32 execution.
    """
    row, dim = _sides(batch, every)
    if not len(row):
        return Advance(batch.take(row), 0.0, 0, len(batch.region), batch.region.low[:0])
    left, right = halves(batch.region.take(row), dim)
    both = Region(np.concatenate([left.low, right.low]), np.concatenate([left.high, right.high]))
    found = step(program, aim, both, batch.known.take(np.concatenate([row, row])), checkpoint)
    kept = _best(row, np.minimum(found.margin, 0.0).reshape(2, -1).sum(axis=0))
    chosen = np.concatenate([kept, kept + len(row)])
    depth = np.concatenate([batch.depth[row], batch.depth[row]]) + 1
    result = _taken(found, chosen)
    return Advance(
        waiting(both.take(chosen), result, depth[chosen]),
        float(np.ldexp(1.0, -depth[chosen][result.safe]).sum()),
        len(both),
        len(batch.region) - len(kept),
        result.corner[~result.safe],
    )


def _sides(batch: Waiting, every: int) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """The most promising sides of each box, as (box, side) pairs; none for a single point."""
    order = np.argsort(-batch.promise, axis=1, kind="stable")[:, :TRIED]
    usable = np.take_along_axis(batch.promise, order, axis=1) > 0
    usable[:, 1:] &= (batch.depth % every == 0)[:, None]
    box = np.broadcast_to(np.arange(len(order))[:, None], order.shape)
    return box[usable], order[usable]


def _best(row: Int64[np.ndarray, " k"], total: Float64[np.ndarray, " k"]) -> Int64[np.ndarray, " boxes"]:
    """Of the pairs of each box, the one whose halves lack least to a proof (the first of equals)."""
    order = np.lexsort((np.arange(len(row)), -total, row))
    first = np.ones(len(row), dtype=bool)
    first[1:] = row[order][1:] != row[order][:-1]
    return order[first]


def _taken(found: Step, rows: Int64[np.ndarray, " k"]) -> Step:
    return Step(
        found.safe[rows],
        found.promise[rows],
        found.margin[rows],
        found.corner[rows],
        found.enclosure.take(rows),
    )
