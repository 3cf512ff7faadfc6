"""How far float arithmetic may stray: a-priori rounding bounds (Higham, Accuracy and Stability, ch. 3 and 4).

Directed rounding is never used: threaded BLAS ignores the rounding mode of the calling thread.
"""

from __future__ import annotations

from dataclasses import dataclass

UNIT64 = 2.0**-53
SMALLEST_NORMAL32 = 2.0**-126
OVERFLOW_GUARD = 2.0**126
"""No partial sum of magnitude below this can overflow float32."""
SLACK = 1.0 + 2.0**-20
"""Covers the float64 rounding of the error terms themselves, which is relative and below 2^-30."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An execution model: round to nearest with unit roundoff `unit`, sums in any order, fused or not."""

    name: str
    unit: float


FLOAT32_ANY_ORDER = Profile("float32-any-order", 2.0**-24)
EXACT_REALS = Profile("reals", 0.0)


def gamma(count: int, unit: float) -> float:
    """k u / (1 - k u): relative error of a term that passes through at most `count` roundings."""
    if count * unit >= 0.5:
        return float("inf")
    return count * unit / (1.0 - count * unit)


def underflow(count: int, largest: float) -> float:
    """What underflow, gradual or flushed, may add to a sum of `count` products with weights to `largest`.

    In units of the smallest normal number.
    """
    return (2 * count + 1) * (1.0 + largest) if count else 0.0
