"""Relaxations with free slopes: between which slopes the two lines of a neuron may be chosen, and where a
line of a given slope must lie.

The float32 forms guide the search; `sound_lines` gives, for the slopes that it chose, lines that hold for
every float32 execution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from sutura.bounds.relaxation import CURVE_ERROR, LINES, Lines, leaky_relu, relu
from sutura.network.ops import LeakyRelu, Relu, Sigmoid, Tanh

Array = Float[np.ndarray, "batch n"]
Wide = Float64[np.ndarray, "batch n"]


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """Slopes a line may have, least to most, and its offset where that does not depend on the slope."""

    least: Array
    most: Array
    offset: Array

    def slope(self, share: Array) -> Array:
        """The slope that lies `share` (0 to 1) of the way."""
        return self.least + share * (self.most - self.least)


def relu_ranges(low: Array, high: Array, _: Relu) -> tuple[Range, Range]:
    """Lower lines through zero with any slope of [0, 1]; above, the chord."""
    on, off = low >= 0, high <= 0
    width = np.where(on | off, 1, high - low)
    chord = np.where(on, 1, np.where(off, 0, high / width)).astype(low.dtype)
    offset = np.where(on | off, 0, -chord * low).astype(low.dtype)
    zero = np.zeros_like(chord)
    return Range(on.astype(low.dtype), (~off).astype(low.dtype), zero), Range(chord, chord, offset)


def leaky_ranges(low: Array, high: Array, op: LeakyRelu) -> tuple[Range, Range]:
    """The pieces' slopes on the one side, the chord on the other."""
    on, off = low >= 0, high <= 0
    width = np.where(on | off, 1, high - low)
    chord = np.where(on, 1, np.where(off, op.slope, (high - op.slope * low) / width)).astype(low.dtype)
    offset = np.where(on | off, 0, high - chord * high).astype(low.dtype)
    ends = np.where(off, op.slope, 1).astype(low.dtype), np.where(on, 1, op.slope).astype(low.dtype)
    free = Range(np.minimum(*ends), np.maximum(*ends), np.zeros_like(chord))
    bent = Range(chord, chord, offset)
    return (free, bent) if op.slope <= 1 else (bent, free)


def curve_ranges(low: Array, high: Array, op: Sigmoid | Tanh) -> tuple[Range, Range]:
    """Any slope that the curve has on [low, high], for both lines."""
    slope = CURVES[type(op)].slope
    ends = slope(low), slope(high)
    nearest = np.clip(np.zeros_like(low), low, high)
    least, most = np.minimum(*ends).astype(low.dtype), slope(nearest).astype(low.dtype)
    both = Range(least, most, np.zeros_like(low))
    return both, both


def fixed_ranges(low: Array, high: Array, op: Any) -> tuple[Range, Range]:
    """The lines that plain CROWN takes: nothing to choose."""
    wide = LINES[type(op)](low.astype(np.float64), high.astype(np.float64), op)
    below = np.zeros_like(low) if wide.lower_offset is None else wide.lower_offset.astype(low.dtype)
    slopes = wide.lower_slope.astype(low.dtype), wide.upper_slope.astype(low.dtype)
    above = wide.upper_offset.astype(low.dtype)
    return Range(slopes[0], slopes[0], below), Range(slopes[1], slopes[1], above)


@dataclass(frozen=True, slots=True)
class Curve:
    """An S-shaped curve, convex below zero: its value, its slope, the point below zero of a given slope."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    point: Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _sigmoid_slope(x: Array) -> Array:
    y = _sigmoid(-abs(x))
    return y * (1.0 - y)


def _sigmoid_point(slope: Array) -> Array:
    slope = np.minimum(slope, 0.25)
    y = 2.0 * slope / (1.0 + np.sqrt(1.0 - 4.0 * slope))
    return np.log(y / (1.0 - y))


def _tanh_slope(x: Array) -> Array:
    return 4.0 * _sigmoid_slope(2.0 * x)


def _tanh_point(slope: Array) -> Array:
    return 0.5 * _sigmoid_point(0.25 * slope)


CURVES: Mapping[type, Curve] = {
    Sigmoid: Curve(_sigmoid, _sigmoid_slope, _sigmoid_point),
    Tanh: Curve(np.tanh, _tanh_slope, _tanh_point),
}


def support(curve: Curve, slope: Array, low: Array, high: Array, sign: float) -> tuple[Array, Array]:
    """Offset and point of contact of the line of a slope that lies below the curve on [low, high].

    With sign -1 the line above, by the curve's symmetry: f(-x) = constant - f(x). The line touches at an end
    or where the curve has its slope on the convex side: value - slope x has no other minimum.
    """
    touch = np.clip(sign * curve.point(np.maximum(slope, 1e-30)), low, high)
    gap = sign * (curve.value(touch) - slope * touch)
    for end in (low, high):
        other = sign * (curve.value(end) - slope * end)
        touch = np.where(other < gap, end, touch)
        gap = np.minimum(gap, other)
    return sign * gap, touch


def sound_lines(op: Any, low: Wide, high: Wide, lower_slope: Wide, upper_slope: Wide) -> Lines:
    """Lines of the given slopes around the executed activation on [low, high]; sound for float32 execution.

    Slopes that are not free (see RANGES) are not looked at.
    """
    if isinstance(op, Relu):
        return _with_lower(relu(low, high, op), low, high, np.clip(lower_slope, 0.0, 1.0))
    if isinstance(op, LeakyRelu):
        plain = leaky_relu(low, high, op)
        if op.slope > 1.0:
            upper = np.clip(upper_slope, 1.0, op.slope)
            open_ = (low < 0) & (high > 0)
            return Lines(
                plain.lower_slope,
                plain.lower_offset,
                np.where(open_, upper, plain.upper_slope),
                plain.upper_offset,
            )
        return _with_lower(plain, low, high, np.clip(lower_slope, op.slope, 1.0))
    if type(op) in CURVES:
        curve = CURVES[type(op)]
        reach = 1e-12 * (1.0 + np.maximum(abs(low), abs(high))) + CURVE_ERROR
        slopes = np.clip(lower_slope, 0.0, 1.0), np.clip(upper_slope, 0.0, 1.0)
        below, _ = support(curve, slopes[0], low, high, 1.0)
        above, _ = support(curve, slopes[1], low, high, -1.0)
        return Lines(slopes[0], below - reach, slopes[1], above + reach)
    return LINES[type(op)](low, high, op)


def _with_lower(plain: Lines, low: Wide, high: Wide, slope: Wide) -> Lines:
    open_ = (low < 0) & (high > 0)
    return Lines(
        np.where(open_, slope, plain.lower_slope), plain.lower_offset, plain.upper_slope, plain.upper_offset
    )


FIXED = fixed_ranges
RANGES: Mapping[type, Callable[[Array, Array, Any], tuple[Range, Range]]] = {
    Relu: relu_ranges,
    LeakyRelu: leaky_ranges,
    Sigmoid: curve_ranges,
    Tanh: curve_ranges,
}
"""Activations with free slopes -> their ranges; FIXED for all others."""
