"""One step of the search for a verdict: bound boxes, refute, and cut off what is refuted of those left open.

Stronger than `step`, which uses only what a checker proves again from a box alone: conjunctions are refuted
by sums of their inequalities too, slopes are optimised, and boxes shrink.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from sutura.bounds.crown import Bounds, Checkpoint, Enclosure, LowerPlanes, crown, lower_planes, no_checkpoint
from sutura.bounds.influence import influence
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.verdict.ascend import ascend, pairs_of
from sutura.verdict.blend import blend
from sutura.verdict.clip import clip
from sutura.verdict.goal import Goal, listed, refuted
from sutura.verdict.step import Step, promise, step

MOST_ENTRIES = 1 << 22
"""Clipping and blending are left out where their arrays would have more entries."""


@dataclass(frozen=True, slots=True, eq=False)
class Narrowed:
    """For each box: `safe` (proved), `rest` (the part that may be unsafe; anything where safe), `kept` (its
    share of the box), `margin` (least certified distance from unsafe; negative where open), `corner` (where
    the plane is lowest), `promise` (as in Step), and the bounds inside."""

    safe: Bool[np.ndarray, " batch"]
    rest: Region
    kept: Float64[np.ndarray, " batch"]
    margin: Float64[np.ndarray, " batch"]
    corner: Float64[np.ndarray, "batch n"]
    promise: Float64[np.ndarray, "batch n"]
    enclosure: Enclosure


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """The planes of each conjunction, less their bounds: all at most zero wherever the conjunction holds.

    `gap` is the best certified least value over the box, `least` that of the plane itself. `strain` is what
    the relaxations lose to each side (see LowerPlanes), over all inequalities of the conjunction.
    """

    gap: Float64[np.ndarray, "batch k r"]
    least: Float64[np.ndarray, "batch k r"]
    slopes: Float64[np.ndarray, "batch k r n"]
    strain: Float64[np.ndarray, "batch k n"]


def narrow(
    program: Program,
    aim: Goal,
    region: Region,
    known: Enclosure | None = None,
    checkpoint: Checkpoint = no_checkpoint,
) -> Narrowed:
    """Bound each box. `safe` and `rest` are sound for float32 execution; all else guides the search."""
    # Over a ball a plane's least value is not at a corner of the box: nothing is cut off.
    if region.ball is not None or len(region) * listed(aim)[0].size * program.inputs > MOST_ENTRIES:
        return _unclipped(region, step(program, aim, region, known, checkpoint))
    with np.errstate(all="ignore"):
        bounds = crown(program, region, known, checkpoint=checkpoint)
        shares = influence(program, region, bounds)
        single = lower_planes(program, region, bounds, aim.rows, shares=shares)
        cleared = refuted(aim, single.value)
        planes = _planes(aim, single)
        if not cleared.all():
            planes = _with_best((program, aim, region), bounds, planes, cleared)
            cleared = cleared | (planes.gap[:, :, -1] > 0)
        rest = clip(region, cleared, planes.least, planes.slopes)
        return _narrowed(region, rest, cleared, planes, bounds.enclosure(program))


def _unclipped(region: Region, found: Step) -> Narrowed:
    whole = np.ones(len(region))
    return Narrowed(found.safe, region, whole, found.margin, found.corner, found.promise, found.enclosure)


def _planes(aim: Goal, found: LowerPlanes) -> Planes:
    rows, valid = listed(aim)
    gap, least = (np.where(valid, (v - aim.bounds)[:, rows], -np.inf) for v in (found.value, found.plane))
    slopes, strain = (np.where(valid[..., None], v[:, rows], 0.0) for v in (found.slopes, found.strain))
    return Planes(gap, least, slopes, strain.sum(axis=2))


def _with_best(
    problem: tuple[Program, Goal, Region],
    bounds: Bounds,
    planes: Planes,
    cleared: Bool[np.ndarray, "batch k"],
) -> Planes:
    """One more plane for each conjunction not cleared: the best found of sums of its inequalities."""
    program, aim, region = problem
    box, conjunction = np.nonzero(~cleared)
    weights = blend(region, planes.least, planes.slopes, np.broadcast_to(listed(aim)[1], planes.gap.shape))[
        box, conjunction
    ]
    scene = region.take(box), bounds.take(box)
    found = ascend(program, scene, pairs_of(aim, conjunction), weights)
    least = np.full((*cleared.shape, 1), -np.inf)
    slopes = np.zeros((*cleared.shape, 1, program.inputs))
    least[box, conjunction, 0], slopes[box, conjunction, 0] = found.least, found.slopes
    return Planes(
        np.concatenate([planes.gap, least], axis=2),
        np.concatenate([planes.least, least], axis=2),
        np.concatenate([planes.slopes, slopes], axis=2),
        planes.strain,
    )


def _narrowed(
    region: Region,
    rest: Region,
    cleared: Bool[np.ndarray, "batch k"],
    planes: Planes,
    enclosure: Enclosure,
) -> Narrowed:
    nearest = planes.gap.argmax(axis=2)[:, :, None]
    gap = np.where(cleared, np.inf, np.take_along_axis(planes.gap, nearest, axis=2)[:, :, 0])
    slopes = np.take_along_axis(planes.slopes, nearest[..., None], axis=2)[:, :, 0]
    worst = slopes[np.arange(len(region)), gap.argmin(axis=1)]
    return Narrowed(
        np.all(cleared, axis=1) | np.any(rest.low > rest.high, axis=1),
        rest,
        _kept(region, rest),
        gap.min(axis=1, initial=np.inf),
        np.where(worst > 0, rest.low, rest.high),
        promise(rest, slopes, planes.strain, ~cleared),
        enclosure,
    )


def _kept(region: Region, rest: Region) -> Float64[np.ndarray, " batch"]:
    """Share of the volume that is left, sides of no width apart."""
    width, left = region.high - region.low, rest.high - rest.low
    return np.where(width > 0, np.clip(left, 0.0, width) / np.where(width > 0, width, 1.0), 1.0).prod(axis=1)
