"""Minimal-norm attacks: the nearest input at risk, by successive linearisation, and its float32 witness.

Each row walks along the boundary of the risk: the margin is linearised, the point of the domain nearest to
the centre that should be at risk is found exactly (`crossing`), and the walk goes there, after a step back
towards the centre wherever it was at risk (as FAB does: Croce and Hein 2020). Upper bounds only: what is
found is at risk, what is nearer may be too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.risk.ball import Column, Domain, Norm, Points, crossing, distance, inside, project
from sutura.risk.model import Model, Slopes
from sutura.risk.safety import Labels, Risk, at_risk, margins, seeds

OVERSHOOT = 1.05
BACKWARD = 0.9
"""Share of the way kept when stepping back towards the centre."""
MOST_WAYS = 9
HALVINGS = 24
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class BoundaryConfig:
    """Walks for each input, steps of each, and the seed of their starts."""

    walks: int = 20
    steps: int = 30
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """For each input the nearest point at risk that ONNX Runtime confirmed; distance inf where none is."""

    distance: Column
    witness: Float32[np.ndarray, "batch n"]

    def nearer(self, other: Found) -> Found:
        """The nearer of two, input by input."""
        better = other.distance < self.distance
        return Found(
            np.where(better, other.distance, self.distance),
            np.where(better[:, None], other.witness, self.witness),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What is measured: the risk, the ball's geometry, the inputs and their decisions."""

    risk: Risk
    domain: Domain
    norm: Norm
    centre: Points
    label: Labels

    def take(self, at: Int64[np.ndarray, " b"]) -> Asked:
        """Some of the inputs, repeats allowed."""
        return Asked(self.risk, self.domain, self.norm, self.centre[at], self.label[at])

    def far(self, x: Points) -> Column:
        """Distance of each point from its input."""
        return distance(self.domain, self.norm, x, self.centre)


def nothing_found(asked: Asked) -> Found:
    """No point at risk is known."""
    return Found(np.full(len(asked.label), np.inf), asked.centre.astype(np.float32))


def boundary_attack(
    seen: Model,
    asked: Asked,
    config: BoundaryConfig,
    *,
    known: Found | None = None,
    checkpoint: Checkpoint = no_checkpoint,
) -> Found:
    """Upper bounds of all radii. Every witness was replayed in ONNX Runtime.

    `walks` * `steps` forward and backward passes for each input. The last walk of an input starts from its
    `known` witness. Raises whatever `checkpoint` raises.
    """
    assert seen.slopes is not None
    at, way, x = _starts(seen.slopes, asked, config)
    if known is not None:
        last = np.arange(1, 1 + len(asked.label)) * config.walks - 1
        x[last] = np.where(np.isfinite(known.distance)[:, None], known.witness, x[last])
    rows = asked.take(at)
    best, record = x, np.full(len(at), np.inf)
    for _ in range(config.steps):
        checkpoint()
        outputs, pull = seen.slopes(x)
        risky, far = at_risk(asked.risk, outputs, rows.label), rows.far(x)
        better = risky & (far < record)
        best, record = np.where(better[:, None], x, best), np.where(better, far, record)
        x = _stepped(rows, way, (x, outputs, risky), pull)
    return confirmed(seen.run, asked, at, best, record)


def _stepped(
    rows: Asked,
    way: Labels,
    now: tuple[Points, Float64[np.ndarray, "batch m"], Bool[np.ndarray, " batch"]],
    pull: Callable[[Float64[np.ndarray, "batch m"]], Points],
) -> Points:
    """On to where the linearised margin is zero, from a point nearer to the centre where at risk already."""
    x, outputs, risky = now
    margin = margins(rows.risk, outputs, rows.label)
    way = np.where(risky, margin.argmin(axis=1), way)
    value = margin[np.arange(len(x)), way]
    slope = np.nan_to_num(pull(seeds(rows.risk, outputs, rows.label, way)))
    need = OVERSHOOT * value - (slope * (x - rows.centre)).sum(axis=1)
    target, _ = crossing(rows.domain, rows.norm, rows.centre, slope, need)
    moved = np.where(risky[:, None], rows.centre + BACKWARD * (x - rows.centre), x)
    ahead = np.where(risky, 0.5, 1.0)[:, None]
    return np.clip(moved + ahead * (target - moved), rows.domain.low, rows.domain.high)


def _starts(slopes: Slopes, asked: Asked, config: BoundaryConfig) -> tuple[np.ndarray, Labels, Points]:
    """Input, way and first point of each walk: the ways nearest by the linearised margin come first.

    The first walks start at the centre, later ones at random points around it.
    """
    count = len(asked.label)
    outputs, pull = slopes(asked.centre)
    margin = margins(asked.risk, outputs, asked.label)
    ways = min(MOST_WAYS, config.walks, int(np.isfinite(margin).sum(axis=1).max(initial=1)))
    order = np.argsort(margin, axis=1, kind="stable")[:, :ways]
    near = np.stack(
        [
            _linearised(
                asked, order[:, k], margin, pull(seeds(asked.risk, outputs, asked.label, order[:, k]))
            )
            for k in range(ways)
        ],
        axis=1,
    )
    best = np.take_along_axis(order, np.argsort(near, axis=1, kind="stable"), axis=1)
    turn = np.arange(config.walks)
    # Every way once, then the nearest ways again and again: first thrice as often as last.
    repeat = np.concatenate([np.arange(ways), np.arange(config.walks) % max(1, (ways + 1) // 2)])[
        : config.walks
    ]
    at, way = np.repeat(np.arange(count), config.walks), best[:, repeat].reshape(-1)
    rows, random = asked.take(at), np.random.default_rng(config.seed)
    reach = np.sort(near, axis=1)[:, :1].repeat(config.walks, axis=1).reshape(-1)
    reach = np.where(np.isfinite(reach), reach, 1.0) * random.random(len(at))
    reach = np.where(np.tile(turn < ways, count), 0.0, reach)
    away = random.uniform(-1.0, 1.0, rows.centre.shape) * asked.domain.scale
    far = distance(asked.domain, asked.norm, rows.centre + away, rows.centre)
    x = rows.centre + (reach / far)[:, None] * away
    return at, way, project(asked.domain, asked.norm, x, rows.centre, reach)


def _linearised(
    asked: Asked, way: Labels, margin: Float64[np.ndarray, "batch ways"], slope: Points
) -> Column:
    """Distance at which each way would be reached if the network were linear."""
    value = margin[np.arange(len(way)), way]
    target, reached = crossing(asked.domain, asked.norm, asked.centre, np.nan_to_num(slope), value)
    return np.where(reached, asked.far(target), np.inf)


def confirmed(
    run: Callable[[Float32[np.ndarray, "batch n"]], Float32[np.ndarray, "batch m"]],
    asked: Asked,
    at: Int64[np.ndarray, " rows"],
    candidates: Points,
    record: Column,
) -> Found:
    """The nearest candidates pulled in along the ray to the centre for as long as ONNX Runtime sees the risk.

    `record` ranks the candidates of each input; the PATIENCE best of each are replayed.
    """
    found = nothing_found(asked)
    order = np.lexsort((record, at))
    rank = np.arange(len(at)) - np.searchsorted(at[order], at[order])
    for turn in range(PATIENCE):
        chosen = order[(rank == turn) & np.isfinite(record[order])]
        if len(chosen):
            part = _pulled_in(run, asked.take(at[chosen]), candidates[chosen])
            spread = nothing_found(asked)
            spread.distance[at[chosen]], spread.witness[at[chosen]] = part.distance, part.witness
            found = found.nearer(spread)
    return found


def _pulled_in(
    run: Callable[[Float32[np.ndarray, "batch n"]], Float32[np.ndarray, "batch m"]], rows: Asked, x: Points
) -> Found:
    """Halve the way between a point that is not at risk and one that is; both end as float32 points."""
    safe, risky = np.zeros(len(x)), np.full(len(x), np.nan)
    share = np.ones(len(x))
    for _ in range(HALVINGS):
        point = inside(rows.domain, rows.centre + share[:, None] * (x - rows.centre))
        hit = at_risk(rows.risk, run(point.astype(np.float32)), rows.label)
        risky, safe = np.where(hit, share, risky), np.where(hit, safe, share)
        # Where the end itself is not at risk in float32, go a little beyond it.
        share = np.where(np.isnan(risky), share * 1.002, (safe + risky) / 2.0)
    kept = inside(rows.domain, rows.centre + np.nan_to_num(risky)[:, None] * (x - rows.centre))
    hit = at_risk(rows.risk, run(kept.astype(np.float32)), rows.label)
    far = np.where(hit & np.isfinite(risky), rows.far(kept), np.inf)
    return Found(far, kept.astype(np.float32))
