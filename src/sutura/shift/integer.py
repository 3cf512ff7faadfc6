"""What hardware without multipliers would compute: shifts and sums of integers, exact."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8

from sutura.errors import ShiftError
from sutura.shift.grid import Grid

ROOM = 62
"""Bits of an int64 sum that may be used."""


def fixed(
    x: Float[np.ndarray, "*shape"], integer_bits: int = 16, fraction_bits: int = 16
) -> Int64[np.ndarray, "*shape"]:
    """floor(x * 2**F), clamped to what I integer bits (the sign's included) and F fraction bits hold.

    The largest number is 2**(I-1) - 2**-F; the published code clamps to 2**(I-1) - 1, dropping the fraction.
    """
    top = 1 << (integer_bits - 1 + fraction_bits)
    return np.clip(np.floor(np.ldexp(x.astype(np.float64), fraction_bits)), -top, top - 1).astype(np.int64)


def products(
    x: Int64[np.ndarray, "batch columns"], codes: UInt8[np.ndarray, "out columns"], grid: Grid
) -> Int64[np.ndarray, "batch out"]:
    """Sums of x shifted by each weight's exponent and added or taken away: x @ W^T * 2**-lowest, exactly.

    Nothing is dropped: instead of x >> -p it is x << (p - lowest), and the sum has -lowest fraction bits more
    than x. Raises ShiftError where a sum could outgrow int64.
    """
    peak = int(np.abs(x).max(initial=0))
    if peak.bit_length() - grid.lowest + x.shape[1].bit_length() > ROOM:
        raise ShiftError(f"sums of {x.shape[1]} numbers up to {peak} may outgrow int64; give x fewer bits")
    top = 1 << (grid.bits - 1)
    field, negative = codes & (top - 1), (codes & top).astype(bool)
    total = np.zeros((len(x), len(codes)), np.int64)
    for shift in range(1 - grid.lowest):
        here = field == shift + grid.zero
        moved = x << shift
        for row in np.flatnonzero(here.any(axis=1)):
            total[:, row] += moved[:, here[row] & ~negative[row]].sum(axis=1)
            total[:, row] -= moved[:, here[row] & negative[row]].sum(axis=1)
    return total


def real(
    total: Int64[np.ndarray, "batch out"], grid: Grid, fraction_bits: int = 16
) -> Float64[np.ndarray, "batch out"]:
    """The sums of `products` as numbers; exact below 2**53."""
    return np.ldexp(total.astype(np.float64), grid.lowest - fraction_bits)
