"""Safety functions: s(y) > 0 where an output is safe, one for each risk (Xu, Ruan and Huang 2020).

A risk may be reached in several ways (one other class each, one end of a range each): `margins` has a column
for each way, and s is the least of them. All work on batches; `label` is the decision at each centre.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from sutura.errors import MismatchError, PropertyError

Decision = Literal["argmax", "argmin"]
Scores = Literal["logits", "softmax"]
Outputs = Float64[np.ndarray, "batch m"]
Labels = Int64[np.ndarray, " batch"]
Column = Float64[np.ndarray, " batch"]


@dataclass(frozen=True, slots=True)
class Adversarial:
    """The decision changes while a human's would not; a tie counts as a change."""

    decision: Decision = "argmax"


@dataclass(frozen=True, slots=True)
class Reachability:
    """Output `index` leaves [low, high]; reaching an end exactly is safe."""

    index: int
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """The network is unsure where a human is sure: KL(uniform || softmax of the logits) <= `kl`."""

    kl: float = 0.01


@dataclass(frozen=True, slots=True)
class Invariance:
    """The decision stays while a human's would change."""

    decision: Decision = "argmax"


Risk = Adversarial | Reachability | Uncertainty | Invariance


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """Linear inequalities rows[b, i] @ y > bounds[b, i] that mean safety: all where `every`, else any.

    The number of rows is the same for each ball of a batch.
    """

    rows: Float64[np.ndarray, "batch k m"]
    bounds: Float64[np.ndarray, "batch k"]
    every: bool

    def take(self, at: Int64[np.ndarray, " b"]) -> Claim:
        """Those of some balls."""
        return Claim(self.rows[at], self.bounds[at], self.every)

    def shown(self, lower: Float64[np.ndarray, "batch k"]) -> Bool[np.ndarray, " batch"]:
        """Whether lower bounds of the rows suffice."""
        cleared = lower > self.bounds
        return np.all(cleared, axis=1) if self.every else np.any(cleared, axis=1)


def check_outputs(risk: Risk, outputs: int) -> None:
    """Raise MismatchError or PropertyError where the risk makes no sense for so many outputs."""
    if isinstance(risk, Reachability):
        if not 0 <= risk.index < outputs:
            raise MismatchError(
                f"output {risk.index} is not there; the {outputs} outputs are 0 to {outputs - 1}"
            )
        if not risk.low <= risk.high:
            raise PropertyError(f"the range {risk.low:.9g} to {risk.high:.9g} of an output holds nothing")
    elif outputs < 2:
        raise MismatchError(f"{NAMES[type(risk)]} risk needs at least two outputs; the network has {outputs}")
    if isinstance(risk, Uncertainty) and not 0.0 <= risk.kl < math.inf:
        raise PropertyError(f"the KL divergence {risk.kl:.9g} is no level; give a number >= 0, such as 0.01")


def decisions(decision: Decision, outputs: Float[np.ndarray, "batch m"]) -> Labels:
    """The decision read off each row; the first of equal scores."""
    return (outputs.argmax(axis=1) if decision == "argmax" else outputs.argmin(axis=1)).astype(np.int64)


def labels(risk: Risk, outputs: Outputs) -> Labels:
    """The decision that each centre's outputs stand for, by the risk's own reading."""
    return decisions(risk.decision if isinstance(risk, Adversarial | Invariance) else "argmax", outputs)


def margins(risk: Risk, outputs: Outputs, label: Labels) -> Float64[np.ndarray, "batch ways"]:
    """How far each way is from being reached: linear near the centre, not positive at risk."""
    return MARGINS[type(risk)](risk, outputs, label)


def seeds(risk: Risk, outputs: Outputs, label: Labels, way: Labels) -> Outputs:
    """Gradient of margins[i, way[i]] with respect to the outputs."""
    return SEEDS[type(risk)](risk, outputs, label, way)


def at_risk(risk: Risk, outputs: Float[np.ndarray, "batch m"], label: Labels) -> Bool[np.ndarray, " batch"]:
    """Whether the risk occurs at each output; not-a-number is never said to be at risk."""
    return np.any(margins(risk, outputs.astype(np.float64), label) <= RISKY_AT[type(risk)], axis=1)


def safety(risk: Risk, outputs: Outputs, label: Labels, scores: Scores = "logits") -> Column:
    """s itself, on logits or on their softmax, as it is defined for the risk."""
    if isinstance(risk, Uncertainty):
        return kl_to_uniform(outputs) - risk.kl
    return margins(risk, softmax(outputs) if scores == "softmax" else outputs, label).min(axis=1)


def softmax(outputs: Outputs) -> Outputs:
    """exp(y) / sum exp(y)."""
    raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def softmax_pull(outputs: Outputs, seed: Outputs) -> Outputs:
    """Gradient of seed . softmax(y)."""
    p = softmax(outputs)
    return p * (seed - (seed * p).sum(axis=1, keepdims=True))


def kl_to_uniform(outputs: Outputs) -> Column:
    """KL(U || softmax(y)) = logsumexp(y) - mean(y) - log m; never below zero."""
    top = outputs.max(axis=1)
    raised = np.log(np.exp(outputs - top[:, None]).mean(axis=1))
    return np.maximum(0.0, raised + top - outputs.mean(axis=1))


def claim(
    risk: Risk, label: Labels, outputs: int, gap: float, tangents: Float64[np.ndarray, "batch t m"]
) -> Claim:
    """Inequalities that show each ball safe. `gap` is the margin by which one score must exceed another.

    `tangents` are outputs at which the convex function KL(U || softmax) is bounded below by its tangent
    plane; any are sound, those on the way to the least certain output are tight.
    """
    return CLAIMS[type(risk)](risk, label, outputs, gap, tangents)


def _sign(risk: Any) -> float:
    return 1.0 if risk.decision == "argmax" else -1.0


def _decision_margins(
    risk: Adversarial, outputs: Outputs, label: Labels
) -> Float64[np.ndarray, "batch ways"]:
    rows = np.arange(len(outputs))
    gap = _sign(risk) * (outputs[rows, label][:, None] - outputs)
    gap[rows, label] = np.inf
    return gap


def _decision_seeds(risk: Adversarial, outputs: Outputs, label: Labels, way: Labels) -> Outputs:
    seed, rows = np.zeros_like(outputs), np.arange(len(outputs))
    seed[rows, label] += _sign(risk)
    seed[rows, way] -= _sign(risk)
    return seed


def _decision_claim(
    risk: Adversarial, label: Labels, outputs: int, gap: float, _: Float64[np.ndarray, "batch t m"]
) -> Claim:
    others = (label[:, None] + np.arange(1, outputs)) % outputs
    eye = np.eye(outputs)
    rows = _sign(risk) * (eye[label][:, None] - eye[others])
    return Claim(rows, np.full(rows.shape[:2], gap), every=True)


def _range_margins(risk: Reachability, outputs: Outputs, _: Labels) -> Float64[np.ndarray, "batch ways"]:
    value = outputs[:, risk.index]
    return np.stack([value - risk.low, risk.high - value], axis=1)


def _range_seeds(risk: Reachability, outputs: Outputs, _: Labels, way: Labels) -> Outputs:
    seed = np.zeros_like(outputs)
    seed[:, risk.index] = np.where(way == 0, 1.0, -1.0)
    return seed


def _range_claim(
    risk: Reachability, label: Labels, outputs: int, _: float, __: Float64[np.ndarray, "batch t m"]
) -> Claim:
    unit = np.eye(outputs)[risk.index]
    sides = [(unit, risk.low)] * (risk.low > -math.inf) + [(-unit, -risk.high)] * (risk.high < math.inf)
    rows = np.array([row for row, _ in sides]).reshape(-1, outputs)
    # A bound that may be reached is passed by any number above the one before it.
    least = np.nextafter(np.array([bound for _, bound in sides]), -np.inf)
    count = len(label)
    return Claim(np.repeat(rows[None], count, axis=0), np.repeat(least[None], count, axis=0), every=True)


def _kl_margins(risk: Uncertainty, outputs: Outputs, _: Labels) -> Float64[np.ndarray, "batch ways"]:
    """Roots: KL is quadratic where it is small, its root is nearly linear."""
    return (np.sqrt(kl_to_uniform(outputs)) - math.sqrt(risk.kl))[:, None]


def _kl_seeds(risk: Uncertainty, outputs: Outputs, _: Labels, __: Labels) -> Outputs:
    root = np.sqrt(kl_to_uniform(outputs))[:, None]
    return (softmax(outputs) - 1.0 / outputs.shape[1]) / np.maximum(2.0 * root, 1e-12)


def _kl_claim(
    risk: Uncertainty, label: Labels, outputs: int, _: float, tangents: Float64[np.ndarray, "batch t m"]
) -> Claim:
    flat = tangents.reshape(-1, outputs)
    slope, value = softmax(flat) - 1.0 / outputs, kl_to_uniform(flat)
    constant = risk.kl - value + (slope * flat).sum(axis=1)
    rounding = 1e-12 * (1.0 + risk.kl + value + abs(flat).max(axis=1))
    return Claim(
        slope.reshape(tangents.shape), (constant + rounding).reshape(tangents.shape[:2]), every=False
    )


NAMES = {
    Adversarial: "adversarial",
    Reachability: "reachability",
    Invariance: "invariance",
    Uncertainty: "uncertainty",
}
MARGINS: Mapping[type, Callable[..., Float64[np.ndarray, "batch ways"]]] = {
    Adversarial: _decision_margins,
    Invariance: _decision_margins,
    Reachability: _range_margins,
    Uncertainty: _kl_margins,
}
SEEDS: Mapping[type, Callable[..., Outputs]] = {
    Adversarial: _decision_seeds,
    Invariance: _decision_seeds,
    Reachability: _range_seeds,
    Uncertainty: _kl_seeds,
}
CLAIMS: Mapping[type, Callable[..., Claim]] = {
    Adversarial: _decision_claim,
    Reachability: _range_claim,
    Uncertainty: _kl_claim,
}
RISKY_AT = {
    Adversarial: 0.0,
    Invariance: 0.0,
    Uncertainty: 0.0,
    Reachability: -np.finfo(np.float64).smallest_subnormal,
}
"""A margin up to this is at risk: a tie of scores is, an end of a range is not."""
