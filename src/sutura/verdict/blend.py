"""Refute a conjunction by a weighted sum of its inequalities: where all hold, so does the sum."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from sutura.bounds.region import Region

ROUNDS = 10
PACE = 2.0

Weights = Float64[np.ndarray, "batch k r"]


def blend(
    region: Region,
    gap: Float64[np.ndarray, "batch k r"],
    slopes: Float64[np.ndarray, "batch k r n"],
    valid: Bool[np.ndarray, "batch k r"],
) -> Weights:
    """Weights, not negative and of sum one, under which the planes of each conjunction rise highest together.

    The least of a blend over the box is concave in the weights; exponentiated gradient steps climb it. Any
    weights are sound: these are good ones. All are zero where no plane is valid.
    """
    usable = valid & np.isfinite(gap) & np.isfinite(slopes).all(axis=3)
    gap, slopes = np.where(usable, gap, 0.0), np.where(usable[..., None], slopes, 0.0)
    low, high = region.low[:, None], region.high[:, None]
    corner = np.where(slopes > 0, low[:, :, None], high[:, :, None])
    constant = gap - (slopes * corner).sum(axis=3)
    score = np.where(usable, 0.0, -np.inf)
    weights = best = _normal(score, usable)
    record = np.full(gap.shape[:2], -np.inf)
    for at in range(ROUNDS):
        slope = (weights[..., None] * slopes).sum(axis=2)
        x = np.where(slope > 0, low, high)
        values = np.where(usable, constant + (slopes * x[:, :, None]).sum(axis=3), 0.0)
        reached = (weights * values).sum(axis=2)
        better = reached > record
        record, best = np.where(better, reached, record), np.where(better[..., None], weights, best)
        size = abs(values).max(axis=2, keepdims=True)
        score = score + PACE / np.sqrt(1.0 + at) * values / np.where(size > 0, size, 1.0)
        weights = _normal(score, usable)
    return best


def _normal(score: Weights, usable: Bool[np.ndarray, "batch k r"]) -> Weights:
    top = np.where(usable, score, -np.inf).max(axis=2, keepdims=True)
    share = np.where(usable, np.exp(score - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = share.sum(axis=2, keepdims=True)
    return share / np.where(total > 0, total, 1.0)
