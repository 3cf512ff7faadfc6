"""Exact rational numbers to float32, rounded in a stated direction."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

LARGEST = Fraction(float(np.finfo(np.float32).max))


def round_down(value: Fraction) -> np.float32:
    """The largest float32 number <= value (-inf below the range)."""
    if value < -LARGEST:
        return np.float32(-np.inf)
    if value >= LARGEST:
        return np.finfo(np.float32).max
    near = np.float32(float(value))
    return near if Fraction(float(near)) <= value else np.nextafter(near, np.float32(-np.inf))


def round_up(value: Fraction) -> np.float32:
    """The smallest float32 number >= value (inf above the range)."""
    return np.float32(0.0) - round_down(-value)  # 0 - 0 is +0, where a sign change would give -0


def nearest(value: Fraction) -> np.float32:
    """The float32 number nearest to value (the lower of two equally near); an infinity beyond the range."""
    low, high = round_down(value), round_up(value)
    if not (np.isfinite(low) and np.isfinite(high)):
        return low if value < 0 else high
    return low if value - Fraction(float(low)) <= Fraction(float(high)) - value else high
