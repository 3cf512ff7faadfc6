"""One step of branch and bound on inputs: bound a batch of boxes, say which are safe, where to cut others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sutura.bounds.crown import Checkpoint, Enclosure, LowerPlanes, crown, lower_planes, no_checkpoint
from sutura.bounds.influence import influence
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.verdict.goal import Goal, listed, refuted

UNCUTTABLE = -1

SMEAR = 0.1
"""Weight of a plane's slope beside what the relaxations lose: halving a side leaves one half its slope."""


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
        planes = lower_planes(program, region, bounds, aim.rows, shares=influence(program, region, bounds))
        cleared = refuted(aim, planes.value)
        open_rows, margin = _open_rows(aim, planes, cleared)
        slopes = np.take_along_axis(planes.slopes, open_rows[:, :, None], axis=1)
        strain = np.take_along_axis(planes.strain, open_rows[:, :, None], axis=1)
        worst = slopes[np.arange(len(region)), np.where(cleared, np.inf, margin).argmin(axis=1)]
        return Step(
            np.all(cleared, axis=1),
            promise(region, slopes, strain, ~cleared),
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


def promise(
    region: Region,
    slopes: Float64[np.ndarray, "batch k n"],
    strain: Float64[np.ndarray, "batch k n"],
    counts: Bool[np.ndarray, "batch k"],
) -> Float64[np.ndarray, "batch n"]:
    """How much halving each side should help, by the planes that count; negative for a side of no width.

    What the relaxations lose to a side comes first: slopes of a plane cancel where the network is anything
    but flat. The width itself where no plane says anything.
    """
    width = region.high - region.low
    score = ((strain + SMEAR * abs(slopes) * width[:, None]) * counts[:, :, None]).sum(axis=1)
    score = np.where(np.isfinite(score), score, 0.0)
    score = np.where(score.max(axis=1, keepdims=True) > 0, score, width)
    return np.where(width > 0, np.maximum(score, np.finfo(np.float64).tiny), -1.0)
