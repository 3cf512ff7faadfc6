"""What a proof must refute: the unsafe conjunctions as rows of one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sutura.errors import PropertyError
from sutura.property.spec import Conjunction, Inequality

EVERYDAY_BITS = 64
SMALLEST_BITS = 500
MOST_ENTRIES = 1 << 25
LARGEST64 = Fraction(float(np.finfo(np.float64).max))

NEVER_REFUTED = Inequality((), Fraction(0))
"""Stands in where the unsafe set has no inequality; a member of no conjunction."""


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """Conjunction k is refuted where rows[i] @ y > bounds[i] (strict: >=) for an i with members[k, i]."""

    rows: Float64[np.ndarray, "m n"]
    bounds: Float64[np.ndarray, " m"]
    strict: Bool[np.ndarray, " m"]
    members: Bool[np.ndarray, "k m"]


def goal(unsafe: Sequence[Conjunction], outputs: int) -> Goal:
    """The rows of all distinct inequalities of the unsafe conjunctions; bounds are rounded up to float64.

    Raises PropertyError where the coefficients of one inequality are too far apart for float64, and where
    there are too many inequalities.
    """
    distinct = list(dict.fromkeys(i for conjunction in unsafe for i in conjunction)) or [NEVER_REFUTED]
    if len(distinct) * max(outputs, len(unsafe)) > MOST_ENTRIES:
        raise PropertyError(
            f"{len(unsafe):,} unsafe conjunctions of {len(distinct):,} inequalities over {outputs:,} outputs "
            f"are too many to decide at once; split the property"
        )
    rows = np.zeros((len(distinct), outputs))
    bounds, strict = np.zeros(len(distinct)), np.zeros(len(distinct), dtype=bool)
    for at, inequality in enumerate(distinct):
        scale = _scale(inequality)
        bounds[at] = _rounded_up(inequality.bound * scale)
        # To reach a bound that was rounded up is to lie above the bound itself.
        exact = np.isfinite(bounds[at]) and Fraction(float(bounds[at])) == inequality.bound * scale
        strict[at] = inequality.strict or not exact
        for index, coefficient in inequality.terms:
            rows[at, index] = _coefficient(coefficient * scale)
    place = {inequality: at for at, inequality in enumerate(distinct)}
    members = np.zeros((len(unsafe), len(distinct)), dtype=bool)
    for k, conjunction in enumerate(unsafe):
        members[k, [place[i] for i in conjunction]] = True
    return Goal(rows, bounds, strict, members)


def _scale(inequality: Inequality) -> Fraction:
    """A power of two that brings the largest coefficient near one where float64 might not hold it."""
    largest = max((abs(c) for _, c in inequality.terms), default=Fraction(1))
    size = largest.numerator.bit_length() - largest.denominator.bit_length()
    return Fraction(1) if abs(size) < EVERYDAY_BITS else Fraction(2) ** -size


def _coefficient(value: Fraction) -> float:
    """Rounded to float64: bounds allow for that, except where a coefficient is one or minus one."""
    if abs(value) < Fraction(1, 2**SMALLEST_BITS):
        raise PropertyError(
            f"coefficients of an output inequality differ by more than 2^{SMALLEST_BITS}; drop the small ones"
        )
    near = float(value)
    return near if abs(near) != 1.0 or abs(value) == 1 else float(np.nextafter(near, 2.0 * near))


def _rounded_up(value: Fraction) -> float:
    """The smallest float64 number that is not below `value`, as far as the range goes."""
    if abs(value) > LARGEST64:
        return float("inf") if value > 0 else -float(LARGEST64)
    near = float(value)
    return near if Fraction(near) >= value else float(np.nextafter(near, np.inf))


def refuted(aim: Goal, lower: Float64[np.ndarray, "batch m"]) -> Bool[np.ndarray, "batch k"]:
    """Which conjunctions no output of a box can satisfy, given lower bounds of rows @ y."""
    cleared = (lower > aim.bounds) | (aim.strict & (lower >= aim.bounds))
    rows, valid = listed(aim)
    return np.any(cleared[:, rows] & valid, axis=2)


def unsafe_margin(aim: Goal, outputs: Float64[np.ndarray, "batch n"]) -> Float64[np.ndarray, "batch k"]:
    """Largest rows @ y - bound of each conjunction: not positive where the output is unsafe (an estimate)."""
    rows, valid = listed(aim)
    gap = outputs @ aim.rows.T - aim.bounds
    return np.where(valid, gap[:, rows], -np.inf).max(axis=2)


def listed(aim: Goal) -> tuple[Int64[np.ndarray, "k most"], Bool[np.ndarray, "k most"]]:
    """The rows of each conjunction, and which of them count (short conjunctions are filled up)."""
    most = max(1, int(aim.members.sum(axis=1).max(initial=0)))
    rows = np.argsort(~aim.members, axis=1, kind="stable")[:, :most]
    return rows, np.take_along_axis(aim.members, rows, axis=1)
