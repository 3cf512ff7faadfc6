"""Descent inside balls: how low a margin gets within a given radius, by projected Polyak steps.

Where the boundary is far or curved (uncertainty above all), walks along it may not find it; descents in large
balls do, and in smaller and smaller ones around what was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.risk.ball import LENGTHS, Column, Points, crossing, distance, project
from sutura.risk.boundary import Asked, Found, confirmed
from sutura.risk.model import Model
from sutura.risk.safety import margins, seeds

LADDER = 2.0 ** -np.arange(0.0, 7.0)
"""Radii tried first, as shares of the domain's reach."""

SMALLER = np.array([0.3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.94, 0.98])
"""Radii tried next, as shares of the least one at which a point was found."""

AIM = 1e-3
"""How far below zero a step aims, as a share of the margin at the start."""

SLOWEST = 0.02
"""Least pace of a step, as a share of the radius."""


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """The lowest margin seen on each row, and where."""

    margin: Column
    x: Points


def descend(
    seen: Model, rows: Asked, start: tuple[Points, Column], steps: int, checkpoint: Checkpoint = no_checkpoint
) -> Descent:
    """Lower the least margin of each row within its ball, one forward and backward pass a step. An estimate.

    `start` is the first point and the radius of each row. A Polyak step goes where the linearised margin is
    zero, no farther than a share of the radius that shrinks.
    """
    assert seen.slopes is not None
    x, radius = start
    best, record, sink = x, np.full(len(x), np.inf), np.zeros(len(x))
    for turn in range(steps):
        checkpoint()
        outputs, pull = seen.slopes(x)
        margin = margins(rows.risk, outputs, rows.label)
        way = margin.argmin(axis=1)
        value = margin[np.arange(len(x)), way]
        sink = AIM * abs(value) if turn == 0 else sink
        better = value < record
        best, record = np.where(better[:, None], x, best), np.where(better, value, record)
        slope = np.nan_to_num(pull(seeds(rows.risk, outputs, rows.label, way)))
        pace = radius * max(SLOWEST, 0.5 * 0.9**turn)
        x = _step(rows, (x, slope), value + sink, pace, radius)
    return Descent(record, best)


def _step(rows: Asked, now: tuple[Points, Points], need: Column, pace: Column, radius: Column) -> Points:
    x, slope = now
    # A step that is shortest in L1 would change one input at a time.
    norm = "l2" if rows.norm == "l1" else rows.norm
    target, _ = crossing(rows.domain, norm, x, slope, np.maximum(need, 0.0))
    far = distance(rows.domain, rows.norm, target, x)
    share = np.minimum(1.0, pace / np.maximum(far, 1e-300))
    return project(rows.domain, rows.norm, x + share[:, None] * (target - x), rows.centre, radius)


def ladder_attack(
    seen: Model, asked: Asked, steps: int, seed: int, checkpoint: Checkpoint = no_checkpoint
) -> Found:
    """The nearest points at risk that descents in balls of several sizes find; replayed in ONNX Runtime."""
    reach = float(LENGTHS[asked.norm]((asked.domain.high - asked.domain.low) / asked.domain.scale))
    at = np.repeat(np.arange(len(asked.label)), 2 * len(LADDER))
    rows, radius = asked.take(at), np.tile(np.repeat(reach * LADDER, 2), len(asked.label))
    away = np.random.default_rng(seed).uniform(-1.0, 1.0, rows.centre.shape) * asked.domain.scale
    far = distance(asked.domain, asked.norm, away, np.zeros_like(away))
    share = np.tile(np.array([0.0, 0.5]), len(radius) // 2) * radius / far
    x = project(asked.domain, asked.norm, rows.centre + share[:, None] * away, rows.centre, radius)
    low = descend(seen, rows, (x, radius), steps, checkpoint)
    return confirmed(seen.run, asked, at, low.x, np.where(low.margin <= 0.0, rows.far(low.x), np.inf))


def smaller_attack(
    seen: Model, asked: Asked, found: Found, steps: int, checkpoint: Checkpoint = no_checkpoint
) -> Found:
    """Descents in balls smaller than those found, from what was found and from the centre; replayed."""
    known = np.flatnonzero(np.isfinite(found.distance) & (found.distance > 0))
    if not len(known):
        return found
    at = np.repeat(known, 2 * len(SMALLER))
    rows = asked.take(at)
    radius = found.distance[at] * np.tile(np.repeat(SMALLER, 2), len(known))
    share = np.tile(np.array([0.0, 1.0]), len(at) // 2)[:, None]
    x = rows.centre + share * (found.witness[at] - rows.centre)
    x = project(asked.domain, asked.norm, x, rows.centre, radius)
    low = descend(seen, rows, (x, radius), steps, checkpoint)
    record = np.where(low.margin <= 0.0, rows.far(low.x), np.inf)
    return found.nearer(confirmed(seen.run, asked, at, low.x, record))


def least_margin(seen: Model, asked: Asked, radius: float, steps: int) -> Descent:
    """The lowest margin found within one radius of each input, in `steps` gradient steps from the centre."""
    return descend(seen, asked, (asked.centre, np.full(len(asked.label), radius)), steps)
