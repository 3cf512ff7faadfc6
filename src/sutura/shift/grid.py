"""Signed powers of two, s * 2**p: the grids of DeepShift-Q and DeepShift-PS, their roundings and codes.

Elhoushi et al., "DeepShift: Towards Multiplication-Less Neural Networks" (CVPRW 2021), section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from sutura.errors import ShiftError

Weights = Float[np.ndarray, "*shape"]

BITS = (2, 3, 4, 5)

SQRT_HALF = math.sqrt(0.5)
"""A mantissa in [1/2, 1) above this rounds up in the log domain; no float32 number equals it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers s * 2**p with s = -1 or +1 and p from `lowest` to 0; and 0 where `zero`.

    A code has `bits` bits: the sign above a field of bits - 1. Without zero the field is p - lowest; with
    it, 0 stands for zero (of either sign) and the field is p - lowest + 1. Raises ShiftError for bits
    outside 2 to 5.
    """

    bits: int
    zero: bool

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ShiftError(f"weights of {self.bits} bits are not offered; give 2, 3, 4 or 5")

    @property
    def lowest(self) -> int:
        """The smallest exponent: -(2**(bits-1) - 1) without zero, -(2**(bits-1) - 2) with it."""
        return self.zero + 1 - 2 ** (self.bits - 1)


def q_grid(bits: int) -> Grid:
    """The grid of DeepShift-Q: 2**bits codes, none of them zero."""
    return Grid(bits, zero=False)


def ps_grid(bits: int) -> Grid:
    """The grid of DeepShift-PS: zero takes the place of one exponent; with 2 bits it is {-1, 0, 1}."""
    return Grid(bits, zero=True)


def exponents(weight: Weights, lowest: int) -> Int64[np.ndarray, "*shape"]:
    """round(log2 |w|), clipped to [lowest, 0]: from sqrt(2) * 2**p on it is p + 1; `lowest` for zero.

    Decided exactly from mantissas: w is read as float32.
    """
    mantissa, exponent = np.frexp(np.abs(weight.astype(np.float32)).astype(np.float64))
    nearest = np.where(mantissa > SQRT_HALF, exponent, exponent - 1)
    return np.clip(np.where(mantissa == 0, lowest, nearest), lowest, 0).astype(np.int64)


def log_rounded(weight: Weights, grid: Grid) -> Float32[np.ndarray, "*shape"]:
    """sign(w) * 2**round(log2 |w|), clipped to the grid: DeepShift-Q, and DeepShift-PS from pretrained.

    Deterministic rounding. An exact zero stays zero, as published, also on a grid that has no zero.
    """
    return np.ldexp(np.sign(weight.astype(np.float32)), exponents(weight, grid.lowest).astype(np.int32))


def nearest(weight: Weights, grid: Grid) -> Float32[np.ndarray, "*shape"]:
    """The number of the grid that is nearest to each weight; of two as near the larger in size.

    The threshold between 2**p and 2**(p + 1) is 1.5 * 2**p; that to zero, where there is one, half of the
    smallest power. Without one on the grid a zero becomes the smallest power, positive.
    """
    wide = weight.astype(np.float64)
    mantissa, exponent = np.frexp(np.abs(wide))
    raised = np.where(mantissa >= 0.75, exponent, exponent - 1)
    found = np.exp2(np.clip(np.where(mantissa == 0, grid.lowest, raised), grid.lowest, 0))
    if grid.zero:
        found = np.where(np.abs(wide) < 2.0 ** (grid.lowest - 1), 0.0, found)
    return np.where(wide < 0, -found, found).astype(np.float32)


def ps_weight(
    shift: Float32[np.ndarray, "*shape"], sign: Float32[np.ndarray, "*shape"], grid: Grid
) -> Float32[np.ndarray, "*shape"]:
    """DeepShift-PS: sign(round(s)) * 2**round(clip(p)), both roundings half to even (so s = 0.5 gives 0)."""
    p = np.rint(np.clip(shift, grid.lowest, 0)).astype(np.int32)
    return np.ldexp(np.sign(np.rint(sign)).astype(np.float32), p)


def encoded(values: Weights, grid: Grid) -> UInt8[np.ndarray, "*shape"]:
    """The code of each value; raises ShiftError where one is not on the grid (counting how many)."""
    mantissa, exponent = np.frexp(np.abs(values.astype(np.float64)))
    field = exponent - 1 - grid.lowest + grid.zero
    on = (mantissa == 0.5) & (exponent - 1 >= grid.lowest) & (exponent <= 1)
    if grid.zero:
        field, on = np.where(values == 0, 0, field), on | (values == 0)
    if not on.all():
        zeros = int(np.sum(values == 0))
        what = f"{zeros} exact zeros, for which there is no code" if zeros else "other numbers"
        raise ShiftError(f"weights are not on the grid of {grid.bits} bits: {what}; ps and ours have one")
    return (field | (np.signbit(values).astype(np.int64) << (grid.bits - 1))).astype(np.uint8)


def decoded(codes: UInt8[np.ndarray, "*shape"], grid: Grid) -> Float32[np.ndarray, "*shape"]:
    """The value of each code; a zero keeps its sign."""
    top = 1 << (grid.bits - 1)
    field = (codes & (top - 1)).astype(np.int32)
    size = np.ldexp(np.float32(1), field + grid.lowest - grid.zero)
    if grid.zero:
        size = np.where(field == 0, np.float32(0), size)
    return np.where(codes & top, -size, size)
