"""How steep an activation is: f(a) - f(b) = s (a - b) with s in [least, most], for a and b in a range.

Sound for float32 execution: what the runtime's operator may err at a and at b is told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from sutura.bounds.relaxation import CURVE_ERROR, EXP_ERROR
from sutura.bounds.rounding import FLOAT32_ANY_ORDER, OVERFLOW_GUARD, SMALLEST_NORMAL32
from sutura.network.ops import Exp, LeakyRelu, Reciprocal, Relu, Sigmoid, Square, Tanh

Array = Float64[np.ndarray, "batch n"]

WIDER = 1e-9
"""Relative room for the float64 error of a slope that is computed."""


@dataclass(frozen=True, slots=True, eq=False)
class Secants:
    """least <= (f(a) - f(b) - e) / (a - b) <= most, with |e| <= error."""

    least: Array
    most: Array
    error: Array


@dataclass(frozen=True, slots=True, eq=False)
class Chords:
    """lower_slope * d + lower_offset <= f(a) - f(b) <= upper_slope * d + upper_offset for d = a - b."""

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array


def chords(secants: Secants, low: Array, high: Array) -> Chords:
    """Lines around the difference of two activations whose inputs differ by d in [low, high].

    s d = least d + (s - least) d lies between least d + (most - least) min(d, 0) and the same with max(d, 0);
    the chord of max(d, 0) on [low, high] makes both linear.
    """
    mixed = (low < 0) & (high > 0)
    width = np.where(mixed, high - low, 1.0)
    share = np.where(mixed, np.clip(high / width, 0.0, 1.0), (low >= 0).astype(np.float64))
    gap = np.where(mixed, np.maximum(-share * low, (1.0 - share) * high), 0.0)
    spread = secants.most - secants.least
    size = (abs(secants.least) + abs(secants.most)) * np.maximum(abs(low), abs(high))
    offset = spread * gap + secants.error + 2.0**-48 * size + 2.0**-1060
    return Chords(secants.least + spread * (1.0 - share), -offset, secants.least + spread * share, offset)


def reach(lines: Chords, low: Array, high: Array) -> tuple[Array, Array]:
    """Bounds of what the lines enclose for d in [low, high]."""
    least = np.minimum(lines.lower_slope * low, lines.lower_slope * high) + lines.lower_offset
    most = np.maximum(lines.upper_slope * low, lines.upper_slope * high) + lines.upper_offset
    room = 2.0**-48 * (abs(lines.lower_slope) + abs(lines.upper_slope)) * np.maximum(abs(low), abs(high))
    return least - room - 2.0**-50 * abs(lines.lower_offset), most + room + 2.0**-50 * abs(lines.upper_offset)


def _relu(low: Array, high: Array, _: Relu) -> Secants:
    return Secants((low >= 0).astype(np.float64), (high > 0).astype(np.float64), np.zeros_like(low))


def _leaky_relu(low: Array, high: Array, op: LeakyRelu) -> Secants:
    left, right = np.where(low >= 0, 1.0, op.slope), np.where(high > 0, 1.0, op.slope)
    product = abs(op.slope) * np.maximum(-low, 0.0) * FLOAT32_ANY_ORDER.unit + SMALLEST_NORMAL32
    return Secants(np.minimum(left, right), np.maximum(left, right), 2.001 * product)


def _sigmoid(low: Array, high: Array, _: Sigmoid) -> Secants:
    def slope(x: Array) -> Array:
        return 0.25 / np.cosh(np.minimum(abs(x) / 2.0, 300.0)) ** 2

    return _bell(low, high, slope)


def _tanh(low: Array, high: Array, _: Tanh) -> Secants:
    return _bell(low, high, lambda x: 1.0 / np.cosh(np.minimum(abs(x), 300.0)) ** 2)


def _bell(low: Array, high: Array, slope: Callable[[Array], Array]) -> Secants:
    """A slope that is largest at zero and falls away from it."""
    nearest = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(abs(low), abs(high)))
    farthest = np.maximum(abs(low), abs(high))
    error = np.full_like(low, 2.001 * CURVE_ERROR)
    return Secants(slope(farthest) * (1.0 - WIDER), slope(nearest) * (1.0 + WIDER), error)


def _square(low: Array, high: Array, _: Square) -> Secants:
    size = np.maximum(low * low, high * high)
    error = 2.001 * FLOAT32_ANY_ORDER.unit * size + 2.0 * SMALLEST_NORMAL32
    return Secants(2.0 * low, 2.0 * high, np.where(size < OVERFLOW_GUARD, error, np.inf))


def _exp(low: Array, high: Array, _: Exp) -> Secants:
    with np.errstate(over="ignore"):
        least, most = np.exp(low), np.exp(high)
    error = np.where(most < OVERFLOW_GUARD, 2.001 * EXP_ERROR * most + 2.0 * SMALLEST_NORMAL32, np.inf)
    most = np.where(most < OVERFLOW_GUARD, most * (1.0 + WIDER), 0.0)
    return Secants(np.minimum(least * (1.0 - WIDER), most), most, error)


def _reciprocal(low: Array, high: Array, _: Reciprocal) -> Secants:
    """On one side of zero, and not too near; nothing is known elsewhere."""
    near = np.where((low > 0) | (high < 0), np.minimum(abs(low), abs(high)), 0.0)
    sided = near >= OVERFLOW_GUARD**-0.5
    safe = np.where(sided, near, 1.0)
    far = np.where(sided, np.maximum(abs(low), abs(high)), 1.0)
    error = np.where(sided, 2.001 * FLOAT32_ANY_ORDER.unit / safe + 2.0 * SMALLEST_NORMAL32, np.inf)
    steep, flat = -(1.0 + WIDER) / (safe * safe), -(1.0 - WIDER) / (far * far)
    return Secants(np.where(sided, steep, 0.0), np.where(sided, flat, 0.0), error)


SECANTS: Mapping[type, Callable[[Array, Array, Any], Secants]] = {
    Relu: _relu,
    LeakyRelu: _leaky_relu,
    Sigmoid: _sigmoid,
    Tanh: _tanh,
    Square: _square,
    Exp: _exp,
    Reciprocal: _reciprocal,
}
"""Activation -> its slopes over [low, high]."""
