"""Best-first cutting of input boxes, where a bound of two networks' difference is loosest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.bounds.difference import difference_bounds
from sutura.bounds.pair import Pair
from sutura.bounds.region import Region, halves
from sutura.progress import Listener, Progress
from sutura.verdict.deadline import Deadline, OutOfTimeError

BATCH = 64
"""Boxes bounded together."""

CLOSE = 1.05
"""Cutting ends where the bound is this near to a difference that was seen."""

Array = Float64[np.ndarray, "batch m"]


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Boxes that cover the region, and bounds of each; `bounded` counts all that were bounded."""

    region: Region
    low: Array
    high: Array
    separate_low: Array
    separate_high: Array
    slopes: Float64[np.ndarray, "batch rows n"]
    bounded: int

    @property
    def largest(self) -> Float64[np.ndarray, " batch"]:
        """How far apart any output of a box may be."""
        return np.maximum(abs(self.low), abs(self.high)).max(axis=1)


def bounded(both: Pair, region: Region, checkpoint: Checkpoint = no_checkpoint) -> Leaves:
    """Every box of a region bounded, a batch at a time."""
    parts: list[Leaves] = []
    for start in range(0, len(region), BATCH):
        box = region.take(slice(start, start + BATCH))
        found = difference_bounds(both, box, checkpoint=checkpoint)
        parts.append(Leaves(box, found.low, found.high, *found.separate, found.slopes, len(box)))
    return _together(parts)


def narrowed(
    both: Pair, leaves: Leaves, seen: float, limits: tuple[int, Deadline], listen: Listener
) -> Leaves:
    """Cut the loosest boxes until a limit (boxes, deadline), or until the bound is near what was `seen`."""
    most, deadline = limits
    while leaves.bounded + 2 <= most and leaves.largest.max() > CLOSE * seen and not deadline.passed:
        room = min(BATCH // 2, (most - leaves.bounded) // 2)
        order = np.argsort(-leaves.largest, kind="stable")
        chosen = order[:room]
        chosen = chosen[_divisible(leaves.region, chosen)]
        if not len(chosen):
            break
        try:
            children = _children(both, leaves, chosen, deadline.check)
        except OutOfTimeError:
            break
        kept = _taken(leaves, np.setdiff1d(order, chosen))
        leaves = _together([kept, children])
        listen(Progress("difference", leaves.bounded, most - leaves.bounded, leaves.bounded / most))
    return leaves


def _divisible(region: Region, rows: np.ndarray) -> np.ndarray:
    return np.asarray((region.low[rows] < region.high[rows]).any(axis=1))


def _children(both: Pair, leaves: Leaves, chosen: np.ndarray, checkpoint: Checkpoint) -> Leaves:
    """Both halves of the chosen boxes, none bounded worse than its parent."""
    parents = leaves.region.take(chosen)
    sides = halves(parents, _sides(leaves, chosen))
    region = Region(
        np.concatenate([part.low for part in sides]), np.concatenate([part.high for part in sides])
    )
    fresh, old = bounded(both, region, checkpoint), _taken(leaves, np.tile(chosen, 2))
    return Leaves(
        region,
        np.fmax(fresh.low, old.low),
        np.fmin(fresh.high, old.high),
        np.fmax(fresh.separate_low, old.separate_low),
        np.fmin(fresh.separate_high, old.separate_high),
        fresh.slopes,
        fresh.bounded,
    )


def _sides(leaves: Leaves, chosen: np.ndarray) -> np.ndarray:
    """Where to cut: by the plane behind the loosest bound."""
    loosest = np.concatenate([-leaves.low[chosen], leaves.high[chosen]], axis=1).argmax(axis=1)
    return steepest(leaves.region.take(chosen), leaves.slopes[chosen, loosest])


def steepest(region: Region, slope: Float64[np.ndarray, "batch n"]) -> Int64[np.ndarray, " batch"]:
    """For each box the side along which a plane of that slope changes most; the widest where it is flat."""
    width = region.high - region.low
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.nan_to_num(abs(slope)) * width
    return np.where((change.max(axis=1) > 0)[:, None], change, width).argmax(axis=1)


def _taken(leaves: Leaves, rows: np.ndarray) -> Leaves:
    return Leaves(
        leaves.region.take(rows),
        leaves.low[rows],
        leaves.high[rows],
        leaves.separate_low[rows],
        leaves.separate_high[rows],
        leaves.slopes[rows],
        leaves.bounded,
    )


def _together(parts: list[Leaves]) -> Leaves:
    region = Region(
        np.concatenate([p.region.low for p in parts]), np.concatenate([p.region.high for p in parts])
    )
    return Leaves(
        region,
        np.concatenate([p.low for p in parts]),
        np.concatenate([p.high for p in parts]),
        np.concatenate([p.separate_low for p in parts]),
        np.concatenate([p.separate_high for p in parts]),
        np.concatenate([p.slopes for p in parts]),
        sum(p.bounded for p in parts),
    )
