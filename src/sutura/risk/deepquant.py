"""DeepQuant as published: the Lipschitz metric of a safety function by generalised pattern search.

Xu, Ruan and Huang, arXiv 2009.06114. Q = max |s(x0) - s(x)| / ||x - x0|| over the domain, radius = s(x0) / Q.
A search finds no more than the true Q, so the radius errs on the unsafe side: an estimate, no certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float64

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.risk.ball import Column, Points, distance
from sutura.risk.boundary import Asked
from sutura.risk.model import Model
from sutura.risk.pattern import Objective, PatternConfig, pattern_search
from sutura.risk.safety import Adversarial, Labels, Risk, Scores, safety, softmax

AT_CENTRE = 1000.0
"""The released objective at x = x0, where the quotient is not defined."""


@dataclass(frozen=True, slots=True)
class DeepQuantConfig:
    """`objective`: the margin's metric, as the paper says, or that of the decision's own score alone, as the
    released code computes. `scores`: s on logits or on softmax. `search` has the released constants."""

    objective: Literal["margin", "logit"] = "margin"
    scores: Scores = "logits"
    search: PatternConfig = field(default_factory=PatternConfig)


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The Lipschitz metric that a search found, the radius s(x0) / Q (an estimate), and where it is."""

    lipschitz: Column
    radius: Column
    x: Points
    evaluations: int


def deepquant(
    seen: Model, asked: Asked, config: DeepQuantConfig, checkpoint: Checkpoint = no_checkpoint
) -> Metric:
    """The published estimate for each input, black box, through ONNX Runtime. An estimate."""
    parts = [_one(seen, asked.take(np.array([i])), config, checkpoint) for i in range(len(asked.label))]
    return Metric(
        np.concatenate([p.lipschitz for p in parts]),
        np.concatenate([p.radius for p in parts]),
        np.concatenate([p.x for p in parts]),
        sum(p.evaluations for p in parts),
    )


def _one(seen: Model, asked: Asked, config: DeepQuantConfig, checkpoint: Checkpoint) -> Metric:
    safe = safety(asked.risk, values(seen, asked.centre), asked.label, config.scores)
    ratio = objective(seen, asked, config)
    found = pattern_search(ratio, asked.domain, asked.centre, config.search, checkpoint)
    metric = 1.0 / found.value
    return Metric(metric, np.where(metric > 0, safe / metric, np.inf), found.x, found.evaluations)


def values(seen: Model, x: Points) -> Float64[np.ndarray, "batch m"]:
    """Outputs in ONNX Runtime as float64; the logarithm of probabilities."""
    outputs = seen.run(x.astype(np.float32)).astype(np.float64)
    if not seen.gap:
        return outputs
    return np.log(np.maximum(outputs, np.finfo(np.float32).smallest_subnormal))


def objective(seen: Model, asked: Asked, config: DeepQuantConfig) -> Objective:
    """||x - x0|| / |s(x0) - s(x)| of points around one input, to be minimised."""

    def measured(x: Points) -> Column:
        return _score(asked.risk, values(seen, x), np.repeat(asked.label, len(x)), config)

    at_centre = measured(asked.centre)

    def quotient(x: Points) -> Column:
        change = abs(at_centre - measured(x))
        far = distance(asked.domain, asked.norm, x, asked.centre)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(far > 0, np.where(change > 0, far / change, np.inf), AT_CENTRE)

    return quotient


def _score(
    risk: Risk, outputs: Float64[np.ndarray, "batch m"], label: Labels, config: DeepQuantConfig
) -> Column:
    if config.objective == "margin" or not isinstance(risk, Adversarial):
        return safety(risk, outputs, label, config.scores)
    read = softmax(outputs) if config.scores == "softmax" else outputs
    return read[np.arange(len(read)), label]
