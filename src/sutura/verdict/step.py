"""One step of branch and bound on inputs: bound a batch of boxes, say which are safe, where to cut others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sutura.bounds.crown import Checkpoint, Enclosure, LowerPlanes, crown, lower_planes, no_checkpoint
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.verdict.goal import Goal, listed, refuted

UNCUTTABLE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """For each box: `safe` (proved), `cut` (the side to halve, UNCUTTABLE for a single point), `margin`
    (least certified distance from unsafe; negative where open), `corner` (where the plane is lowest),
    `promise` (how much halving a side should help, negative where a side is a single number)."""

    safe: Bool[np.ndarray, " batch"]
    promise: Float64[np.ndarray, "batch n"]
    margin: Float64[np.ndarray, " batch"]
    corner: Float64[np.ndarray, "batch n"]
    enclosure: Enclosure

    @property
    def cut(self) -> Int64[np.ndarray, " batch"]:
        """The most promising side."""
        best = self.promise.argmax(axis=1)
        return np.where(self.promise.max(axis=1) > 0, best, UNCUTTABLE)


def step(
    program: Program,
    aim: Goal,
    region: Region,
    known: Enclosure | None = None,
    checkpoint: Checkpoint = no_checkpoint,
) -> Step:
    """Bound each box. `safe` is sound for float32 execution; everything else only guides the search."""
    with np.errstate(all="ignore"):
        bounds = crown(program, region, known, checkpoint=checkpoint)
        planes = lower_planes(program, region, bounds, aim.rows)
        cleared = refuted(aim, planes.value)
        open_rows, margin = _open_rows(aim, planes, cleared)
        slopes = np.take_along_axis(planes.slopes, open_rows[:, :, None], axis=1)
        weight = (~cleared).astype(np.float64)[:, :, None]
        smear = (abs(slopes) * weight).sum(axis=1) * (region.high - region.low)
        worst = slopes[np.arange(len(region)), np.where(cleared, np.inf, margin).argmin(axis=1)]
        return Step(
            np.all(cleared, axis=1),
            _promise(region, smear),
            np.where(cleared, np.inf, margin).min(axis=1, initial=np.inf),
            np.where(worst > 0, region.low, region.high),
            bounds.enclosure(program),
        )


def _open_rows(aim: Goal, planes: LowerPlanes, cleared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each box and conjunction, the inequality nearest to being refuted, and how far it is."""
    rows, valid = listed(aim)
    gap = np.where(valid, (planes.value - aim.bounds)[:, rows], -np.inf)
    best = gap.argmax(axis=2)
    return rows[np.arange(len(rows)), best], np.take_along_axis(gap, best[:, :, None], axis=2)[:, :, 0]


def _promise(region: Region, smear: Float64[np.ndarray, "batch n"]) -> Float64[np.ndarray, "batch n"]:
    """What the open planes feel of each side's width; the width itself where no plane says anything."""
    width = region.high - region.low
    score = np.where(np.isfinite(smear), smear, 0.0)
    score = np.where(score.max(axis=1, keepdims=True) > 0, score, width)
    return np.where(width > 0, np.maximum(score, np.finfo(np.float64).tiny), -1.0)
