"""Certified radii: the largest ball whose claim linear bounds show, many radii of many inputs at once.

What bounds a batch of regions is a parameter (`Bounder`), so that a tighter method is one function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sutura.bounds.crown import Checkpoint, crown, lower_planes, no_checkpoint
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.risk.ball import Column, Domain, Norm, Points, regions
from sutura.risk.safety import Claim
from sutura.verdict.deadline import OutOfTimeError

FIRST = (2.0**-14, 2.0**-10, 2.0**-7, 2.0**-5, 2.0**-4, 0.125, 0.25, 0.5, 0.75, 0.9, 0.999)
"""Shares of the ceiling tried first; between the last that holds and the next, then equally spaced."""

INTERIOR, ROUNDS = 7, 2
ENTRIES = 1 << 22
"""Coefficients of the rows of a batch of regions that are bounded together."""

Rows = Float64[np.ndarray, "batch k m"]
Bounder = Callable[[Program, Region, Rows, Checkpoint], Float64[np.ndarray, "batch k"]]
"""Lower bounds of rows @ output over each region; sound for every float32 execution."""
Shown = Callable[[Int64[np.ndarray, " b"], Column], Bool[np.ndarray, " b"]]
"""Whether the ball of input at[i] with radius[i] was shown to be safe."""


def crown_bounds(
    program: Program, region: Region, rows: Rows, checkpoint: Checkpoint
) -> Float64[np.ndarray, "batch k"]:
    """Backward linear bounds with fixed slopes (CROWN). Sound for float32 execution."""
    with np.errstate(all="ignore"):
        bounds = crown(program, region, checkpoint=checkpoint)
        return lower_planes(program, region, bounds, rows).value


def shown_by(
    bounder: Bounder,
    program: Program,
    ball: tuple[Domain, Norm, Points],
    claim: Claim,
    checkpoint: Checkpoint = no_checkpoint,
) -> Shown:
    """Whether a bounder shows the claim on a ball; `ball` is the domain, the norm and all centres.

    What is not bounded when `checkpoint` raises OutOfTimeError is not shown.
    """
    limits, norm, centre = ball
    step = max(1, ENTRIES // (max(program.sizes) * max(1, claim.rows.shape[1])))

    def shown(at: Int64[np.ndarray, " b"], radius: Column) -> Bool[np.ndarray, " b"]:
        parts = [np.zeros(0, dtype=np.bool_)]
        for first in range(0, len(at), step):
            part = slice(first, first + step)
            asked = claim.take(at[part])
            region = regions(limits, norm, centre[at[part]], radius[part])
            try:
                parts.append(asked.shown(bounder(program, region, asked.rows, checkpoint)))
            except OutOfTimeError:
                parts.append(np.zeros(len(at) - first, dtype=np.bool_))
                break
        return np.concatenate(parts)

    return shown


def largest_shown(shown: Shown, ceiling: Column) -> Column:
    """The largest radius below each ceiling that was shown, to a part in a hundred of it or so; 0 for none.

    Every radius returned was shown itself: nothing rests on the search. The ceiling (an attacked upper bound,
    or the width of the domain) only says where to look.
    """
    lower, above = np.zeros(len(ceiling)), ceiling.copy()
    shares = np.repeat(np.array(FIRST)[None] * ceiling[:, None], 1, axis=0)
    for turn in range(1 + ROUNDS):
        if turn:
            steps = np.arange(1, INTERIOR + 1) / (INTERIOR + 1)
            shares = lower[:, None] + steps * (above - lower)[:, None]
        lower, above = _narrowed(shown, shares, lower, above)
    return lower


def _narrowed(
    shown: Shown, tried: Float64[np.ndarray, "batch k"], lower: Column, above: Column
) -> tuple[Column, Column]:
    at = np.repeat(np.arange(len(tried)), tried.shape[1])
    holds = shown(at, tried.reshape(-1)).reshape(tried.shape)
    best = np.maximum(lower, np.where(holds, tried, 0.0).max(axis=1))
    next_up = np.where(tried > best[:, None], tried, np.inf).min(axis=1)
    return best, np.minimum(above, next_up)


BOUNDERS: Mapping[str, Bounder] = {"crown": crown_bounds}
