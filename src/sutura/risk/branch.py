"""Branch and bound on radii: what linear bounds alone leave open between lower and upper.

With few inputs the search halves inputs, nearest boxes first (`nearest_first`). With many, Linf balls go
through `verify`, radius by radius, and gain from whatever it branches on.
"""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from sutura.property.spec import Box, Case, Inequality, Property
from sutura.property.write import write
from sutura.risk.boundary import Asked, confirmed
from sutura.risk.model import Model
from sutura.risk.nearest import Bracket, nearest_first
from sutura.risk.safety import Claim
from sutura.verdict.deadline import Deadline
from sutura.verdict.goal import goal
from sutura.verdict.outcome import Proved, Violated
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

FEW_INPUTS = 16
"""Up to here halving inputs pays, and scattering points."""

SHARE = 0.35
"""Share of the time that is left which one radius gets."""


def narrowed(
    seen: Model, asked: Asked, claimed: Claim, bracket: Bracket, limits: tuple[Deadline, float, VerifyConfig]
) -> Bracket:
    """A tighter bracket of one input's radius: lower sound for float32 execution, the witness replayed.

    `limits`: the deadline, the wanted lower / upper, and how `verify` is to run. With many inputs L1 and L2
    balls stay as they are.
    """
    deadline, tight, config = limits
    if len(asked.domain.low) <= FEW_INPUTS:
        aim = goal(ball_property(asked, claimed, 0.0).cases[0].unsafe, claimed.rows.shape[2])
        return nearest_first(seen, asked, aim, bracket, (deadline, tight, config.workers))
    return _radius_by_radius(seen, asked, claimed, bracket, limits) if asked.norm == "linf" else bracket


def _radius_by_radius(
    seen: Model, asked: Asked, claimed: Claim, bracket: Bracket, limits: tuple[Deadline, float, VerifyConfig]
) -> Bracket:
    """First just below the upper bound, then between what is proved and what was too hard."""
    deadline, tight, config = limits
    tried = aim = tight * min(bracket.upper, 1.01 * asked.domain.widest)
    while not deadline.passed and bracket.lower < 0.995 * tried:
        seconds = max(0.05, SHARE * (deadline.at - time.monotonic()))
        prop = ball_property(asked, claimed, aim)
        how = VerifyConfig(seconds, config.workers, config.seed, config.waiting)
        verdict = verify(seen.head, prop, how).verdict
        if isinstance(verdict, Proved):
            bracket = Bracket(max(bracket.lower, aim), bracket.found)
            aim = (bracket.lower + tried) / 2.0
        elif isinstance(verdict, Violated):
            point = verdict.witness.input.astype(np.float64)[None]
            found = confirmed(seen.run, asked, np.zeros(1, np.int64), point, asked.far(point))
            bracket = Bracket(bracket.lower, bracket.found.nearer(found))
            tried = aim = min(aim * tight, tight * bracket.upper)
        else:
            tried, aim = aim, (bracket.lower + aim) / 2.0
    return bracket


def ball_property(asked: Asked, claimed: Claim, radius: float) -> Property:
    """The claim on the box of one Linf ball, exactly: ends are centre +- radius * scale in the domain."""
    limits, width = asked.domain, Fraction(radius)
    rows = (asked.centre[0], limits.scale, limits.low, limits.high)
    ends = [
        (max(c - width * s, lo), min(c + width * s, hi))
        for c, s, lo, hi in zip(*([Fraction(v) for v in row.tolist()] for row in rows), strict=True)
    ]
    box = Box(tuple(e[0] for e in ends), tuple(e[1] for e in ends))
    broken = tuple(_broken(row, bound) for row, bound in zip(claimed.rows[0], claimed.bounds[0], strict=True))
    unsafe = tuple((one,) for one in broken) if claimed.every else (broken,)
    outputs = claimed.rows.shape[2]
    cases = (Case(box, unsafe),)
    return Property(f"ball of {radius:.6g}", len(ends), outputs, cases, write(len(ends), outputs, cases))


def _broken(row: Float64[np.ndarray, " m"], bound: float) -> Inequality:
    """The inequality's negation, exactly."""
    return Inequality(tuple((i, Fraction(v)) for i, v in enumerate(row.tolist()) if v), Fraction(bound))
