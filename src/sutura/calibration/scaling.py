"""Post-hoc calibration: maps of a network's scores, fitted on held-out samples without training.

The fits are SciPy's: a bounded scalar search, L-BFGS and pool-adjacent-violators come with the base install,
where scikit-learn and netcal would bring theirs; the tests hold these to scikit-learn's on the same scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from sutura.errors import DataError

Logits = Float[np.ndarray, "batch classes"]
Labels = Int64[np.ndarray, " batch"]

COLDEST, HOTTEST = 1e-2, 1e3
"""Limits of a fitted temperature."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """p = softmax(scale * z + offset), a number a class each; a temperature T is scale 1/T, offset 0."""

    scale: Float64[np.ndarray, " classes"]
    offset: Float64[np.ndarray, " classes"]

    def __call__(self, logits: Logits) -> Float64[np.ndarray, "batch classes"]:
        """Probabilities for scores."""
        return softmax(np.asarray(logits, dtype=np.float64) * self.scale + self.offset, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic:
    """Class by class a rising map of the softmax probability, then divided by their sum."""

    places: tuple[Float64[np.ndarray, " steps"], ...]
    values: tuple[Float64[np.ndarray, " steps"], ...]

    def __call__(self, logits: Logits) -> Float64[np.ndarray, "batch classes"]:
        """Probabilities for scores."""
        p = softmax(np.asarray(logits, dtype=np.float64), axis=1)
        curves = zip(p.T, self.places, self.values, strict=True)
        mapped = np.stack([np.interp(column, x, y) for column, x, y in curves], axis=1)
        total = mapped.sum(axis=1, keepdims=True)
        return np.where(total > 0, mapped / np.where(total > 0, total, 1), 1 / p.shape[1])


Scaling = Affine | Isotonic
Fit = Callable[[Logits, Labels], Scaling]


def identity(logits: Logits, labels: Labels) -> Affine:
    """Scores as they are."""
    return Affine(np.ones(logits.shape[1]), np.zeros(logits.shape[1]))


def temperature(logits: Logits, labels: Labels) -> Affine:
    """One temperature for all scores, of the least negative log-likelihood (Guo et al., ICML 2017).

    The likelihood is concave in 1/T, so the search finds the best T in [0.01, 1000].
    """
    z = _checked(logits, labels)

    def loss(log_t: float) -> float:
        return float(-log_softmax(z / np.exp(log_t), axis=1)[np.arange(len(z)), labels].mean())

    limits = (np.log(COLDEST), np.log(HOTTEST))
    found: Any = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-6})
    return Affine(np.full(z.shape[1], np.exp(-found.x)), np.zeros(z.shape[1]))


def vector(logits: Logits, labels: Labels) -> Affine:
    """One factor >= 0.001 and one offset a class, of the least negative log-likelihood (Guo et al.).

    The problem is convex; unlike a temperature it can change decisions.
    """
    z = _checked(logits, labels)
    count, classes = z.shape
    target = np.eye(classes)[labels]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, offset = parameters.reshape(2, classes)
        log_p = log_softmax(z * scale + offset, axis=1)
        off = np.exp(log_p) - target
        gradient = np.concatenate([(off * z).sum(axis=0), off.sum(axis=0)]) / count
        return float(-(log_p * target).sum() / count), gradient

    start = np.concatenate([temperature(logits, labels).scale, np.zeros(classes)])
    bounds = [(1e-3, None)] * classes + [(None, None)] * classes
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    scale, offset = found.x.reshape(2, classes)
    return Affine(scale, offset - offset.mean())


def isotonic(logits: Logits, labels: Labels) -> Isotonic:
    """Isotonic regression of "this class?" on each class's probability (Zadrozny and Elkan, KDD 2002)."""
    z = _checked(logits, labels)
    curves = [_curve(column, labels == c) for c, column in enumerate(softmax(z, axis=1).T)]
    return Isotonic(tuple(x for x, _ in curves), tuple(y for _, y in curves))


def _curve(
    p: Float64[np.ndarray, " batch"], is_class: np.ndarray
) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
    """Distinct probabilities, rising, and the fitted share at each; equal ones are first averaged."""
    places, index = np.unique(p, return_inverse=True)
    weights = np.bincount(index).astype(np.float64)
    means = np.bincount(index, is_class.astype(np.float64)) / weights
    return places, np.asarray(isotonic_regression(means, weights=weights).x)


def _checked(logits: Logits, labels: Labels) -> Float64[np.ndarray, "batch classes"]:
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or len(z) != len(labels) or not len(z):
        raise DataError(f"scores of shape {z.shape} do not fit {len(labels)} labels; give one row a sample")
    if not np.isfinite(z).all():
        bad = int(np.argmin(np.isfinite(z).all(axis=1)))
        raise DataError(f"the scores of sample {bad} are not finite; nothing can be fitted to them")
    if labels.min() < 0 or labels.max() >= z.shape[1]:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}; the network has {z.shape[1]} classes"
        )
    return z


def log_probabilities(
    probabilities: Float[np.ndarray, "batch classes"], smallest: float = 1e-12
) -> Float64[np.ndarray, "batch classes"]:
    """Scores for records that hold probabilities: their logarithms, none below that of `smallest`."""
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), smallest))
