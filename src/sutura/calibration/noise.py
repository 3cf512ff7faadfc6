"""Validation samples under noise, from clean to chance, to fit a calibration that expects shift."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64, Int64

LEVELS = 10
TRIED = np.geomspace(1 / 64, 64, 25)
"""Deviations tried, in those of the data."""

LOOKED_AT = 500
"""Most samples on which accuracy is looked up to choose the levels."""

Samples = Float32[np.ndarray, "batch *sample"]
Scorer = Callable[[Samples], Float64[np.ndarray, "batch classes"]]


def noisy(x: Samples, deviation: float, seed: int) -> Samples:
    """Normal noise on every number, kept between the lowest and the highest number of the samples."""
    rng = np.random.default_rng(seed)
    changed = x + rng.normal(scale=deviation, size=x.shape)
    return np.clip(changed, x.min(), x.max()).astype(np.float32)


def perturbed_samples(
    scores: Scorer, x: Samples, y: Int64[np.ndarray, " batch"], seed: int = 0
) -> tuple[Float32[np.ndarray, "ten_times_batch *sample"], Int64[np.ndarray, " ten_times_batch"]]:
    """The samples and labels at ten levels of noise, at which accuracy falls evenly to chance.

    Tomani et al., "Post-hoc uncertainty calibration for domain drift scenarios", CVPR 2021. The levels are
    interpolated from the accuracies at TRIED; the last is the one 95 % of the way to chance.
    """
    loudness, accuracy = _heard(scores, x[:LOOKED_AT], y[:LOOKED_AT], seed)
    chance = float(np.bincount(y).max() / len(y))
    way = np.minimum(np.arange(1, LEVELS) / (LEVELS - 1), 0.95)
    deviations = np.interp(-(accuracy[0] + way * (chance - accuracy[0])), -accuracy, loudness)
    noised = [noisy(x, float(d), seed + level) for level, d in enumerate(deviations, 1)]
    return np.concatenate([x, *noised]), np.tile(y, LEVELS)


def perturbed_validation(
    scores: Scorer, x: Samples, y: Int64[np.ndarray, " batch"], seed: int = 0
) -> tuple[Float64[np.ndarray, "ten_times_batch classes"], Int64[np.ndarray, " ten_times_batch"]]:
    """Scores and labels of `perturbed_samples`."""
    samples, labels = perturbed_samples(scores, x, y, seed)
    parts = [scores(samples[at : at + len(x)]) for at in range(0, len(samples), len(x))]
    return np.concatenate(parts), labels


def _heard(
    scores: Scorer, x: Samples, y: Int64[np.ndarray, " batch"], seed: int
) -> tuple[Float64[np.ndarray, " tried"], Float64[np.ndarray, " tried"]]:
    """Deviations from none up, and the accuracy under each, made to fall."""
    loudness = np.array([0.0, *(TRIED * float(x.std()))])
    samples = [x, *(noisy(x, float(d), seed) for d in loudness[1:])]
    accuracy = np.array([float((scores(each).argmax(axis=1) == y).mean()) for each in samples])
    return loudness, np.minimum.accumulate(accuracy)
