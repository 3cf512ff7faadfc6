"""Lines that enclose an activation over an interval: below x + t0 <= y <= above x + t1 for all L <= x <= U.

The slopes are whatever float64 numbers they are; the intercepts are rounded outward, so that the lines hold
exactly. `stable` activations are a line themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sutura.certificate.layers import Clamp, Float, Leaky, Peak, Squash
from sutura.certificate.wire import Array


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Per box and neuron: slope and intercept of the lower and of the upper line."""

    below: Float
    t0: Float
    above: Float
    t1: Float


def leaky_lines(slope: float, L: Float, U: Float) -> Lines:
    """Convex: the chord above; below, the line through zero that lies closer."""
    bent = (L < 0) & (U > 0)
    width = np.where(bent, U - L, 1.0)
    chord = np.clip((U - slope * L) / width, slope, 1.0)
    above = np.where(bent, chord, np.where(L >= 0, 1.0, slope))
    top = np.maximum(slope * L - above * L, U - above * U) + (np.abs(L) + np.abs(U)) * RELATIVE
    below = np.where(bent, np.where(U > -L, 1.0, slope), above)
    zero = np.zeros_like(L)
    return Lines(below, zero, above, np.where(bent, top, zero))


def clamp_lines(low: float, high: float, L: Float, U: Float) -> Lines:
    """Identity, constant, or lines where one end is met; constants where both may be."""
    reaches_low, reaches_high = low > L, high < U
    bottom, top = np.clip(L, low, high), np.clip(U, low, high)
    chord = np.clip((top - bottom) / np.where(U > L, U - L, 1.0), 0.0, 1.0)
    chord = np.where(reaches_low | reaches_high, np.where(U > L, chord, 0.0), 1.0)
    slack = (np.abs(L) + np.abs(U) + np.abs(bottom) + np.abs(top)) * RELATIVE
    slack = np.where(reaches_low | reaches_high, slack, 0.0)
    # min(max(x, low), high) is convex up to `high` and concave from `low` on.
    above = np.where(reaches_high, 0.0, chord)
    t1 = np.where(reaches_high, top, np.maximum(bottom - chord * L, top - chord * U) + slack)
    below = np.where(reaches_low, 0.0, chord)
    t0 = np.where(reaches_low, bottom, np.minimum(bottom - chord * L, top - chord * U) - slack)
    rises = reaches_low & ~reaches_high & (U - low > low - L)
    return Lines(np.where(rises, 1.0, below), np.where(rises, 0.0, t0), above, t1)


def constant_lines(lower: Float, upper: Float) -> Lines:
    """The interval itself, for activations without a better rule."""
    zero = np.zeros_like(lower)
    return Lines(zero, lower, zero, upper)


def squash_interval(layer: Squash, L: Float, U: Float) -> tuple[Float, Float]:
    """Interval of tanh or the logistic function, widened by what runtimes are known to stray from it.

    Runtimes compute both by approximations that are neither monotone nor kept within their range; they are
    trusted to stay within 4e-7 of the exact function. Everything else in this room assumes IEEE 754 only.
    """
    if layer.tanh:
        return np.tanh(L) - STRAY, np.tanh(U) + STRAY
    return _logistic(L) - STRAY, _logistic(U) + STRAY


def clamp_interval(layer: Leaky | Clamp, L: Float, U: Float) -> tuple[Float, Float]:
    """Interval of a piecewise linear activation, exact but for the rounding of a leaky slope."""
    if isinstance(layer, Clamp):
        return np.clip(L, layer.low, layer.high), np.clip(U, layer.low, layer.high)
    stray = 2.0**-22 if 0 < layer.slope < 1 else 0.0
    lower = np.where(L >= 0, L, L * layer.slope * (1 + stray))
    return lower, np.where(U >= 0, U, U * layer.slope * (1 - stray))


def peak_interval(layer: Peak, L: Float, U: Float) -> tuple[Float, Float]:
    """Interval of a maximum over windows."""
    return L[:, layer.windows].max(axis=2), U[:, layer.windows].max(axis=2)


def bends(layer: Leaky | Clamp | Squash | Peak, L: Float, U: Float) -> Array:
    """Which neurons are not a single line over their interval, so that a tighter interval helps."""
    if isinstance(layer, Leaky):
        return (L < 0) & (U > 0)
    if isinstance(layer, Clamp):
        return ((layer.low > L) & (layer.low < U)) | ((layer.high > L) & (layer.high < U))
    return np.ones(L.shape, dtype=bool)


def _logistic(x: Float) -> Float:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


RELATIVE = 2.0**-49
STRAY = 4e-7 + 1e-12  # the second part is for the float64 functions used here
