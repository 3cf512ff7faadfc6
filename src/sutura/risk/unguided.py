"""Attacks without gradients: pattern search with random orthogonal directions on the one-sided ratio."""

from __future__ import annotations

import numpy as np

from sutura.bounds.crown import Checkpoint
from sutura.risk.ball import Column, Points
from sutura.risk.boundary import Asked, Found, confirmed, nothing_found
from sutura.risk.deepquant import values
from sutura.risk.model import Model
from sutura.risk.pattern import PatternConfig, pattern_search
from sutura.risk.safety import at_risk, margins

STARTS = 8
RAY = np.linspace(0.05, 1.0, 20)
SEARCH = PatternConfig(
    mesh=0.25, expansion=1.5, contraction=0.6, tolerance=1e-3, iterations=60, directions="orthogonal"
)


def unguided_attack(seen: Model, asked: Asked, seed: int, checkpoint: Checkpoint) -> Found:
    """Upper bounds through ONNX Runtime alone. Every witness was replayed there.

    The search lowers the worst margin per distance; the ray through the point that it finds is then searched.
    """
    found = nothing_found(asked)
    for i in range(len(asked.label)):
        checkpoint()
        one = asked.take(np.array([i]))
        start = values(seen, one.centre)
        at_centre = float(margins(one.risk, start, one.label).min())

        def objective(x: Points, one: Asked = one, at_centre: float = at_centre) -> Column:
            rows = one.take(np.zeros(len(x), dtype=np.int64))
            margin = margins(rows.risk, values(seen, x), rows.label).min(axis=1)
            far = rows.far(x)
            return np.where(far > 0, (margin - at_centre) / np.where(far > 0, far, 1.0), 0.0)

        random = np.random.default_rng(seed + i)
        away = random.uniform(-0.5, 0.5, (STARTS, one.centre.shape[1])) * one.domain.scale
        starts = np.clip(one.centre + away, one.domain.low, one.domain.high)
        best = pattern_search(objective, one.domain, starts, SEARCH, checkpoint)
        steep = np.maximum(-best.value, 1e-12) * np.maximum(
            one.take(np.zeros(STARTS, dtype=np.int64)).far(best.x), 1e-12
        )
        # Far enough along each ray that a linear network would be at risk, and twice as far.
        reach = np.clip(2.0 * at_centre / steep, 0.0, 1e6)[:, None, None] * RAY[:, None]
        points = one.centre + reach * (best.x - one.centre)[:, None]
        points = np.clip(points.reshape(-1, one.centre.shape[1]), one.domain.low, one.domain.high)
        points = np.concatenate([points, best.x])
        rows = one.take(np.zeros(len(points), dtype=np.int64))
        risky = at_risk(one.risk, values(seen, points), rows.label)
        hits = points[risky]
        at = np.zeros(len(hits), dtype=np.int64)
        part = confirmed(seen.run, one, at, hits, one.take(at).far(hits))
        found.distance[i], found.witness[i] = part.distance[0], part.witness[0]
    return found
