"""Linear relaxations: for each activation two lines around it on [low, high], and its range there.

Sound for float32 execution: lines are moved outward by what the runtime's operator may err.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from sutura.bounds.rounding import FLOAT32_ANY_ORDER, OVERFLOW_GUARD, SMALLEST_NORMAL32
from sutura.network.ops import Exp, LeakyRelu, Reciprocal, Relu, Sigmoid, Square, Tanh

CURVE_ERROR = 4e-7
"""Absolute error that a runtime's Sigmoid and Tanh may have on any float32 input: an assumption."""

EXP_ERROR = 2.0**-21
"""Relative error that a runtime's Exp may have on any float32 input: an assumption."""

UNDERFLOW64 = 2.0**-1060

Array = Float64[np.ndarray, "batch n"]


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """lower_slope * x + lower_offset <= f(x) <= upper_slope * x + upper_offset on [low, high]; None: 0."""

    lower_slope: Array
    lower_offset: Array | None
    upper_slope: Array
    upper_offset: Array

    def take(self, rows: Int64[np.ndarray, " k"]) -> Lines:
        """Those of some boxes of the batch."""
        offset = None if self.lower_offset is None else self.lower_offset[rows]
        return Lines(self.lower_slope[rows], offset, self.upper_slope[rows], self.upper_offset[rows])


def _up(x: Array, size: Array) -> Array:
    """Covers the roundings of a difference of terms that are no larger than `size`, and this sum's own."""
    return x + (UNDERFLOW64 + 2.0**-50 * size)


def relu(low: Array, high: Array, _: Relu) -> Lines:
    """Any chord slope in [0, 1] is sound once its offset is max(-s low, (1 - s) high), rounded up."""
    unstable = (low < 0) & (high > 0)
    slope = np.where(low >= 0, 1.0, 0.0)
    width = np.where(unstable, high - low, 1.0)
    chord = np.where(unstable, np.clip(high / width, 0.0, 1.0), slope)
    offset = np.where(unstable, _up(np.maximum(-chord * low, high - chord * high), high), 0.0)
    return Lines(np.where(unstable, (high > -low).astype(np.float64), slope), None, chord, offset)


def leaky_relu(low: Array, high: Array, op: LeakyRelu) -> Lines:
    """Convex for slope <= 1 (max(x, slope x)), concave above: the chord bounds a side, a piece the other."""
    unstable = (low < 0) & (high > 0)
    piece = np.where(low >= 0, 1.0, op.slope)
    width = np.where(unstable, high - low, 1.0)
    at_low, at_high = op.slope * low, high
    size = max(1.0, abs(op.slope)) * np.maximum(abs(low), abs(high))
    chord = np.where(unstable, (at_high - at_low) / width, piece)
    easy = np.where(unstable, np.where(high > -low, 1.0, op.slope), piece)
    error = _product_error(low, op)
    if op.slope <= 1.0:
        gap = np.maximum(at_low - chord * low, at_high - chord * high)
        return Lines(easy, -error, chord, np.where(unstable, _up(gap, size), 0.0) + error)
    gap = np.minimum(at_low - chord * low, at_high - chord * high)
    return Lines(chord, np.where(unstable, -_up(-gap, size), 0.0) - error, easy, error)


def _product_error(low: Array, op: LeakyRelu) -> Array:
    """What the runtime's product of slope and a negative input may err."""
    return FLOAT32_ANY_ORDER.unit * 1.001 * abs(op.slope) * np.maximum(-low, 0.0) + SMALLEST_NORMAL32


def sigmoid(low: Array, high: Array, _: Sigmoid) -> Lines:
    """Parallel or chord lines of an S-shaped curve (Singh et al. 2019), moved out by the operator's error."""
    return _s_curve(low, high, lambda x: 0.5 * (1.0 + np.tanh(0.5 * x)), lambda y: y * (1.0 - y))


def tanh(low: Array, high: Array, _: Tanh) -> Lines:
    """As for the sigmoid."""
    return _s_curve(low, high, np.tanh, lambda y: 1.0 - y * y)


def _s_curve(
    low: Array, high: Array, curve: Callable[[Array], Array], slope: Callable[[Array], Array]
) -> Lines:
    at_low, at_high = curve(low), curve(high)
    steep = np.minimum(slope(at_low), slope(at_high))
    width = high - low
    chord = np.where(width > 1e-6, (at_high - at_low) / np.where(width > 1e-6, width, 1.0), steep)
    lower_slope = np.clip(np.where(high <= 0, steep, np.where(low >= 0, chord, steep)), 0.0, 1.0)
    upper_slope = np.clip(np.where(low >= 0, steep, np.where(high <= 0, chord, steep)), 0.0, 1.0)
    reach = 1e-13 * (1.0 + np.maximum(abs(low), abs(high)))
    lower = np.minimum(at_low - lower_slope * low, at_high - lower_slope * high) - reach - CURVE_ERROR
    upper = np.maximum(at_low - upper_slope * low, at_high - upper_slope * high) + reach + CURVE_ERROR
    return Lines(lower_slope, lower, upper_slope, upper)


def square(low: Array, high: Array, _: Square) -> Lines:
    """The chord above, the tangent at the middle below; min of x^2 - t x is -t^2 / 4 for any slope t."""
    slope, size = low + high, np.maximum(low * low, high * high)
    error = _rounded_once(size)
    above = np.maximum(low * low - slope * low, high * high - slope * high)
    upper = np.where(size < OVERFLOW_GUARD, _up(above, 4.0 * size) + error, np.inf)
    return Lines(slope, -_up(slope * slope / 4.0, 4.0 * size) - error, slope, upper)


def reciprocal(low: Array, high: Array, _: Reciprocal) -> Lines:
    """On one side of zero parallel lines: the chord, and the tangent of its slope; nothing elsewhere.

    On the positive side the minimum of 1/x - s x is 2 sqrt(-s) for any s < 0; the negative side mirrors it.
    """
    sided, near, far = _sided(low, high)
    slope = np.where(sided, -1.0 / (near * far), 0.0)
    chord = np.maximum(1.0 / near - slope * near, 1.0 / far - slope * far)
    error = _rounded_once(1.0 / near)
    upper = np.where(1.0 / near < OVERFLOW_GUARD, _up(chord, 8.0 / near) + error, np.inf)
    lower = -_up(-2.0 * np.sqrt(-slope), 8.0 / near) - error
    ends = np.where(low > 0, lower, -upper), np.where(low > 0, upper, -lower)
    return Lines(slope, np.where(sided, ends[0], -np.inf), slope, np.where(sided, ends[1], np.inf))


def _sided(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Where no number is zero or near enough to be taken for it, and the distances of the ends (else 1)."""
    sided = (low >= SMALLEST_NORMAL32) | (high <= -SMALLEST_NORMAL32)
    near, far = np.minimum(abs(low), abs(high)), np.maximum(abs(low), abs(high))
    return sided, np.where(sided, near, 1.0), np.where(sided, far, 1.0)


def _rounded_once(size: Array) -> Array:
    """What one correctly rounded operation may err on results up to `size`, flushed to zero or not."""
    return FLOAT32_ANY_ORDER.unit * 1.001 * size + SMALLEST_NORMAL32


def exp(low: Array, high: Array, _: Exp) -> Lines:
    """The chord above, the tangent at the middle below; min of e^x - t x is t (1 - ln t) for any t > 0."""
    at_low, at_high = np.exp(low), np.exp(high)
    width = high - low
    slope = np.where(width > 1e-6, (at_high - at_low) / np.where(width > 1e-6, width, 1.0), at_low)
    reach = 1e-13 * (at_high + slope * np.maximum(abs(low), abs(high)))
    error = EXP_ERROR * at_high + SMALLEST_NORMAL32
    above = np.maximum(at_low - slope * low, at_high - slope * high) + reach + error
    middle = (low + high) / 2.0
    tangent = np.exp(middle)
    below = np.where(tangent > 0, tangent * (1.0 - np.log(np.where(tangent > 0, tangent, 1.0))), 0.0)
    below = below - 1e-13 * tangent * (1.0 + abs(middle)) - error
    return Lines(tangent, below, slope, np.where(at_high < OVERFLOW_GUARD, above, np.inf))


def square_range(low: Array, high: Array, _: Square) -> tuple[Array, Array]:
    """Ends, and zero where the sign changes; a square is never negative."""
    least, most = np.minimum(low * low, high * high), np.maximum(low * low, high * high)
    least = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(least, OVERFLOW_GUARD))
    upper = np.where(most < OVERFLOW_GUARD, most + 1.0001 * _rounded_once(most), np.inf)
    return _promised(low, high, np.maximum(0.0, least - 1.0001 * _rounded_once(least)), upper)


def reciprocal_range(low: Array, high: Array, _: Reciprocal) -> tuple[Array, Array]:
    """Ends, on one side of zero; everything elsewhere."""
    sided, near, far = _sided(low, high)
    most = 1.0 / near
    upper = np.where(most < OVERFLOW_GUARD, most + 1.0001 * _rounded_once(most), np.inf)
    least = np.maximum(0.0, 1.0 / far - 1.0001 * _rounded_once(1.0 / far))
    ends = np.where(low > 0, least, -upper), np.where(low > 0, upper, -least)
    return np.where(sided, ends[0], -np.inf), np.where(sided, ends[1], np.inf)


def exp_range(low: Array, high: Array, _: Exp) -> tuple[Array, Array]:
    """Ends, never negative."""
    least, most = np.minimum(np.exp(low), OVERFLOW_GUARD), np.exp(high)
    upper = np.where(most < OVERFLOW_GUARD, most + 1.001 * EXP_ERROR * most + SMALLEST_NORMAL32, np.inf)
    return _promised(low, high, np.maximum(0.0, least - 1.001 * EXP_ERROR * least - SMALLEST_NORMAL32), upper)


def _promised(low: Array, high: Array, least: Array, most: Array) -> tuple[Array, Array]:
    """Nothing is promised of what may be not-a-number: where nothing is known of the input."""
    lost = np.isinf(low) & np.isinf(high) & (low < high)
    return np.where(lost, -np.inf, least), np.where(lost, np.inf, most)


def relu_range(low: Array, high: Array, _: Relu) -> tuple[Array, Array]:
    """Exact."""
    return np.maximum(low, 0.0), np.maximum(high, 0.0)


def leaky_range(low: Array, high: Array, op: LeakyRelu) -> tuple[Array, Array]:
    """Ends, and zero where the sign changes; one rounding of the product."""
    ends = [np.where(x >= 0, x, op.slope * x) for x in (low, high)]
    kink = np.where((low < 0) & (high > 0), 0.0, ends[0])
    error = _product_error(low, op)
    return np.minimum.reduce([*ends, kink]) - error, np.maximum.reduce([*ends, kink]) + error


def _curve_range(curve: Callable[[Array], Array]) -> Callable[[Array, Array, Any], tuple[Array, Array]]:
    def span(low: Array, high: Array, _: Any) -> tuple[Array, Array]:
        return curve(low) - CURVE_ERROR - 1e-15, curve(high) + CURVE_ERROR + 1e-15

    return span


LINES: Mapping[type, Callable[[Array, Array, Any], Lines]] = {
    Relu: relu,
    LeakyRelu: leaky_relu,
    Sigmoid: sigmoid,
    Tanh: tanh,
    Square: square,
    Reciprocal: reciprocal,
    Exp: exp,
}

RANGES: Mapping[type, Callable[[Array, Array, Any], tuple[Array, Array]]] = {
    Relu: relu_range,
    LeakyRelu: leaky_range,
    Sigmoid: _curve_range(lambda x: 0.5 * (1.0 + np.tanh(0.5 * x))),
    Tanh: _curve_range(np.tanh),
    Square: square_range,
    Reciprocal: reciprocal_range,
    Exp: exp_range,
}

PIECEWISE_LINEAR = (Relu, LeakyRelu)
"""Activations that are a line where the sign of the input is known."""
