"""How far float32 execution may stray from exact arithmetic, and float64 from itself.

The execution model is "any order": a sum of products is computed in binary32, round to nearest, as any
binary tree over its terms, with or without fused multiply-add, with any intermediate kept in higher
precision. A term of a sum then carries at most k relative roundings, so the result is off by at most
gamma(k) (|W||x| + |b|). Underflow, gradual or to zero, and subnormal operands read as zero cost `underflow`
more.
"""

from __future__ import annotations

UNIT32 = 2.0**-24
UNIT64 = 2.0**-53
OVERFLOW = 2.0**126  # below it no partial sum can overflow, with a factor of two to spare
TINY = 2.0**-126
SLACK = 1.0 + 2.0**-20  # pays for all float64 roundings of a sum of non-negative numbers
FUSED = 12  # roundings that a per-element operation may add when a runtime folds it into its neighbour


def gamma32(roundings: int) -> float:
    """The relative error of so many float32 roundings; infinite beyond 2^20, where nothing is claimed."""
    if roundings > 1 << 20:
        return float("inf")
    return roundings * UNIT32 / (1 - roundings * UNIT32) * SLACK


def gamma64(roundings: int) -> float:
    """The relative error of so many float64 roundings (far fewer than 2^40)."""
    return roundings * UNIT64 * SLACK
