"""Estimates of the one-sided Lipschitz metric by gradients: ours, and CLEVER.

Only slopes that lower the safety function count: Q = max (s(x0) - s(x)) / ||x - x0||, radius s(x0) / Q. What
a search finds is no more than the true Q, so the radius errs on the unsafe side: an estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.risk.ball import Column, Points, distance, dual_length, extreme, project
from sutura.risk.boundary import Asked
from sutura.risk.model import Model
from sutura.risk.safety import (
    Risk,
    Scores,
    Uncertainty,
    margins,
    safety,
    seeds,
    softmax,
    softmax_pull,
)

Outputs = Float64[np.ndarray, "batch m"]
ENDING = 0.02
"""The last step of an ascent, as a share of the first."""


@dataclass(frozen=True, slots=True)
class RatioConfig:
    """Ascents for each input, steps of each, the seed, and whether s is read on logits or softmax."""

    starts: int = 8
    steps: int = 60
    scores: Scores = "logits"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CleverConfig:
    """CLEVER (Weng et al. 2018): `batches` maxima of `samples` gradient norms each within `radius` units."""

    batches: int = 50
    samples: int = 256
    radius: float = 0.3
    scores: Scores = "logits"
    seed: int = 0


def ratio_radius(
    seen: Model, asked: Asked, config: RatioConfig, checkpoint: Checkpoint = no_checkpoint
) -> Column:
    """s(x0) / Q by multi-start gradient ascent on the one-sided ratio. An estimate, unsafe side."""
    assert seen.slopes is not None
    count = len(asked.label)
    outputs, _ = seen.slopes(asked.centre)
    at_centre = safety(asked.risk, outputs, asked.label, config.scores)
    at = np.repeat(np.arange(count), config.starts)
    rows, start = asked.take(at), at_centre[at]
    random = np.random.default_rng(config.seed)
    x = project_away(rows, random, random.random(len(at)) ** 3 * asked.domain.widest)
    steepest = np.zeros(len(at))
    for turn in range(config.steps):
        checkpoint()
        value, slope = _value_and_slope(seen, rows, x, config.scores)
        far = rows.far(x)
        ratio = np.where(far > 0, (start - value) / np.where(far > 0, far, 1.0), 0.0)
        steepest = np.fmax(steepest, ratio)
        pace = far * 0.5 * ENDING ** (turn / max(1, config.steps - 1))
        # Downhill in s, and no farther away than pays: the ratio's own gradient.
        uphill = -slope * far[:, None] - ratio[:, None] * (x - rows.centre) / np.maximum(far, 1e-12)[:, None]
        x = extreme(asked.domain, asked.norm, x, -np.nan_to_num(uphill), np.maximum(pace, 1e-7))
    best = np.zeros(count)
    np.maximum.at(best, at, steepest)
    with np.errstate(divide="ignore"):
        return np.where(best > 0, at_centre / best, np.inf)


def project_away(rows: Asked, random: np.random.Generator, reach: Column) -> Points:
    """A random point of the domain about `reach` units from each centre."""
    away = random.uniform(-1.0, 1.0, rows.centre.shape) * rows.domain.scale
    far = distance(rows.domain, rows.norm, rows.centre + away, rows.centre)
    x = rows.centre + (reach / np.maximum(far, 1e-300))[:, None] * away
    return project(rows.domain, rows.norm, x, rows.centre, reach)


def _value_and_slope(seen: Model, rows: Asked, x: Points, scores: Scores) -> tuple[Column, Points]:
    """s and its gradient in the inputs."""
    assert seen.slopes is not None
    outputs, pull = seen.slopes(x)
    value = safety(rows.risk, outputs, rows.label, scores)
    if isinstance(rows.risk, Uncertainty):
        return value, pull(softmax(outputs) - 1.0 / outputs.shape[1])
    read = softmax(outputs) if scores == "softmax" else outputs
    way = margins(rows.risk, read, rows.label).argmin(axis=1)
    seed = seeds(rows.risk, read, rows.label, way)
    return value, pull(softmax_pull(outputs, seed) if scores == "softmax" else seed)


def clever_radius(
    seen: Model, asked: Asked, config: CleverConfig, checkpoint: Checkpoint = no_checkpoint
) -> Column:
    """CLEVER's score: for each way the margin over the extreme-value estimate of its Lipschitz constant in
    the ball of `radius`, the least of them, and no more than `radius`. An estimate."""
    scores = [
        _clever_one(seen, asked.take(np.array([i])), config, checkpoint) for i in range(len(asked.label))
    ]
    return np.array(scores)


def _clever_one(seen: Model, asked: Asked, config: CleverConfig, checkpoint: Checkpoint) -> float:
    assert seen.slopes is not None
    outputs, _ = seen.slopes(asked.centre)
    read = READ[config.scores](outputs)
    margin = _plain_margins(asked.risk, read, asked)[0]
    ways = np.flatnonzero(np.isfinite(margin))
    maxima = np.zeros((len(ways), config.batches))
    random = np.random.default_rng(config.seed)
    for batch in range(config.batches):
        checkpoint()
        rows = asked.take(np.zeros(config.samples, dtype=np.int64))
        x = _sampled(rows, random, config)
        outputs, pull = seen.slopes(x)
        for k, way in enumerate(ways):
            slope = pull(_seed(rows, outputs, int(way), config.scores))
            maxima[k, batch] = dual_length(asked.domain, asked.norm, slope).max()
    steepness = np.array([_extreme_value(row) for row in maxima])
    with np.errstate(divide="ignore"):
        return float(min(config.radius, np.min(margin[ways] / steepness, initial=np.inf)))


def _plain_margins(risk: Risk, read: Outputs, asked: Asked) -> Outputs:
    """The margin of each way; for uncertainty s itself."""
    if isinstance(risk, Uncertainty):
        return safety(risk, read, asked.label)[:, None]
    return margins(risk, read, asked.label)


def _seed(rows: Asked, outputs: Outputs, way: int, scores: Scores) -> Outputs:
    if isinstance(rows.risk, Uncertainty):
        return softmax(outputs) - 1.0 / outputs.shape[1]
    ways = np.full(len(outputs), way)
    if scores == "softmax":
        return softmax_pull(outputs, seeds(rows.risk, softmax(outputs), rows.label, ways))
    return seeds(rows.risk, outputs, rows.label, ways)


def _sampled(rows: Asked, random: np.random.Generator, config: CleverConfig) -> Points:
    """Points of the ball, uniform for Linf and uniform in direction and volume for L1 and L2."""
    shape = rows.centre.shape
    if rows.norm == "linf":
        step = random.uniform(-1.0, 1.0, shape)
    else:
        step = random.normal(size=shape) if rows.norm == "l2" else random.laplace(size=shape)
        length = np.sqrt((step * step).sum(axis=1)) if rows.norm == "l2" else abs(step).sum(axis=1)
        step = step / length[:, None] * random.random((shape[0], 1)) ** (1.0 / shape[1])
    x = rows.centre + config.radius * step * rows.domain.scale
    return np.clip(x, rows.domain.low, rows.domain.high)


def _extreme_value(maxima: Float64[np.ndarray, " batches"]) -> float:
    """Location (right end) of the reverse Weibull law that fits the maxima best.

    Its likelihood is unbounded towards both ends, so the end is sought within ten spreads above the largest
    maximum; that is returned where all are equal.
    """
    from scipy.stats import weibull_max

    top, spread = float(maxima.max()), float(np.ptp(maxima))
    if not spread > 1e-9 * top:
        return top
    scaled = (maxima - top) / spread
    likely = np.full(len(ENDS), -np.inf)
    for k, end in enumerate(ENDS):
        with np.errstate(all="ignore"):
            shape, _, scale = weibull_max.fit(scaled, 1.0, floc=end)
            likely[k] = np.nan_to_num(weibull_max.logpdf(scaled, shape, end, scale).sum(), nan=-np.inf)
    return top + spread * ENDS[int(likely.argmax())]


ENDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Right ends tried, in spreads of the maxima above the largest."""

READ: dict[str, Callable[[Outputs], Outputs]] = {"logits": lambda y: y, "softmax": softmax}
