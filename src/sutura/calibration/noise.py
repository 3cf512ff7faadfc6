"""Validation samples under noise, from clean to chance, to fit a calibration that expects shift."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64, Int64

LEVELS = 10
LOUDEST = 64.0
"""Largest deviation tried, in those of the data."""

Samples = Float32[np.ndarray, "batch *sample"]
Scorer = Callable[[Samples], Float64[np.ndarray, "batch classes"]]


def noisy(x: Samples, deviation: float, seed: int) -> Samples:
    """Normal noise on every number, kept between the lowest and the highest number of the samples."""
    rng = np.random.default_rng(seed)
    changed = x + rng.normal(scale=deviation, size=x.shape)
    return np.clip(changed, x.min(), x.max()).astype(np.float32)


def perturbed_validation(
    scores: Scorer, x: Samples, y: Int64[np.ndarray, " batch"], seed: int = 0
) -> tuple[Float64[np.ndarray, "ten_times_batch classes"], Int64[np.ndarray, " ten_times_batch"]]:
    """Scores and labels of the samples at ten levels of noise, at which accuracy falls evenly to chance.

    Tomani et al., "Post-hoc uncertainty calibration for domain drift scenarios", CVPR 2021. The level of each
    accuracy is found by bisection; the last is the one whose accuracy is within 1/20 of the way to chance.
    """
    clean = float((scores(x).argmax(axis=1) == y).mean())
    found = [scores(x)]
    chance = float(np.bincount(y).max() / len(y))
    for level in range(1, LEVELS):
        share = min(level / (LEVELS - 1), 0.95)
        wanted = clean + share * (chance - clean)
        found.append(scores(noisy(x, _deviation(scores, x, y, wanted, seed + level), seed + level)))
    return np.concatenate(found), np.tile(y, LEVELS)


def _deviation(scores: Scorer, x: Samples, y: Int64[np.ndarray, " batch"], wanted: float, seed: int) -> float:
    """The noise under which accuracy is about `wanted`."""
    low, high = 0.0, LOUDEST * float(x.std())
    for _ in range(12):
        middle = (low + high) / 2
        accuracy = float((scores(noisy(x, middle, seed)).argmax(axis=1) == y).mean())
        low, high = (middle, high) if accuracy > wanted else (low, middle)
    return high
