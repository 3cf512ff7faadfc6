"""Two temperatures, near the data and far from them: confidence that falls with an input's own distance.

One temperature cannot be right both in domain and under shift. Here each input says where it stands: by its
distance under a Gaussian fitted to samples (probabilistic PCA, Tipping and Bishop 1999: some principal
directions, one variance for all others). All of it is squares, products and a clip, so it folds into a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from sutura.calibration.scaling import COLDEST, HOTTEST
from sutura.errors import DataError

Array = np.ndarray
Samples = Float32[np.ndarray, "batch *sample"]
Logits = Float64[np.ndarray, "batch classes"]
Labels = Int64[np.ndarray, " batch"]
Seen = tuple[Samples, Logits, Labels]
"""Samples, what a network made of them, and what they are."""

VARIANCE = 0.8
"""Share of the variance that the principal directions hold."""

NUMBERS = 1 << 26
"""Most numbers of samples that a Gaussian is fitted to."""

NEAR, FAR = 0.5, 0.99
"""Quantiles of the distances in domain: up to the first an input is near, from the second on far."""


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """Squared distance rest |x - mean|^2 - |(x - mean) directions|^2, which is a Mahalanobis distance."""

    mean: Float64[np.ndarray, " n"]
    directions: Float64[np.ndarray, "n k"]
    rest: float

    def distances(self, x: Samples) -> Float64[np.ndarray, " batch"]:
        """Squared distance of each sample."""
        apart = x.reshape(len(x), -1) - self.mean
        return self.rest * (apart**2).sum(axis=1) - ((apart @ self.directions) ** 2).sum(axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class ByDistance:
    """Scores times `near` up to the distance `start`, times `far` from `end` on, straight in between.

    Both factors are positive: no decision changes. They are 1/T of two temperatures T.
    """

    gaussian: Gaussian
    start: float
    end: float
    near: float
    far: float

    def factors(self, x: Samples) -> Float64[np.ndarray, " batch"]:
        """What the scores of each sample are multiplied with."""
        return self.far + (self.near - self.far) * nearness(self, x)

    def __call__(self, logits: Logits, x: Samples) -> Float64[np.ndarray, "batch classes"]:
        """Probabilities for the scores of samples."""
        return softmax(logits * self.factors(x)[:, None], axis=1)


def nearness(scale: ByDistance, x: Samples) -> Float64[np.ndarray, " batch"]:
    """1 for near samples, 0 for far ones."""
    return np.clip((scale.end - scale.gaussian.distances(x)) / (scale.end - scale.start), 0, 1)


def gaussian(x: Samples) -> Gaussian:
    """Probabilistic PCA of the samples, flattened; raises DataError where they are all alike."""
    flat = x.reshape(len(x), -1)[: max(2, NUMBERS // x[0].size)].astype(np.float64)
    mean, width = flat.mean(axis=0), flat.shape[1]
    values, vectors = _principal(flat - mean)
    total = float(values[values > 0].sum())
    if total <= 1e-12 * max(1.0, float((flat**2).sum())):
        raise DataError("the samples are all alike; distance needs samples that vary")
    count = int(np.searchsorted(np.cumsum(values) / total, VARIANCE)) + 1
    count = max(1, min(count, width - 1, int((values > 1e-9 * total).sum())))
    spread = values[:count] / len(flat)
    left = (total / len(flat) - spread.sum()) / max(width - count, 1)
    rest = 1 / max(left, 1e-6 * spread[-1]) if width > count else 1 / spread[-1]
    scale = np.sqrt(np.maximum(rest - 1 / spread, 0))
    return Gaussian(mean, vectors[:, :count] * scale, rest)


def _principal(apart: Array) -> tuple[Array, Array]:
    """Sums of squares along the principal directions, falling, and the directions as columns."""
    count, width = apart.shape
    if width <= count:
        values, vectors = np.linalg.eigh(apart.T @ apart)
        return values[::-1], vectors[:, ::-1]
    values, vectors = np.linalg.eigh(apart @ apart.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    return values, apart.T @ (vectors / np.sqrt(np.maximum(values, 1e-300)))


def by_distance(held: Gaussian, seen: Seen, shifted: Seen) -> ByDistance:
    """Fit both factors by the negative log-likelihood; `held` was fitted to other samples than these.

    `far` is fitted to `shifted` samples, then `near` to those `seen` in domain. Raises DataError where all
    are equally far from the mean.
    """
    (x, logits, labels), (away, scores, truth) = seen, shifted
    start, end = (float(q) for q in np.quantile(held.distances(x), (NEAR, FAR)))
    if not start < end:
        raise DataError("the samples are equally far from their mean; distance needs samples that vary")
    scale = ByDistance(held, start, end, 1.0, 1.0)
    share = nearness(scale, away)
    once = best_factor(scores, truth, lambda factor: np.full(len(scores), factor))
    far = best_factor(scores, truth, lambda factor: factor + (once - factor) * share)
    share = nearness(scale, x)
    near = best_factor(logits, labels, lambda factor: far + (factor - far) * share)
    return ByDistance(held, start, end, near, far)


def best_factor(
    logits: Logits, labels: Labels, factors: Callable[[float], Float64[np.ndarray, " batch"]]
) -> float:
    """The factor, a temperature within the limits, of the least negative log-likelihood."""

    def loss(log_factor: float) -> float:
        scaled = logits * factors(float(np.exp(log_factor)))[:, None]
        return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean())

    limits = (-np.log(HOTTEST), -np.log(COLDEST))
    found: Any = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
