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
from sutura.risk.boundary import Asked, BoundaryConfig, Found, confirmed
from sutura.risk.model import Model, logits
from sutura.risk.polish import polished
from sutura.risk.safety import at_risk, margins
from sutura.risk.scatter import POINTS, scattered_attack, walked
from sutura.risk.shelf import Batch, put, shelf, taken, within
from sutura.verdict.deadline import Deadline, OutOfTimeError
from sutura.verdict.frontier import Advance, Waiting, advance, together, waiting
from sutura.verdict.goal import Goal
from sutura.verdict.narrow import narrow
from sutura.verdict.workers import workers

CHUNK, ROUND = 64, 4
"""Boxes halved together, and how many such batches before the order is looked at again."""

FIRST_WALKS, WALKS = 256, BoundaryConfig(steps=30)
"""Each time the boxes bounded have doubled, from the first number on, walks start from where bounds of open
boxes are lowest, and from points scattered anew."""

WIDER, MOST_POINTS = 1.4, 60_000
"""Points are scattered out to so many times the known distance, as many as boxes were bounded: far ahead
another region of the risk may begin that reaches nearer."""

STARTS = 32

MOST_NUMBERS = 1 << 27
"""Numbers kept for open boxes at which the search stops: a gigabyte."""

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
    seen: Model, asked: Asked, aim: Goal, bracket: Bracket, until: tuple[Deadline, float, int | None]
) -> Bracket:
    """A tighter bracket of the radius of one input; `until` is the deadline, the wanted lower / upper, and
    the worker threads (None: all cores), on whose number no result depends.

    The lower bound is sound for float32 execution, and the witness was replayed in ONNX Runtime.
    """
    program, (deadline, tight, count) = seen.program, until
    assert program is not None
    limit = tight * min(bracket.upper, 2.0 * asked.domain.widest * program.inputs)
    try:
        first = waiting(narrow(program, aim, _hull(asked, limit), None, deadline.check), np.ones(1))
    except OutOfTimeError:
        return bracket
    held, most = shelf(Batch(first, np.zeros(len(first.region)))), MOST_NUMBERS // (2 * sum(program.sizes))

    bounded, next_walks = 0, FIRST_WALKS

    def halved(boxes: Waiting) -> Advance:
        return advance(program, aim, boxes, deadline.check)

    with workers(count) as pool:
        while 0 < len(held) < most:
            nearest, rest = taken(held, CHUNK * ROUND)
            boxes = _cut(nearest.boxes, _hull(asked, limit))
            at = (np.arange(i, min(i + CHUNK, len(nearest))) for i in range(0, len(nearest), CHUNK))
            try:
                done = list(pool.map(halved, map(boxes.take, at)))
            except OutOfTimeError:
                break
            if any(part.stuck for part in done):
                break
            opened = together([part.open for part in done])
            near = np.clip(asked.centre, opened.region.low, opened.region.high)
            corners = np.concatenate([part.corners for part in done])
            bracket = _witnessed(seen, asked, np.concatenate([corners, near]), bracket)
            bounded += sum(part.boxes for part in done)
            if bounded >= next_walks and len(corners):
                next_walks *= 2
                bracket = _walked(seen, asked, corners, bracket, bounded)
            limit = min(limit, tight * bracket.upper)
            far = _apart(asked.domain, asked.norm, opened.region, asked.centre)
            held = within(put(rest, Batch(opened, far)), limit)
    return replace(bracket, lower=max(bracket.lower, min(limit, held.nearest) * ROUNDED_DOWN))


def _hull(asked: Asked, limit: float) -> Region:
    """A box that holds the ball of radius `limit` in every norm: what lies outside is farther in each."""
    whole = regions(asked.domain, "linf", asked.centre, np.array([limit]))
    return Region(whole.low, whole.high)


def _cut(boxes: Waiting, hull: Region) -> Waiting:
    """The parts of boxes inside of the hull; their bounds hold there too."""
    region = Region(np.maximum(boxes.region.low, hull.low), np.minimum(boxes.region.high, hull.high))
    return replace(boxes, region=region)


def _witnessed(seen: Model, asked: Asked, points: Points, bracket: Bracket) -> Bracket:
    """Look whether any of the points is at risk, and nearer than what is known."""
    far = asked.take(np.zeros(len(points), np.int64)).far(points)
    points, far = points[far < bracket.upper], far[far < bracket.upper]
    if not len(points):
        return bracket
    at = np.zeros(len(points), dtype=np.int64)
    # Only what looks to be at risk is replayed: files may take their inputs one at a time.
    risky = at_risk(asked.risk, logits(seen, points), asked.label[at])
    if not risky.any():
        return bracket
    found = bracket.found.nearer(confirmed(seen.run, asked, at[risky], points[risky], far[risky]))
    return replace(bracket, found=found if seen.slopes is None else polished(seen, asked, found))


def _walked(seen: Model, asked: Asked, corners: Points, bracket: Bracket, bounded: int) -> Bracket:
    """Attacks from the corners with the least margins and from scattered points, more the longer it takes."""
    if seen.slopes is None:
        return bracket
    at, how = np.zeros(len(corners), dtype=np.int64), replace(WALKS, seed=bounded)
    margin = margins(asked.risk, logits(seen, corners), asked.label[at]).min(axis=1)
    starts = corners[np.argsort(margin, kind="stable")[:STARTS]]
    where = WIDER * bracket.upper, int(np.clip(bounded, POINTS, MOST_POINTS))
    found = walked(seen, asked, starts, how).nearer(scattered_attack(seen, asked, how, where=where))
    if found.distance[0] >= bracket.upper:
        return bracket
    return replace(bracket, found=bracket.found.nearer(polished(seen, asked, found)))


def _apart(domain: Domain, norm: Norm, region: Region, centre: Points) -> Float64[np.ndarray, " batch"]:
    nearest = np.clip(centre, region.low, region.high)
    return distance(domain, norm, nearest, np.broadcast_to(centre, nearest.shape))
