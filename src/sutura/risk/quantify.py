"""quantify_risk(): how far from harm is this input, with both bounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.certificate.claim import claim as certificate_claim
from sutura.display import Displayed
from sutura.errors import DataError, MismatchError, NetworkError
from sutura.network.budget import shown_shape
from sutura.network.read import Loaded
from sutura.risk.attack import nearest_found
from sutura.risk.ball import LENGTHS, Column, Domain, Norm, domain, regions
from sutura.risk.boundary import Asked, BoundaryConfig, Found
from sutura.risk.branch import narrowed
from sutura.risk.certify import BOUNDERS, Shown, largest_shown, shown_by
from sutura.risk.deepquant import DeepQuantConfig, deepquant
from sutura.risk.invariance import invariance
from sutura.risk.jacobian import shown_by_slopes
from sutura.risk.model import Model, logits, model
from sutura.risk.nearest import Bracket
from sutura.risk.optimised import stretched
from sutura.risk.ratio import CleverConfig, RatioConfig, clever_radius, ratio_radius
from sutura.risk.reach import RangeConfig, range_of
from sutura.risk.safety import (
    NAMES,
    Adversarial,
    Claim,
    Invariance,
    Reachability,
    Risk,
    Uncertainty,
    check_outputs,
    claim,
    labels,
    safety,
)
from sutura.verdict.deadline import within
from sutura.verdict.search import VerifyConfig

WITNESSED, ESTIMATED = "WITNESSED", "ESTIMATED"
ON_THE_WAY = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 1.0)
"""Where on the way to the least certain point found the tangents of KL touch."""

BEYOND = 1.002
VERY_FEW_INPUTS, FEW_SECONDS = 8, 5.0


@dataclass(frozen=True, slots=True)
class RiskConfig:
    """What is asked and how hard to look.

    `domain` None is [0, 1] for every input. `bounds` names the certified lower bound (`crown`, `slopes`:
    optimised ones after it, `lipschitz`, `none`), `budget` the wall seconds of branch and bound that each
    input gets after it (0: none; None: see `seconds_each`) until lower reaches `tight` times upper,
    `patience` those of linear bounds before it. `estimator` names what fills in the estimate (`ratio`,
    `deepquant`, `clever`, `none`). Without `gradients` the network is a black box to attacks and estimates.
    A reachability risk without a range to leave asks for the output's range itself, within Linf distance
    `reach` of the input: figures `attained_low`, `attained_high`, `certified_low`, `certified_high`.
    """

    risk: Risk = field(default_factory=Adversarial)
    norm: Norm = "linf"
    domain: Domain | None = None
    bounds: Literal["crown", "slopes", "lipschitz", "none"] = "crown"
    budget: float | None = None
    patience: float = 60.0
    tight: float = 0.99
    attack: BoundaryConfig = field(default_factory=BoundaryConfig)
    estimator: Literal["ratio", "deepquant", "clever", "none"] = "ratio"
    ratio: RatioConfig = field(default_factory=RatioConfig)
    deepquant: DeepQuantConfig = field(default_factory=DeepQuantConfig)
    clever: CleverConfig = field(default_factory=CleverConfig)
    reach: float = math.inf
    gradients: bool = True
    workers: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class RiskWitness:
    """A float32 input at which the risk occurs, and what ONNX Runtime gave for it."""

    input: Float32[np.ndarray, " n"]
    output: Float32[np.ndarray, " m"]


@dataclass(frozen=True, slots=True, eq=False)
class RiskResult(Displayed):
    """The largest radius without the risk lies in [lower, upper], in units of the domain.

    `lower` is certified for every float32 execution (0: nothing is, and `reason` says why; inf: the whole
    domain is safe). `upper` is the distance of `witness`, replayed in ONNX Runtime (inf and None: not found).
    `estimate` is a Lipschitz estimate, which may lie anywhere. `level` is the level of claim of `lower` (see
    `sutura.certificate.claim`), WITNESSED where there is only an upper bound, ESTIMATED where there is none.
    `safety` is s at the input, `label` its decision; `figures` holds what only some risks have.
    """

    lower: float
    upper: float
    estimate: float | None
    witness: RiskWitness | None
    level: str
    label: int
    safety: float
    reason: str = ""
    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict[str, float])


def quantify_risk(
    loaded: Loaded,
    x: Float[np.ndarray, " *shape"],
    config: RiskConfig | None = None,
    *,
    reference: tuple[Float[np.ndarray, " batch *shape"], np.ndarray] | None = None,
) -> RiskResult:
    """The radius around one input in which a risk does not occur, from both sides.

    `x` has the network's input shape, or is flat. `reference` are other inputs with their true labels; the
    invariance risk needs them. Raises MismatchError where shapes do not fit, DataError where `x` is not a
    float32 point of the domain, PropertyError where the risk makes no sense.
    """
    config = config or RiskConfig()
    seen = prepared(loaded, config)
    flat = np.asarray(x).reshape(1, -1)
    others = None if reference is None else (reference[0].reshape(len(reference[0]), -1), reference[1])
    return quantify_all(seen, flat, config, reference=others)[0]


def seconds_each(config: RiskConfig, inputs: int) -> float:
    """Wall seconds of branch and bound for each input: a few where nobody said, and inputs are so few that
    halving them mostly decides, none where they are many or the bounds asked for are not linear ones."""
    if config.budget is not None:
        return config.budget
    return FEW_SECONDS if inputs <= VERY_FEW_INPUTS and config.bounds in ("crown", "slopes") else 0.0


def prepared(loaded: Loaded, config: RiskConfig) -> Model:
    """The network, ready to be measured many times. Raises PropertyError where the risk makes no sense."""
    check_outputs(config.risk, loaded.network.output_size)
    return model(loaded, config.risk, gradients=config.gradients)


def quantify_all(
    seen: Model,
    x: Float[np.ndarray, "batch n"],
    config: RiskConfig,
    *,
    reference: tuple[np.ndarray, np.ndarray] | None = None,
    checkpoint: Checkpoint = no_checkpoint,
) -> list[RiskResult]:
    """The result of each row of `x`: attacks and linear bounds of all of them are one batch."""
    started = time.monotonic()
    limits = config.domain or domain(np.zeros(seen.network.input_size), np.ones(seen.network.input_size))
    asked = _asked(seen, x, config, limits)
    if isinstance(config.risk, Invariance):
        found = invariance(seen, asked, reference)
        return [
            RiskResult(
                0.0,
                f.upper,
                f.estimate,
                _witness(seen, f.upper, f.witness),
                WITNESSED if np.isfinite(f.upper) else ESTIMATED,
                int(asked.label[i]),
                f.safety,
                INVARIANCE,
                (time.monotonic() - started) / len(x),
                f.figures,
            )
            for i, f in enumerate(found)
        ]
    if isinstance(config.risk, Reachability) and math.isinf(config.risk.low) and math.isinf(config.risk.high):
        return _ranges(seen, asked, config, config.risk.index)
    safe = safety(config.risk, logits(seen, asked.centre), asked.label)
    found = nearest_found(seen, asked, replace(config.attack, seed=config.seed), checkpoint)
    claimed = _claimed(seen, asked, found)
    lower, reason = _certified(seen, asked, claimed, found, config, checkpoint)
    estimate = ESTIMATORS[config.estimator](seen, asked, config, checkpoint)
    seconds = seconds_each(config, len(limits.low))
    shared = (time.monotonic() - started) / len(x)
    results: list[RiskResult] = []
    for i in range(len(x)):
        began, at = time.monotonic(), np.array([i])
        mine = Found(found.distance[at], found.witness[at])
        bracket = Bracket(float(lower[i]), mine)
        if seconds > 0 and not reason and bracket.lower < config.tight * bracket.upper:
            how = (
                within(seconds),
                config.tight,
                VerifyConfig(workers=config.workers, seed=config.seed),
            )
            bracket = narrowed(seen, asked.take(at), claimed.take(at), bracket, how)
        spent = shared + time.monotonic() - began
        guess = None if estimate is None else float(estimate[i])
        results.append(_result(seen, (asked, i), (bracket, guess, float(safe[i])), reason, spent))
    return results


def _ranges(seen: Model, asked: Asked, config: RiskConfig, index: int) -> list[RiskResult]:
    """The output's range around each input; no output leaves a range without ends."""
    how = RangeConfig(budget=config.budget or RangeConfig().budget, workers=config.workers, seed=config.seed)
    results: list[RiskResult] = []
    for i, label in enumerate(asked.label):
        began, radius = time.monotonic(), np.array([min(config.reach, asked.domain.widest)])
        region = regions(asked.domain, "linf", asked.centre[i : i + 1], radius)
        box = Domain(region.low[0], region.high[0], asked.domain.scale)
        found = range_of(seen, index, box, how)
        figures = {
            "attained_low": found.low.attained,
            "attained_high": found.high.attained,
            "certified_low": found.low.certified,
            "certified_high": found.high.certified,
        }
        level = claimed_level(seen) if np.isfinite(found.low.certified + found.high.certified) else WITNESSED
        spent = time.monotonic() - began
        results.append(
            RiskResult(math.inf, math.inf, None, None, level, int(label), math.inf, RANGE, spent, figures)
        )
    return results


def _asked(seen: Model, x: Float[np.ndarray, "batch n"], config: RiskConfig, limits: Domain) -> Asked:
    size = seen.network.input_size
    if x.ndim != 2 or x.shape[1] != size or len(limits.low) != size:
        raise MismatchError(
            f"inputs hold {x.shape[-1]:,} numbers and the domain {len(limits.low):,}; the network takes "
            f"{shown_shape(seen.network.input_shape)}"
        )
    centre = x.astype(np.float64)
    strange = (centre != x.astype(np.float32)) | (centre < limits.low) | (centre > limits.high)
    if strange.any():
        row, column = (int(v) for v in np.argwhere(strange)[0])
        raise DataError(
            f"number {column} of sample {row} is {centre[row, column]:.9g}: no float32 number of the domain "
            f"{limits.low[column]:.9g} to {limits.high[column]:.9g}; state the domain (--domain LOW,HIGH) or "
            "rescale the data"
        )
    label = labels(config.risk, seen.run(x.astype(np.float32)).astype(np.float64))
    return Asked(config.risk, limits, config.norm, centre, label)


def _claimed(seen: Model, asked: Asked, found: Found) -> Claim:
    outputs = seen.head.network.output_size
    tangents = np.zeros((len(asked.label), 0, outputs))
    if isinstance(asked.risk, Uncertainty):
        way = (found.witness - asked.centre)[:, None] * np.array(ON_THE_WAY)[:, None]
        points = asked.centre[:, None] + np.where(np.isfinite(found.distance)[:, None, None], way, 0.0)
        tangents = logits(seen, points.reshape(-1, asked.centre.shape[1])).reshape(*points.shape[:2], outputs)
    return claim(asked.risk, asked.label, outputs, seen.gap, tangents)


def _certified(
    seen: Model, asked: Asked, claimed: Claim, found: Found, config: RiskConfig, checkpoint: Checkpoint
) -> tuple[Column, str]:
    """Lower bounds, and why there are none."""
    nothing = np.zeros(len(asked.label))
    if config.bounds == "none":
        return nothing, "no certified bound was asked for"
    if seen.program is None:
        return nothing, f"no certified bound: {seen.why_not}"
    ball = (asked.domain, asked.norm, asked.centre)
    deadline = within(config.patience * len(asked.label))

    def check() -> None:
        checkpoint()
        deadline.check()

    try:
        shown: Shown = (
            shown_by_slopes(seen.program, ball, claimed, check)
            if config.bounds == "lipschitz"
            else shown_by(BOUNDERS["crown"], seen.program, ball, claimed, check)
        )
    except NetworkError as error:
        return nothing, f"no certified bound: {error}"
    reach = float(LENGTHS[asked.norm]((asked.domain.high - asked.domain.low) / asked.domain.scale))
    ceiling = np.minimum(found.distance, BEYOND * reach)
    lower = np.where(found.distance > 0, largest_shown(shown, ceiling), 0.0)
    if config.bounds == "slopes":
        lower = stretched(seen.program, asked, claimed, (lower, ceiling), check)
    late = deadline.passed and not lower.any()
    reason = (
        f"no certified bound: linear bounds take more than {config.patience:g} s an input" if late else ""
    )
    return np.where(lower >= reach, np.inf, lower), reason


def _result(
    seen: Model,
    place: tuple[Asked, int],
    known: tuple[Bracket, float | None, float],
    reason: str,
    spent: float,
) -> RiskResult:
    asked, i = place
    bracket, guess, safe = known
    witness = _witness(seen, bracket.upper, bracket.found.witness[0])
    level = claimed_level(seen) if bracket.lower > 0 else WITNESSED if witness else ESTIMATED
    if not reason and bracket.lower == 0.0:
        reason = (
            "the risk is there at the input itself" if bracket.upper == 0.0 else "no ball could be certified"
        )
    return RiskResult(
        bracket.lower, bracket.upper, guess, witness, level, int(asked.label[i]), safe, reason, spent
    )


def claimed_level(seen: Model) -> str:
    """What a certified bound of this network says of runs of it."""
    return certificate_claim(operators=(type(node.op).__name__ for node in seen.head.network.nodes)).level


def _witness(seen: Model, upper: float, x: Float32[np.ndarray, " n"]) -> RiskWitness | None:
    return RiskWitness(x, seen.run(x[None])[0]) if np.isfinite(upper) else None


def _by_ratio(seen: Model, asked: Asked, config: RiskConfig, checkpoint: Checkpoint) -> Column | None:
    if seen.slopes is None:
        return None
    return ratio_radius(seen, asked, replace(config.ratio, seed=config.seed), checkpoint)


def _by_clever(seen: Model, asked: Asked, config: RiskConfig, checkpoint: Checkpoint) -> Column | None:
    if seen.slopes is None:
        raise NetworkError("CLEVER needs gradients, and there are none; estimate with deepquant")
    return clever_radius(seen, asked, replace(config.clever, seed=config.seed), checkpoint)


ESTIMATORS: Mapping[str, Callable[[Model, Asked, RiskConfig, Checkpoint], Column | None]] = {
    "ratio": _by_ratio,
    "deepquant": lambda seen, asked, config, check: deepquant(seen, asked, config.deepquant, check).radius,
    "clever": _by_clever,
    "none": lambda seen, asked, config, check: None,
}

RANGE = "no range was given that the output could leave; figures hold its range"
INVARIANCE = (
    "no code knows when a human's answer changes: upper is a real input of another class with this decision, "
    "the estimate only says how far the decision was carried towards one"
)
RISKS = {name: kind for kind, name in NAMES.items()}
