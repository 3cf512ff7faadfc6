"""The nearest input at risk by branch and bound on inputs, nearest boxes first: both bounds close in at once.

Boxes are bounded in order of their distance from the centre. Whatever is nearer than the nearest box that is
still open has been shown safe, so the lower bound holds whenever the search is stopped, in any norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from sutura.bounds.region import Region
from sutura.risk.ball import Domain, Norm, Points, distance, regions
from sutura.risk.boundary import Asked, Found, confirmed
from sutura.risk.model import Model
from sutura.risk.safety import at_risk
from sutura.verdict.deadline import Deadline, OutOfTimeError
from sutura.verdict.frontier import advance, together, waiting
from sutura.verdict.goal import Goal
from sutura.verdict.narrow import narrow

CHUNK = 64
"""Boxes halved together."""

MOST_NUMBERS = 1 << 27
"""Numbers kept for open boxes at which the search stops: a gigabyte."""

LARGE = 31 << 17
"""Numbers of a block whose release tells glibc to keep blocks of up to 31 MB for reuse: fresh pages for every
array otherwise cost more than the arithmetic on them."""

ROUNDED_DOWN = 1.0 - 2.0**-30
"""Covers the float64 rounding of a distance."""


@dataclass(frozen=True, slots=True, eq=False)
class Bracket:
    """What is known of one radius: certified lower bound, and the nearest point at risk."""

    lower: float
    found: Found

    @property
    def upper(self) -> float:
        """Distance of the nearest point at risk."""
        return float(self.found.distance[0])


def nearest_first(
    seen: Model, asked: Asked, aim: Goal, bracket: Bracket, until: tuple[Deadline, float]
) -> Bracket:
    """A tighter bracket of the radius of one input; `until` is the deadline and the wanted lower / upper.

    The lower bound is sound for float32 execution, and the witness was replayed in ONNX Runtime.
    """
    program, (deadline, tight) = seen.program, until
    assert program is not None
    np.empty(LARGE)
    limit = tight * min(bracket.upper, 2.0 * asked.domain.widest * program.inputs)
    # This box holds the ball of radius `limit` in every norm: what lies outside is farther away in each.
    whole = regions(asked.domain, "linf", asked.centre, np.array([limit]))
    region = Region(whole.low, whole.high)
    most = MOST_NUMBERS // (2 * sum(program.sizes))
    try:
        first = narrow(program, aim, region, None, deadline.check)
    except OutOfTimeError:
        return bracket
    state = waiting(first, np.ones(1))
    far = np.zeros(len(state.region))
    while len(far) and len(far) < most:
        order = np.argsort(far, kind="stable") if len(far) > CHUNK else np.arange(len(far))
        batch, rest = state.take(order[:CHUNK]), state.take(order[CHUNK:])
        try:
            done = advance(program, aim, batch, deadline.check)
        except OutOfTimeError:
            break
        if done.stuck:
            break
        near = np.clip(asked.centre, done.open.region.low, done.open.region.high)
        bracket = _witnessed(seen, asked, np.concatenate([done.corners, near]), bracket)
        limit = min(limit, tight * bracket.upper)
        apart = _apart(asked.domain, asked.norm, done.open.region, asked.centre)
        state, far = together([rest, done.open]), np.concatenate([far[order[CHUNK:]], apart])
        kept = np.flatnonzero(far < limit)
        state, far = state.take(kept), far[kept]
    reached = limit if not len(far) else min(limit, float(far.min()))
    return replace(bracket, lower=max(bracket.lower, reached * ROUNDED_DOWN))


def _witnessed(seen: Model, asked: Asked, points: Points, bracket: Bracket) -> Bracket:
    """Look whether any of the points is at risk, and nearer than what is known."""
    at = np.zeros(len(points), dtype=np.int64)
    far = asked.take(at).far(points)
    points, far = points[far < bracket.upper], far[far < bracket.upper]
    if not len(points):
        return bracket
    at = at[: len(points)]
    risky = at_risk(asked.risk, seen.run(points.astype(np.float32)), asked.label[at])
    if not risky.any():
        return bracket
    better = confirmed(seen.run, asked, at[risky], points[risky], far[risky])
    return replace(bracket, found=bracket.found.nearer(better))


def _apart(domain: Domain, norm: Norm, region: Region, centre: Points) -> Float64[np.ndarray, " batch"]:
    nearest = np.clip(centre, region.low, region.high)
    return distance(domain, norm, nearest, np.broadcast_to(centre, nearest.shape))
