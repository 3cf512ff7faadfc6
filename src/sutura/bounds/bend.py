"""What an activation does to coefficients on their way back: each takes the line on its safe side."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from sutura.bounds.interval import dot
from sutura.bounds.program import MaxOf
from sutura.bounds.relaxation import Lines

Array = Float64[np.ndarray, "batch n"]
Rows = Float64[np.ndarray, "batch rows n"]
Column = Float64[np.ndarray, "batch rows"]


def through_lines(a: Rows, lines: Lines) -> tuple[Rows, Column]:
    """Coefficients of the source, and a constant: a . f(x) >= passed . x + offset on the lines' interval."""
    positive = np.maximum(a, 0.0)
    negative = a - positive
    offset = dot(negative, lines.upper_offset)
    if lines.lower_offset is not None:
        offset = offset + dot(positive, lines.lower_offset)
    positive *= lines.lower_slope[:, None, :]
    negative *= lines.upper_slope[:, None, :]
    positive += negative
    return positive, offset


def through_maximum(a: Rows, layer: MaxOf, low: Array, high: Array) -> tuple[Rows, Column]:
    """max >= its entry of best lower bound; max <= that entry where it beats all others, else the high."""
    positive = np.maximum(a, 0.0)
    negative = a - positive
    lows, highs = low[:, layer.windows], high[:, layer.windows]
    best = lows.argmax(axis=2)[..., None]
    entry = np.take_along_axis(np.broadcast_to(layer.windows, lows.shape), best, axis=2)
    other = np.where(layer.windows[None] == entry, -np.inf, highs).max(axis=2)
    wins = (np.take_along_axis(lows, best, axis=2)[..., 0] >= other)[:, None, :]
    kept = positive + np.where(wins, negative, 0.0)
    offset = dot(np.where(wins, 0.0, negative), highs.max(axis=2))
    size = low.shape[1]
    line = np.arange(kept.shape[0] * kept.shape[1]).reshape(*kept.shape[:2], 1) * size
    flat = entry[:, None, :, 0] + line
    summed = np.bincount(flat.reshape(-1), weights=kept.reshape(-1), minlength=line.size * size)
    return summed.reshape(*kept.shape[:2], size), offset
