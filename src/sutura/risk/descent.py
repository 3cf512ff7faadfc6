"""Descent inside balls: how low a margin gets within a given radius, by projected Polyak steps.

Where the boundary is far or curved (uncertainty above all), walks along it may not find it; descents in large
balls do, and in smaller and smaller ones around what was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.risk.ball import LENGTHS, Column, Points, crossing, distance, inside, project
from sutura.risk.boundary import Asked, Found, confirmed
from sutura.risk.model import Model
from sutura.risk.safety import Uncertainty, margins, seeds

Outputs = Float64[np.ndarray, "batch m"]

LADDER = 2.0 ** -np.arange(0.0, 7.0)
"""Radii tried first, as shares of the domain's reach."""

SMALLER = np.array([0.3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.94, 0.98])
"""Radii tried next, as shares of the least one at which a point was found."""

AIM = 1e-3
"""How far below zero a step aims, as a share of the margin at the start."""

BROAD = 0.8
"""Share of the steps that are shortest in Linf, for Linf balls; later ones, shortest in L2, converge."""

ACTIVE = 3
"""Times that inputs which ran into an end are left out and a step is solved for again."""

RIDGE = 1e-12

PARTS = (1.0, 0.4, 0.1, 0.02)
"""Shares of a levelling step that are tried: the network is linear only near by."""

FEW_CLASSES = 32
"""Up to here logits are levelled: each step takes a gradient a class."""

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
        # A step that is shortest in L1 would change one input at a time.
        norm = "linf" if rows.norm == "linf" and turn < BROAD * steps else "l2"
        need = np.maximum(value + sink, 0.0)
        x = _step(rows, crossing(rows.domain, norm, x, slope, need)[0] - x, x, pace, radius)
    return Descent(record, best)


def _step(rows: Asked, way: Points, x: Points, pace: Column, radius: Column) -> Points:
    """Along the way for no more than the pace, and back into the ball."""
    far = distance(rows.domain, rows.norm, x + way, x)
    share = np.minimum(1.0, pace / np.maximum(far, 1e-300))
    return project(rows.domain, rows.norm, x + share[:, None] * way, rows.centre, radius)


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
    low = lowered(seen, rows, (x, radius), steps, checkpoint)
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
    low = lowered(seen, rows, (x, radius), steps, checkpoint)
    record = np.where(low.margin <= 0.0, rows.far(low.x), np.inf)
    return found.nearer(confirmed(seen.run, asked, at, low.x, record))


def least_certain(
    seen: Model, asked: Asked, radius: float, passes: int, checkpoint: Checkpoint = no_checkpoint
) -> Points:
    """The input within one radius of each centre whose outputs are nearest to uniform: float32 points, in the
    ball up to their rounding, found with so many gradients each. An estimate of the least KL."""
    start = asked.centre, np.full(len(asked.label), radius)
    return inside(asked.domain, lowered(seen, asked, start, passes, checkpoint).x)


def lowered(
    seen: Model,
    rows: Asked,
    start: tuple[Points, Column],
    passes: int,
    checkpoint: Checkpoint = no_checkpoint,
) -> Descent:
    """The lowest margin found with so many gradients a row. An estimate.

    For uncertainty half of the gradients descend, half level the logits by Gauss-Newton steps of one gradient
    a class.
    """
    assert seen.slopes is not None
    classes = seen.head.network.output_size
    rounds = passes // 2 // classes if isinstance(rows.risk, Uncertainty) and classes <= FEW_CLASSES else 0
    found = descend(seen, rows, start, passes - rounds * classes, checkpoint)
    for _ in range(rounds):
        checkpoint()
        outputs, pull = seen.slopes(found.x)
        way = _levelled(rows, (found.x, outputs), pull, start[1]) - found.x
        here = found.x
        for share in PARTS:
            x = here + share * way
            margin = margins(rows.risk, seen.slopes(x)[0], rows.label).min(axis=1)
            better = margin < found.margin
            found = Descent(np.where(better, margin, found.margin), np.where(better[:, None], x, found.x))
    return found


def _levelled(
    asked: Asked, now: tuple[Points, Outputs], pull: Callable[[Outputs], Points], radius: Column
) -> Points:
    """The least step (L2) that would make all logits equal if the network were linear, by the inputs that can
    still move; back in the ball."""
    x, outputs = now
    count, classes = outputs.shape
    limits, centred = asked.domain, np.eye(classes) - 1.0 / classes
    rows = np.stack([pull(np.repeat(row[None], count, axis=0)) for row in centred], axis=1) * limits.scale
    gap = outputs - outputs.mean(axis=1, keepdims=True)
    free = np.ones_like(x, dtype=np.bool_)
    moved = x
    for _ in range(ACTIVE):
        kept = np.where(free[:, None], rows, 0.0)
        gram = kept @ kept.transpose(0, 2, 1)
        ridge = RIDGE * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(classes)
        weights = np.linalg.solve(
            gram + ridge + np.finfo(np.float64).tiny * np.eye(classes), -gap[:, :, None]
        )
        step = (kept.transpose(0, 2, 1) @ weights)[:, :, 0] * limits.scale
        moved = project(limits, asked.norm, x + step, asked.centre, radius)
        # An input that ran into an end does not take part in the next solution.
        free &= abs(moved - (x + step)) <= 1e-12
    return moved
