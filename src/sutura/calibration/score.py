"""How good predicted probabilities are: calibration errors, proper scores, and how sure each figure is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy import fft
from scipy.optimize import brentq

from sutura.errors import DataError

BINS = 10
CELLS = 1000
"""Grid of the smooth calibration error: residuals are rounded to the middle of 1/1000."""

SMALLEST = float(np.finfo(np.float64).eps)
"""A probability below this counts as this in the logarithm, as scikit-learn's log_loss has it."""

Probabilities = Float[np.ndarray, "batch classes"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Estimates from samples: accuracy, mean confidence, binned and smooth calibration error, NLL, Brier."""

    accuracy: float
    confidence: float
    ece: float
    smooth_ece: float
    nll: float
    brier: float


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What became of each prediction: its confidence (highest probability), whether right, its two scores."""

    confidence: Float64[np.ndarray, " batch"]
    correct: Bool[np.ndarray, " batch"]
    nll: Float64[np.ndarray, " batch"]
    brier: Float64[np.ndarray, " batch"]


def outcomes(probabilities: Probabilities, labels: Int64[np.ndarray, " batch"]) -> Outcomes:
    """Each prediction against its label.

    Raises DataError where the rows are not finite, not probabilities (a sum off 1 by over 1e-3), or do not
    fit the labels.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or len(p) != len(labels) or not len(p):
        raise DataError(f"probabilities of shape {p.shape} do not fit {len(labels)} labels")
    sums = p.sum(axis=1)
    if not np.isfinite(p).all() or p.min() < 0 or np.abs(sums - 1).max() > 1e-3:
        bad = int(np.argmax(~np.isfinite(sums) | (np.abs(sums - 1) > 1e-3) | (p.min(axis=1) < 0)))
        raise DataError(f"row {bad} is no probability: its sum is {sums[bad]:.6g}; apply a softmax first")
    if labels.min() < 0 or labels.max() >= p.shape[1]:
        raise DataError(f"labels run from {labels.min()} to {labels.max()}; there are {p.shape[1]} classes")
    told = p[np.arange(len(p)), labels]
    return Outcomes(
        confidence=p.max(axis=1),
        correct=p.argmax(axis=1) == labels,
        nll=-np.log(np.maximum(told, SMALLEST)),
        brier=(p**2).sum(axis=1) - 2 * told + 1,
    )


def score(probabilities: Probabilities, labels: Int64[np.ndarray, " batch"]) -> Scores:
    """All figures of a batch of predictions; raises DataError as `outcomes` does."""
    return summary(outcomes(probabilities, labels))


def summary(found: Outcomes, weights: Float64[np.ndarray, " batch"] | None = None) -> Scores:
    """The figures of many predictions, each counted `weights` times (once by default)."""
    return Scores(
        accuracy=float(np.average(found.correct, weights=weights)),
        confidence=float(np.average(found.confidence, weights=weights)),
        ece=expected_calibration_error(found.confidence, found.correct, weights=weights),
        smooth_ece=smooth_calibration_error(found.confidence, found.correct, weights=weights),
        nll=float(np.average(found.nll, weights=weights)),
        brier=float(np.average(found.brier, weights=weights)),
    )


def expected_calibration_error(
    confidence: Float[np.ndarray, " batch"],
    correct: Bool[np.ndarray, " batch"],
    *,
    bins: int = BINS,
    weights: Float64[np.ndarray, " batch"] | None = None,
) -> float:
    """sum_m |B_m|/n |acc(B_m) - conf(B_m)| over bins (0, 1/M], (1/M, 2/M], ...; 0 is in the first."""
    gaps, counts = _gaps(bins_of(confidence, bins), bins, confidence, correct, weights)
    return float(np.abs(gaps).sum() / counts.sum())


def bins_of(confidence: Float[np.ndarray, " batch"], bins: int) -> Int64[np.ndarray, " batch"]:
    """Index of the bin (m/M, (m+1)/M] that each confidence falls into."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def _gaps(
    cells: Int64[np.ndarray, " batch"],
    count: int,
    confidence: Float[np.ndarray, " batch"],
    correct: Bool[np.ndarray, " batch"],
    weights: Float64[np.ndarray, " batch"] | None,
) -> tuple[Float64[np.ndarray, " cells"], Float64[np.ndarray, " cells"]]:
    """Sum of (correct - confidence) in each cell, and how many predictions it holds."""
    weight = np.ones(len(cells)) if weights is None else weights
    residual = (correct.astype(np.float64) - confidence) * weight
    return np.bincount(cells, residual, count), np.bincount(cells, weight, count)


def smooth_calibration_error(
    confidence: Float[np.ndarray, " batch"],
    correct: Bool[np.ndarray, " batch"],
    *,
    weights: Float64[np.ndarray, " batch"] | None = None,
) -> float:
    """Calibration error without bins: residuals smoothed by a Gaussian reflected at 0 and 1.

    The width sigma is the one at which the error equals sigma (Blasiok and Nakkiran, ICLR 2024, smECE). On a
    grid of CELLS the reflected kernel is diagonal under the cosine transform.
    """
    cells = np.clip((np.asarray(confidence) * CELLS).astype(np.int64), 0, CELLS - 1)
    gaps, counts = _gaps(cells, CELLS, confidence, correct, weights)
    waves = np.asarray(fft.dct(gaps / counts.sum(), norm="ortho"))
    damping = (np.pi * np.arange(CELLS)) ** 2 / 2

    def error(sigma: float) -> float:
        smoothed = np.asarray(fft.idct(waves * np.exp(-damping * sigma**2), norm="ortho"))
        return float(np.abs(smoothed).sum())

    def excess(sigma: float) -> float:
        return error(sigma) - sigma

    # The error falls with the width, from at most 1: there is one width that it equals.
    if error(1e-6) <= 1e-6:
        return 0.0
    width: Any = brentq(excess, 1e-6, 2.0, xtol=1e-6)
    return error(float(width))


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % percentile bootstrap interval."""

    low: Scores
    high: Scores


def interval(found: Outcomes, *, draws: int = 200, seed: int = 0, copies: int = 1) -> Interval:
    """Bootstrap interval of every figure, by drawing samples with replacement.

    Where the predictions are `copies` perturbed versions of the same samples, one version after the other,
    a sample is drawn with all its versions: they are not independent.
    """
    rng = np.random.default_rng(seed)
    count = len(found.confidence) // copies
    rows: list[tuple[float, ...]] = []
    for _ in range(draws):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
        rows.append(_figures(summary(found, np.tile(drawn, copies))))
    low, high = np.quantile(np.array(rows), [0.025, 0.975], axis=0)
    return Interval(Scores(*map(float, low)), Scores(*map(float, high)))


def _figures(s: Scores) -> tuple[float, ...]:
    return s.accuracy, s.confidence, s.ece, s.smooth_ece, s.nll, s.brier
