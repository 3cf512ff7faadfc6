"""Certified local Lipschitz bounds: interval gradients over a ball, and the largest ball they keep safe.

r = max { d : s(x0) >= Q(B(x0, d)) d } with Q an upper bound of the slope of s in the ball. Beside CROWN it is
usually looser; it is the sound form of what DeepQuant and CLEVER estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import issparse

from sutura.bounds.crown import Bounds, Checkpoint, crown
from sutura.bounds.program import Affine, Elementwise, MaxOf, Program
from sutura.bounds.program import run as run_program
from sutura.bounds.relaxation import CURVE_ERROR
from sutura.errors import NetworkError
from sutura.network.ops import LeakyRelu, Relu, Sigmoid, Tanh
from sutura.risk.ball import Column, Domain, Norm, Points, dual_length, regions
from sutura.risk.certify import Shown
from sutura.risk.safety import Claim
from sutura.verdict.deadline import OutOfTimeError

ROUNDED_UP = 1.0 + 2.0**-20
"""Covers float64 rounding of interval gradients, relative to their magnitudes."""

Array = Float64[np.ndarray, "batch n"]
Rows = Float64[np.ndarray, "batch rows n"]
Span = tuple[Array, Array]


def shown_by_slopes(
    program: Program, ball: tuple[Domain, Norm, Points], claim: Claim, checkpoint: Checkpoint
) -> Shown:
    """Whether the slope bound shows a claim: rows @ y0 - Q d - rounding > bound. Sound for float32 execution.

    Raises NetworkError for an activation without a slope bound.
    """
    limits, norm, centre = ball
    _check_slopes(program)
    with np.errstate(all="ignore"):
        at_centre = run_program(program, centre)[-1]

    def shown(at: np.ndarray, radius: Column) -> np.ndarray:
        asked = claim.take(at)
        region = regions(limits, norm, centre[at], radius)
        with np.errstate(all="ignore"):
            try:
                bounds = crown(program, region, checkpoint=checkpoint)
            except OutOfTimeError:
                return np.zeros(len(at), dtype=np.bool_)
            steep, error = slope_bound(program, bounds, asked.rows)
            fall = dual_length(limits, norm, steep) * radius[:, None]
            value = np.einsum("bkm,bm->bk", asked.rows, at_centre[at])
            size = np.einsum("bkm,bm->bk", abs(asked.rows), abs(at_centre[at]))
            # One error for the execution, one for `at_centre`, which is an execution in float64.
            return asked.shown(value - ROUNDED_UP * (fall + 2.0 * error) - 1e-12 * size)

    return shown


def slope_bound(
    program: Program, bounds: Bounds, rows: Rows
) -> tuple[Rows, Float64[np.ndarray, "batch rows"]]:
    """|d(rows @ output) / d x| of each input at most, and |executed - real| of rows @ output at most.

    The execution error enters where it arises, times the slope from there on (mean value theorem).
    """
    at_output = len(program.layers)
    flowing: dict[int, tuple[Rows, Rows]] = {at_output: (rows, rows)}
    error = np.zeros(rows.shape[:2])
    for at in range(at_output, 0, -1):
        if at not in flowing:
            continue
        low, high = flowing.pop(at)
        layer, size = program.layers[at - 1], np.maximum(abs(low), abs(high))
        if isinstance(layer, Affine):
            own = bounds.errors[at]
            assert own is not None
            error = error + np.einsum("brn,bn->br", size, own)
            for source, weight in zip(layer.sources, layer.weights, strict=True):
                _accumulate(flowing, source, _through_matrix(low, high, weight))
            continue
        if isinstance(layer, MaxOf):
            _accumulate(flowing, layer.source, _through_max(layer, low, high, bounds))
            continue
        if isinstance(layer.op, Sigmoid | Tanh):
            error = error + CURVE_ERROR * size.sum(axis=2)
        if isinstance(layer.op, LeakyRelu):
            z = np.maximum(abs(bounds.low[layer.source]), abs(bounds.high[layer.source]))
            error = error + 2.0**-23 * abs(layer.op.slope) * np.einsum("brn,bn->br", size, z)
        least, most = SLOPES[type(layer.op)](bounds.low[layer.source], bounds.high[layer.source], layer.op)
        ends = [end * s[:, None] for end in (low, high) for s in (least, most)]
        _accumulate(flowing, layer.source, (np.minimum.reduce(ends), np.maximum.reduce(ends)))
    if 0 not in flowing:
        return np.zeros((*rows.shape[:2], program.inputs)), error
    low, high = flowing[0]
    return np.maximum(abs(low), abs(high)), error


def _through_matrix(low: Rows, high: Rows, weight: Any) -> tuple[Rows, Rows]:
    flat = [(v.reshape(-1, v.shape[2])) for v in ((low + high) / 2.0, (high - low) / 2.0)]
    size = abs(weight)
    centre, radius = flat[0] @ weight, flat[1] @ size
    # Rounding of the products, relative to the magnitudes that went in.
    radius = radius * ROUNDED_UP + 2.0**-40 * (abs(flat[0]) @ size)
    shape = (*low.shape[:2], weight.shape[1])
    assert not issparse(centre)
    return (centre - radius).reshape(shape), (centre + radius).reshape(shape)


def _through_max(layer: MaxOf, low: Rows, high: Rows, bounds: Bounds) -> tuple[Rows, Rows]:
    """An entry that may win its window passes a share between 0 and 1, one that surely wins all."""
    below, above = bounds.low[layer.source], bounds.high[layer.source]
    entry_low, entry_high = below[:, layer.windows], above[:, layer.windows]
    least, most = np.zeros((*low.shape[:2], below.shape[1])), np.zeros((*low.shape[:2], below.shape[1]))
    for k in range(layer.windows.shape[1]):
        entry = layer.windows[:, k]
        same = layer.windows[None] == entry[None, :, None]
        others_high = np.where(same, -np.inf, entry_high).max(axis=2)
        others_low = np.where(same, -np.inf, entry_low).max(axis=2)
        first = ~(layer.windows[:, :k] == entry[:, None]).any(axis=1)
        wins = ((below[:, entry] > others_high) & first)[:, None]
        may = ((above[:, entry] >= others_low) & first)[:, None]
        share = np.where(wins, low, np.where(may, np.minimum(low, 0.0), 0.0))
        _add_at(least, entry, share)
        _add_at(most, entry, np.where(wins, high, np.where(may, np.maximum(high, 0.0), 0.0)))
    return least, most


def _add_at(total: Rows, entry: Int64[np.ndarray, " n"], part: Rows) -> None:
    """total[..., entry] += part, where entries may repeat."""
    np.add.at(np.moveaxis(total, -1, 0), entry, np.moveaxis(part, -1, 0))


def _accumulate(flowing: dict[int, tuple[Rows, Rows]], source: int, part: tuple[Rows, Rows]) -> None:
    if source in flowing:
        part = flowing[source][0] + part[0], flowing[source][1] + part[1]
    flowing[source] = part


def _check_slopes(program: Program) -> None:
    for layer in program.layers:
        if isinstance(layer, Elementwise) and type(layer.op) not in SLOPES:
            raise NetworkError(
                f"{type(layer.op).__name__} has no slope bound; those with one are "
                f"{', '.join(sorted(kind.__name__ for kind in SLOPES))}: use --bounds crown"
            )


def _relu(low: Array, high: Array, _: Relu) -> Span:
    return (low > 0).astype(np.float64), (high >= 0).astype(np.float64)


def _leaky(low: Array, high: Array, op: LeakyRelu) -> Span:
    ends = np.where(low > 0, 1.0, op.slope), np.where(high >= 0, 1.0, op.slope)
    return np.minimum(*ends), np.maximum(*ends)


def _curve(slope: Callable[[Array], Array]) -> Callable[[Array, Array, Any], Span]:
    def span(low: Array, high: Array, _: Any) -> Span:
        nearest = np.clip(np.zeros_like(low), low, high)
        return np.minimum(slope(low), slope(high)) * (1 - 1e-9) - 1e-15, slope(nearest) * (1 + 1e-9) + 1e-15

    return span


def _sigmoid_slope(x: Array) -> Array:
    y = 0.5 * (1.0 + np.tanh(-0.5 * abs(x)))
    return y * (1.0 - y)


SLOPES: Mapping[type, Callable[[Array, Array, Any], Span]] = {
    Relu: _relu,
    LeakyRelu: _leaky,
    Sigmoid: _curve(_sigmoid_slope),
    Tanh: _curve(lambda x: 4.0 * _sigmoid_slope(2.0 * x)),
}
