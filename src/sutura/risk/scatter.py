"""Points scattered around each input, nearer and nearer: with few inputs they meet every region of the risk.

A walk along the boundary starts where the network is linearised, and far from an input that says little; in
a few dimensions some thousand points see what no gradient does. Upper bounds only, as of any attack.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.risk.ball import Points, distance
from sutura.risk.boundary import Asked, BoundaryConfig, Found, boundary_attack, confirmed, nothing_found
from sutura.risk.model import Model, logits
from sutura.risk.safety import at_risk

POINTS, ROUNDS = 6000, 3
"""Points of a round, of an input."""

NEAREST = 2.0**-9
"""The first round reaches down to this share of the domain, a later one to this much to the power of 1/3 of
what is known: distances are spread evenly over their logarithms."""

KEPT = 24
"""Nearest points at risk from which walks start."""


def scattered_attack(
    seen: Model,
    asked: Asked,
    config: BoundaryConfig,
    checkpoint: Checkpoint = no_checkpoint,
    where: tuple[float, int] = (np.inf, POINTS),
) -> Found:
    """The nearest point at risk among scattered ones and those that walks from them find, replayed.

    `where`: the distance within which points are scattered, and the points of a round, of an input.
    """
    random = np.random.default_rng(config.seed)
    found = nothing_found(asked)
    for i in range(len(asked.label)):
        at = np.array([i])
        mine = _of_one(seen, asked.take(at), config, random, (checkpoint, *where))
        found.distance[i], found.witness[i] = mine.distance[0], mine.witness[0]
    return found


def _of_one(
    seen: Model,
    asked: Asked,
    config: BoundaryConfig,
    random: np.random.Generator,
    how: tuple[Checkpoint, float, int],
) -> Found:
    checkpoint, within, count = how
    reach = min(within, _farthest(asked))
    kept, far = asked.centre[:0], np.zeros(0)
    for turn in range(ROUNDS):
        checkpoint()
        points = _shells(asked, (reach, NEAREST ** (1.0 if turn == 0 else 1.0 / 3.0)), count, random)
        rows = asked.take(np.zeros(len(points), dtype=np.int64))
        risky = np.flatnonzero(at_risk(asked.risk, logits(seen, points), rows.label))
        kept = np.concatenate([kept, points[risky]])
        far = np.concatenate([far, rows.far(points)[risky]])
        order = np.argsort(far, kind="stable")[:KEPT]
        kept, far = kept[order], far[order]
        reach = min(reach, float(far.min(initial=np.inf)))
    if not len(kept):
        return nothing_found(asked)
    at = np.zeros(len(kept), dtype=np.int64)
    nearest = confirmed(seen.run, asked, at, kept, far)
    return nearest if seen.slopes is None else nearest.nearer(walked(seen, asked, kept, config, checkpoint))


def walked(
    seen: Model,
    asked: Asked,
    points: Points,
    config: BoundaryConfig,
    checkpoint: Checkpoint = no_checkpoint,
) -> Found:
    """The nearest point at risk for one input that walks find, one from each point; replayed."""
    again = asked.take(np.zeros(len(points), dtype=np.int64))
    known = Found(again.far(points), points.astype(np.float32))
    found = boundary_attack(seen, again, replace(config, walks=1), known=known, checkpoint=checkpoint)
    best = int(found.distance.argmin())
    return Found(found.distance[best : best + 1], found.witness[best : best + 1])


def _farthest(asked: Asked) -> float:
    """How far the domain reaches from one input."""
    low, high = asked.domain.low, asked.domain.high
    return float(asked.far(np.where(asked.centre - low > high - asked.centre, low, high))[0])


def _shells(asked: Asked, span: tuple[float, float], count: int, random: np.random.Generator) -> Points:
    """Random directions, at distances spread over their logarithms, cut off at the domain's ends; `span` is
    the largest distance, and the smallest as a share of it."""
    reach, nearest = span
    way = random.uniform(-1.0, 1.0, (count, asked.centre.shape[1])) * asked.domain.scale
    length = distance(asked.domain, asked.norm, asked.centre + way, asked.centre)
    far = reach * nearest ** random.random(count)
    points = asked.centre + (far / length)[:, None] * way
    return np.clip(points, asked.domain.low, asked.domain.high)
