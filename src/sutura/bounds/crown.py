"""Backward linear bounds (CROWN, Zhang et al. 2018; DeepPoly, Singh et al. 2019), sound for float32.

Each affine layer is z = W x + b + delta with |delta| <= rho: the rounding of any float32 execution enters as
a bounded extra input, and its weight is carried backward with the rest. The rows of all boxes of a batch go
through each layer in one matrix product; only neurons whose sign is still open get rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import csr_array, issparse

from sutura.bounds import interval
from sutura.bounds.bend import through_lines, through_maximum
from sutura.bounds.program import Affine, Elementwise, MaxOf, Program
from sutura.bounds.region import Region
from sutura.bounds.relaxation import LINES, PIECEWISE_LINEAR, Lines
from sutura.bounds.rounding import FLOAT32_ANY_ORDER, SLACK, Profile

ROW_ENTRIES = 1 << 17
"""Entries of a coefficient block: small enough for a core's cache, large enough to hide call overhead."""

Array = Float64[np.ndarray, "batch n"]
Rows = Float64[np.ndarray, "batch rows n"]
Column = Float64[np.ndarray, "batch rows"]
Checkpoint = Callable[[], None]
Watch = Callable[[int, Rows], None]
"""Shown the coefficients with which each activation is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Enclosure:
    """Bounds of some values known beforehand, e.g. those of the box that a box is part of."""

    low: Mapping[int, Array]
    high: Mapping[int, Array]

    def take(self, rows: Int64[np.ndarray, " k"]) -> Enclosure:
        """Those of some boxes of the batch."""
        return Enclosure(
            {k: v[rows] for k, v in self.low.items()}, {k: v[rows] for k, v in self.high.items()}
        )


def join(parts: Sequence[Enclosure]) -> Enclosure:
    """One batch out of several."""
    keys = parts[0].low.keys()
    return Enclosure(
        {k: np.concatenate([p.low[k] for p in parts]) for k in keys},
        {k: np.concatenate([p.high[k] for p in parts]) for k in keys},
    )


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """low[k] <= value k <= high[k] for every float32 execution, for each box; value 0 is the input.

    `errors[k]` bounds the execution error of an affine value, `lines[k]` hold an activation between lines.
    """

    low: tuple[Array, ...]
    high: tuple[Array, ...]
    errors: tuple[Array | None, ...]
    lines: tuple[Lines | None, ...]

    def take(self, rows: Int64[np.ndarray, " k"]) -> Bounds:
        """Those of some boxes of the batch."""
        return Bounds(
            tuple(v[rows] for v in self.low),
            tuple(v[rows] for v in self.high),
            tuple(None if v is None else v[rows] for v in self.errors),
            tuple(None if v is None else v.take(rows) for v in self.lines),
        )

    def enclosure(self, program: Program) -> Enclosure:
        """The bounds of what the activations read: all that a part of a box needs to start from."""
        read = {layer.source for layer in program.layers if not isinstance(layer, Affine)}
        return Enclosure({k: self.low[k] for k in read}, {k: self.high[k] for k in read})


@dataclass(frozen=True, slots=True, eq=False)
class LowerPlanes:
    """value[i, j] <= rows[j] . output for each box i.

    The plane: rows[j] . output >= plane[i, j] + sum_d |slopes[i, j, d]| t_d at every input whose side d is
    t_d away from the corner where the plane is lowest. `strain[i, j, d]` estimates how much of what the
    relaxations lose is owed to side d (zero where no shares were given).
    """

    value: Column
    plane: Column
    slopes: Rows
    strain: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Combination:
    """constant + sum_k coefficients[k] . value_k - loss, for each box and row."""

    coefficients: Mapping[int, Rows]
    constant: Column
    loss: Column


NO_SHARES: Mapping[int, Rows] = {}


def no_checkpoint() -> None:
    """Never interrupts."""


def no_watch(_: int, __: Rows) -> None:
    """Looks at nothing."""


def crown(
    program: Program,
    region: Region,
    known: Enclosure | None = None,
    *,
    profile: Profile = FLOAT32_ANY_ORDER,
    checkpoint: Checkpoint = no_checkpoint,
) -> Bounds:
    """Bounds of every value over each box. Sound for float32 execution under `profile`.

    `known` bounds are intersected with those computed. `checkpoint` is called between matrix products and may
    raise.
    """
    bent = {layer.source: layer for layer in program.layers if not isinstance(layer, Affine)}
    state = Bounds((region.low,), (region.high,), (None,), (None,))
    for at, layer in enumerate(program.layers, start=1):
        checkpoint()
        if not isinstance(layer, Affine):
            state = _after_activation(layer, state)
            continue
        state = _after_affine(program, layer, state, profile)
        low, high = _intersect(state.low[at], state.high[at], known, at)
        # Over a box, intervals of the first layer are exact; over a ball they are not.
        if at in bent and (region.ball is not None or any(s > 0 for s in layer.sources)):
            open_entries = _open(bent[at], low, high)
            low, high = _tighten(program, region, state, (low, high, open_entries), checkpoint)
        state = replace(state, low=(*state.low[:-1], low), high=(*state.high[:-1], high))
    return state


def _after_affine(program: Program, layer: Affine, state: Bounds, profile: Profile) -> Bounds:
    lows, highs = [state.low[s] for s in layer.sources], [state.high[s] for s in layer.sources]
    magnitudes = [interval.magnitude(lo, hi) for lo, hi in zip(lows, highs, strict=True)]
    error = interval.execution_error(layer, magnitudes, interval.terms(program), profile)
    low, high = interval.affine(layer, lows, highs, error)
    return Bounds((*state.low, low), (*state.high, high), (*state.errors, error), (*state.lines, None))


def _after_activation(layer: Elementwise | MaxOf, state: Bounds) -> Bounds:
    low, high = state.low[layer.source], state.high[layer.source]
    reached = interval.activation(layer, low, high)
    lines = LINES[type(layer.op)](low, high, layer.op) if isinstance(layer, Elementwise) else None
    return Bounds(
        (*state.low, reached[0]), (*state.high, reached[1]), (*state.errors, None), (*state.lines, lines)
    )


def _intersect(low: Array, high: Array, known: Enclosure | None, at: int) -> tuple[Array, Array]:
    if known is None or at not in known.low:
        return low, high
    return np.maximum(low, known.low[at]), np.minimum(high, known.high[at])


def _open(layer: Elementwise | MaxOf, low: Array, high: Array) -> Bool[np.ndarray, "batch n"]:
    """Which entries an activation bends: the others need no better bound."""
    if isinstance(layer, Elementwise) and isinstance(layer.op, PIECEWISE_LINEAR):
        return (low < 0) & (high > 0)
    return low < high


def _tighten(
    program: Program,
    region: Region,
    state: Bounds,
    newest: tuple[Array, Array, Bool[np.ndarray, "batch n"]],
    checkpoint: Checkpoint,
) -> tuple[Array, Array]:
    """Backward bounds for the open entries of the newest value, intersected with its interval bounds."""
    low, high, wanted = newest[0].copy(), newest[1].copy(), newest[2]
    most = int(wanted.sum(axis=1).max(initial=0))
    order = np.argsort(~wanted, axis=1, kind="stable")[:, :most]
    box = np.arange(len(region))[:, None]
    step = max(1, ROW_ENTRIES // (2 * len(region) * max(program.sizes[: len(state.low)])))
    for start in range(0, most, step):
        checkpoint()
        entry = order[:, start : start + step]
        value = backward(program, region, state, _neurons(program, state, entry))[0]
        # Rows that only pad the batch are dropped: a box's bounds must not depend on its neighbours.
        asked = wanted[box, entry]
        best_low = np.where(asked, value[:, : entry.shape[1]], -np.inf)
        best_high = np.where(asked, -value[:, entry.shape[1] :], np.inf)
        low[box, entry] = np.maximum(low[box, entry], best_low)
        high[box, entry] = np.minimum(high[box, entry], best_high)
    return low, high


def _neurons(program: Program, state: Bounds, entry: Int64[np.ndarray, "batch rows"]) -> Combination:
    """The entries themselves, then their negatives, as combinations of what the newest affine layer reads."""
    at = len(state.low) - 1
    layer, error = program.layers[at - 1], state.errors[at]
    assert isinstance(layer, Affine) and error is not None
    coefficients: dict[int, Rows] = {}
    for source, weight in zip(layer.sources, layer.weights, strict=True):
        rows = _dense_rows(weight, entry.reshape(-1)).reshape(*entry.shape, -1)
        _accumulate(coefficients, source, np.concatenate([rows, -rows], axis=1))
    bias, loss = layer.bias[entry], np.take_along_axis(error, entry, axis=1)
    return Combination(
        coefficients, np.concatenate([bias, -bias], axis=1), np.concatenate([loss, loss], axis=1)
    )


def _dense_rows(weight: np.ndarray | csr_array, entry: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, "k n"]:
    return csr_array(weight)[entry].toarray() if issparse(weight) else weight[entry]


def lower_planes(
    program: Program,
    region: Region,
    bounds: Bounds,
    rows: Float64[np.ndarray, "... rows outputs"],
    *,
    absolute: Rows | None = None,
    shares: Mapping[int, Rows] = NO_SHARES,
) -> LowerPlanes:
    """Lower bounds of rows @ output over each box, for every float32 execution, with their planes.

    `rows` are those of all boxes, or of each box. Where they were rounded from sums, `absolute` must hold the
    sums of the absolute parts. `shares` are those of `influence`; they guide cuts and touch no bound. Bounds
    that cross cannot both be right: nothing is said of their box.
    """
    at = len(program.layers)
    stacked = np.broadcast_to(rows, (len(region), *rows.shape[-2:]))
    low, high = bounds.low[at], bounds.high[at]
    lost = interval.charged(program, stacked if absolute is None else absolute, interval.magnitude(low, high))
    strain = [np.broadcast_to(0.0, (*lost.shape, program.inputs))]

    def watch(value: int, a: Rows) -> None:
        if value in shares:
            strain.append(abs(a) @ shares[value])

    start = Combination({at: stacked}, np.zeros(lost.shape), lost)
    plane, slopes = backward(program, region, bounds, start, watch)
    # A row that is one output, or its negative, is read off without rounding.
    exact = (np.count_nonzero(rows, axis=-1) == 1) & (abs(rows).sum(axis=-1) == 1.0) & (absolute is None)
    direct = interval.least(stacked, low, high) - np.where(exact, 0.0, SLACK * lost)
    crossed = [np.any(least > most, axis=1) for least, most in zip(bounds.low, bounds.high, strict=True)]
    lost_all = np.any(crossed, axis=0)[:, None]
    value, plane = (np.where(lost_all, -np.inf, v) for v in (np.fmax(plane, direct), plane))
    return LowerPlanes(value, plane, slopes, sum(strain[1:], strain[0]))


def backward(
    program: Program, region: Region, bounds: Bounds, start: Combination, watch: Watch = no_watch
) -> tuple[Column, Rows]:
    """Lower bounds of a combination over each box, and the slopes in the inputs they come from.

    Sound for float32 execution. Not-a-number anywhere gives minus infinity.
    """
    coefficients, constant, loss = dict(start.coefficients), start.constant, start.loss
    for at in range(max(coefficients), 0, -1):
        a = coefficients.pop(at, None)
        if a is None:
            continue
        layer = program.layers[at - 1]
        if isinstance(layer, Affine):
            error = bounds.errors[at]
            assert error is not None
            constant = constant + a @ layer.bias
            loss = loss + interval.dot(abs(a), error)
            for source, weight in zip(layer.sources, layer.weights, strict=True):
                read = _times(a.reshape(-1, a.shape[2]), weight)
                _accumulate(coefficients, source, read.reshape(*a.shape[:2], -1))
            continue
        watch(at, a)
        s = layer.source
        passed, offset = _bent(layer, a, bounds, at)
        constant = constant + offset
        if s == 0 or not isinstance(program.layers[s - 1], Affine):
            size = interval.magnitude(bounds.low[s], bounds.high[s])
            loss = loss + interval.charged(program, passed, size) + abs(offset) * 1e-15
        _accumulate(coefficients, s, passed)
    slopes = coefficients.get(0, np.zeros((*constant.shape, program.inputs)))
    loss = loss + interval.charged(program, slopes, region.magnitude)
    least = interval.least(slopes, region.low, region.high)
    if region.ball is not None:
        least = np.fmax(least, region.ball.least(slopes))
    low = constant + least - SLACK * loss
    return np.where(np.isnan(low), -np.inf, low - 2.0**-50 * abs(low)), slopes


def _times(rows: Float64[np.ndarray, "r n"], weight: np.ndarray | csr_array) -> Float64[np.ndarray, "r m"]:
    """rows @ weight. Neighbours in a convolution see a part of what it reads: only that is passed."""
    if not issparse(weight):
        return rows @ weight
    seen = np.flatnonzero(rows.any(axis=0))
    return rows[:, seen] @ csr_array(weight)[seen] if 2 * len(seen) < rows.shape[1] else rows @ weight


def _accumulate(coefficients: dict[int, Rows], source: int, rows: Rows) -> None:
    coefficients[source] = coefficients[source] + rows if source in coefficients else rows


def _bent(layer: Elementwise | MaxOf, a: Rows, bounds: Bounds, at: int) -> tuple[Rows, Column]:
    if isinstance(layer, MaxOf):
        return through_maximum(a, layer, bounds.low[layer.source], bounds.high[layer.source])
    lines = bounds.lines[at]
    assert lines is not None
    return through_lines(a, lines)
