"""The shift protocol: the same samples perturbed ever more strongly, the strengths of a shift pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from sutura.calibration.score import Interval, Outcomes, Scores, interval, outcomes, summary
from sutura.calibration.shift import Shift

Samples = Float32[np.ndarray, "batch *sample"]
Predictor = Callable[[Samples], Float64[np.ndarray, "batch classes"]]
"""Samples -> probabilities."""


@dataclass(frozen=True, slots=True, eq=False)
class UnderShift:
    """One shift: figures of all strengths pooled (the paper's micro-average), and of each strength alone."""

    shift: Shift
    pooled: Scores
    strengths: tuple[Scores, ...]
    outcomes: Outcomes


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """In-domain figures, those of every shift, and the means over the shifts."""

    domain: Scores
    shifts: tuple[UnderShift, ...]
    mean: Scores


def measure(
    predict: Predictor,
    x: Samples,
    y: Int64[np.ndarray, " batch"],
    shifts: Sequence[Shift],
    *,
    seed: int = 0,
) -> Protocol:
    """Measure predictions on the samples and on every shift of them.

    For each shift all samples at all its strengths are pooled and scored once; `mean` is the mean over the
    shifts, so that `mean.ece` is the "mean ECE" of FALCON. Every figure is an estimate from these samples.
    """
    return measure_each({"": predict}, x, y, shifts, seed=seed)[""]


def measure_each(
    predictors: Mapping[str, Predictor],
    x: Samples,
    y: Int64[np.ndarray, " batch"],
    shifts: Sequence[Shift],
    *,
    seed: int = 0,
) -> dict[str, Protocol]:
    """As `measure`, several predictors side by side: the samples are perturbed once for all of them."""
    domain = {name: summary(outcomes(predict(x), y)) for name, predict in predictors.items()}
    found = [_under(predictors, x, y, shift, seed) for shift in shifts]
    return {name: _protocol(domain[name], tuple(each[name] for each in found)) for name in predictors}


def _protocol(domain: Scores, found: tuple[UnderShift, ...]) -> Protocol:
    rows = np.array([_row(each.pooled) for each in found])
    return Protocol(domain, found, Scores(*map(float, rows.mean(axis=0))))


def _under(
    predictors: Mapping[str, Predictor], x: Samples, y: Int64[np.ndarray, " batch"], shift: Shift, seed: int
) -> dict[str, UnderShift]:
    """Every predictor under one shift."""
    each: dict[str, list[Outcomes]] = {name: [] for name in predictors}
    for index, strength in enumerate(shift.strengths):
        perturbed = shift.perturb(x, strength, seed + index)
        for name, predict in predictors.items():
            each[name].append(outcomes(predict(perturbed), y))
    return {name: _pooled(shift, told) for name, told in each.items()}


def _pooled(shift: Shift, each: Sequence[Outcomes]) -> UnderShift:
    columns = zip(*((o.confidence, o.correct, o.nll, o.brier) for o in each), strict=True)
    pooled = Outcomes(*(np.concatenate(parts) for parts in columns))
    return UnderShift(shift, summary(pooled), tuple(map(summary, each)), pooled)


def shift_interval(found: UnderShift, *, draws: int = 200, seed: int = 0) -> Interval:
    """Bootstrap interval of a shift's pooled figures; a sample is drawn with all its strengths."""
    return interval(found.outcomes, draws=draws, seed=seed, copies=len(found.shift.strengths))


def _row(s: Scores) -> tuple[float, ...]:
    return s.accuracy, s.confidence, s.ece, s.smooth_ece, s.nll, s.brier
