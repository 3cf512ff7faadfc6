"""Forward interval bounds, and the execution error of an affine layer. Sound for float32 execution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from sutura.bounds.program import Affine, Elementwise, MaxOf, Program
from sutura.bounds.relaxation import RANGES
from sutura.bounds.rounding import OVERFLOW_GUARD, SLACK, SMALLEST_NORMAL32, UNIT64, Profile, gamma

Array = Float64[np.ndarray, "batch n"]
Rows = Float64[np.ndarray, "batch rows n"]
Column = Float64[np.ndarray, "batch rows"]


def terms(program: Program) -> int:
    """Roundings that any float64 sum of the bound computation passes through, with room to spare."""
    return 4 * max(program.sizes) + 4 * len(program.layers) + 32


def execution_error(layer: Affine, magnitudes: Sequence[Array], count: int, profile: Profile) -> Array:
    """|executed - real| of each entry, plus what float64 may lose when the layer is bounded backward.

    Formula (3) of the noise-injected backward pass: (gamma_float32 + gamma_float64) v + underflow;
    infinite where a partial sum could overflow float32.
    """
    parts = (m @ w.T for m, w in zip(magnitudes, layer.absolute, strict=True))
    v = sum(parts, layer.absolute_bias[None, :])
    relative = gamma(layer.roundings, profile.unit) + gamma(count, UNIT64)
    tiny = layer.flush * SMALLEST_NORMAL32 if profile.unit else 0.0
    return np.where(layer.peak * v * (1.0 + relative) < OVERFLOW_GUARD, relative * v + tiny, np.inf)


def affine(layer: Affine, lows: Sequence[Array], highs: Sequence[Array], error: Array) -> tuple[Array, Array]:
    """Interval arithmetic through a matrix, as centre and radius; unbounded where the error is."""
    low = high = layer.bias[None, :]
    for lo, hi, weight, absolute in zip(lows, highs, layer.weights, layer.absolute, strict=True):
        centre, radius = ((lo + hi) / 2.0) @ weight.T, ((hi - lo) / 2.0) @ absolute.T
        low, high = low + (centre - radius), high + (centre + radius)
    known = np.isfinite(error)
    return np.where(known, low - SLACK * error, -np.inf), np.where(known, high + SLACK * error, np.inf)


def activation(layer: Elementwise | MaxOf, low: Array, high: Array) -> tuple[Array, Array]:
    """Range of an activation over intervals."""
    if isinstance(layer, MaxOf):
        return low[:, layer.windows].max(axis=2), high[:, layer.windows].max(axis=2)
    return RANGES[type(layer.op)](low, high, layer.op)


def magnitude(low: Array, high: Array) -> Array:
    """Largest absolute value of each entry."""
    return np.maximum(abs(low), abs(high))


def dot(rows: Rows, vector: Array) -> Column:
    """rows . vector for each box and row."""
    return (rows @ vector[:, :, None])[:, :, 0]


def least(rows: Rows, low: Array, high: Array) -> Column:
    """Least of rows . x over low <= x <= high, up to float64 rounding (see `charged`)."""
    positive = np.maximum(rows, 0.0)
    return dot(positive, low) + dot(rows - positive, high)


def charged(program: Program, rows: Rows, size: Array) -> Column:
    """What float64 may lose in rows . x where |x| <= size."""
    return gamma(terms(program), UNIT64) * dot(abs(rows), size)
