"""How far two networks can differ over boxes: bounds of the difference itself, sound for float32 execution.

Where both have the same activations in the same places (a compressed, shifted or fine-tuned network), each
activation's difference is a variable of its own. With y the first network's activations, delta their
difference from the second's, and W, b and V, c the weights of a stage,

    d = (W - V) y + V delta + (b - c) + noise,      delta' = s d,   s between the activation's slopes,

as in ReluDiff (Paulsen, Wang and Wang, ICSE 2020), here carried backward over y and delta together, and for
any activation. Any pair's difference is also bounded by the planes of both, added before their least over the
box is taken, and the tighter bound is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from sutura.bounds import interval
from sutura.bounds.crown import Bounds, Checkpoint, LowerPlanes, crown, lower_planes, no_checkpoint
from sutura.bounds.pair import Pair, Twin
from sutura.bounds.program import Matrix, MaxOf
from sutura.bounds.region import Region
from sutura.bounds.rounding import SLACK, UNIT64, gamma
from sutura.bounds.secant import SECANTS, Chords, chords, reach
from sutura.bounds.stages import ALLOWANCE, noise

Array = Float64[np.ndarray, "batch n"]
Rows = Float64[np.ndarray, "batch rows n"]
Column = Float64[np.ndarray, "batch rows"]
Span = tuple[Array, Array]

ROW_ENTRIES = 1 << 22
"""Numbers of the largest coefficient block: 32 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class DifferenceBounds:
    """low <= first - second <= high of every output, for each box and all float32 executions of both.

    `separate` is what the networks' own bounds give. `slopes` are those in the inputs of the planes behind
    `low`, then behind `high` (negated). `first` and `second` are the networks' own bounds.
    """

    low: Array
    high: Array
    separate: Span
    slopes: Rows
    first: Bounds
    second: Bounds


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """The pair over a region, and what is known per stage from the input on.

    `y` and `delta` are spans of the activations, `chords` hold each delta between lines, `first_noise` and
    `noise` bound what the lines of `before` leave out: of the first network, and of the difference.
    """

    both: Pair
    region: Region
    first: Bounds
    second: Bounds
    y: tuple[Span, ...]
    delta: tuple[Span, ...]
    chords: tuple[Chords | None, ...]
    noise: tuple[Array, ...]
    first_noise: tuple[Array, ...]
    second_noise: tuple[Array, ...]


def difference_bounds(
    both: Pair, region: Region, *, checkpoint: Checkpoint = no_checkpoint
) -> DifferenceBounds:
    """Bounds of first - second over each box, for every float32 execution of either network."""
    first = crown(both.first, region, checkpoint=checkpoint)
    second = crown(both.second, region, checkpoint=checkpoint)
    n = both.first.outputs
    rows = np.concatenate([np.eye(n), -np.eye(n)])
    mine = lower_planes(both.first, region, first, rows)
    theirs = lower_planes(both.second, region, second, -rows)
    value, slopes = _at_once(both, region, mine, theirs)
    if both.twins is not None:
        work = _staged(both, region, (first, second), checkpoint)
        paired, steps = _lower(work, np.broadcast_to(rows, (len(region), *rows.shape)))
        slopes = np.where((paired > value)[:, :, None], steps, slopes)
        value = np.fmax(value, paired)
    apart = _separate(mine, theirs)
    low, high = np.fmax(value[:, :n], apart[0]), np.fmin(-value[:, n:], apart[1])
    return DifferenceBounds(low, high, apart, slopes, first, second)


def _separate(mine: LowerPlanes, theirs: LowerPlanes) -> Span:
    """Each network's own bounds by backward substitution, subtracted."""
    n = mine.value.shape[1] // 2
    low = mine.value + theirs.value
    low = low - 2.0**-50 * (abs(mine.value) + abs(theirs.value))
    return low[:, :n], -low[:, n:]


def _at_once(both: Pair, region: Region, mine: LowerPlanes, theirs: LowerPlanes) -> tuple[Column, Rows]:
    """The planes of both added before the least is taken: they meet the same input, so slopes cancel."""
    planes, slopes = (mine.plane, theirs.plane), mine.slopes + theirs.slopes
    least = [_least(region, a) for a in (mine.slopes, theirs.slopes, slopes)]
    size = gamma(_terms(both), UNIT64) * interval.dot(abs(mine.slopes) + abs(theirs.slopes), region.magnitude)
    room = 2.0**-48 * sum(abs(v) for v in (*planes, *least)) + 4.0 * size
    value = (planes[0] - least[0]) + (planes[1] - least[1]) + least[2] - room
    return np.where(np.isnan(value), -np.inf, value), slopes


def _least(region: Region, slopes: Rows) -> Column:
    """As `backward` takes it."""
    least = interval.least(slopes, region.low, region.high)
    return least if region.ball is None else np.fmax(least, region.ball.least(slopes))


def _staged(both: Pair, region: Region, bounds: tuple[Bounds, Bounds], checkpoint: Checkpoint) -> _Work:
    """Everything known before the last stage, stage by stage."""
    twins = both.twins
    assert twins is not None
    first_noise = noise(both.first, [t.first for t in twins], bounds[0])
    second_noise = noise(both.second, [t.second for t in twins], bounds[1])
    zero = np.zeros_like(region.low)
    span = (region.low, region.high)
    work = _Work(both, region, *bounds, (span,), ((zero, zero),), (None,), (), first_noise, second_noise)
    for at, twin in enumerate(twins, start=1):
        checkpoint()
        work = replace(work, noise=(*work.noise, _noise(work, twin, at)))
        if at < len(twins):
            work = _advanced(work, twin, at, checkpoint)
    return work


def _noise(work: _Work, twin: Twin, at: int) -> Array:
    """Both executions' errors, and what float64 loses in the products and sums of the difference."""
    size = abs(twin.bias)[None, :] + np.zeros((len(work.region), 1))
    for k, matrix in twin.apart.items():
        size = size + interval.magnitude(*work.y[k]) @ abs(matrix).T
    for k, matrix in twin.second.weights.items():
        size = size + interval.magnitude(*work.delta[k]) @ abs(matrix).T
    share = ALLOWANCE * gamma(_terms(work.both), UNIT64)
    return work.first_noise[at - 1] + work.second_noise[at - 1] + share * size


def _terms(both: Pair) -> int:
    """Roundings that any float64 sum passes through."""
    return max(interval.terms(both.first), interval.terms(both.second))


def _advanced(work: _Work, twin: Twin, at: int, checkpoint: Checkpoint) -> _Work:
    """Through the stage's activation: chords and a span of its difference."""
    layer, first, second = twin.first.activation, work.first, work.second
    assert layer is not None
    y = (first.low[twin.first.after], first.high[twin.first.after])
    other = (second.low[twin.second.after], second.high[twin.second.after])
    if isinstance(layer, MaxOf):
        low, high = _intervals(work, twin, at)
        low, high = low[:, layer.windows].min(axis=2), high[:, layer.windows].max(axis=2)
        lines = Chords(np.zeros_like(low), low, np.zeros_like(high), high)
    else:
        steep = SECANTS[type(layer.op)](
            np.minimum(first.low[twin.first.before], second.low[twin.second.before]),
            np.maximum(first.high[twin.first.before], second.high[twin.second.before]),
            layer.op,
        )
        low, high = _before(work, twin, at, steep.least < steep.most, checkpoint)
        lines = chords(steep, low, high)
        low, high = reach(lines, low, high)
    span = _met((low, high), _outward(y[0] - other[1], y[1] - other[0]))
    return replace(work, y=(*work.y, y), delta=(*work.delta, span), chords=(*work.chords, lines))


def _met(a: Span, b: Span) -> Span:
    """The tighter of two spans on each side; not-a-number counts as unknown."""
    return np.fmax(a[0], b[0]), np.fmin(a[1], b[1])


def _outward(low: Array, high: Array) -> Span:
    """Room for the rounding of one sum, and of a few."""
    return low - 2.0**-50 * abs(low) - 2.0**-1060, high + 2.0**-50 * abs(high) + 2.0**-1060


def _intervals(work: _Work, twin: Twin, at: int) -> Span:
    """The difference before an activation, by interval arithmetic, and by the networks' own bounds."""
    low = high = np.broadcast_to(twin.bias, (len(work.region), len(twin.bias)))
    parts = [(matrix, work.y[k]) for k, matrix in twin.apart.items()]
    parts += [(matrix, work.delta[k]) for k, matrix in twin.second.weights.items()]
    for matrix, (least, most) in parts:
        centre, radius = ((least + most) / 2.0) @ matrix.T, ((most - least) / 2.0) @ abs(matrix).T
        low, high = low + (centre - radius), high + (centre + radius)
    noise = SLACK * work.noise[at - 1]
    first, second, one, other = work.first, work.second, twin.first.before, twin.second.before
    own = _outward(first.low[one] - second.high[other], first.high[one] - second.low[other])
    return _met((low - noise, high + noise), own)


def _before(work: _Work, twin: Twin, at: int, bent: np.ndarray, checkpoint: Checkpoint) -> Span:
    """The span of the difference before an activation; backward bounds where its slope is not known."""
    low, high = (side.copy() for side in _intervals(work, twin, at))
    wanted = np.flatnonzero((bent & (low < high)).any(axis=0))
    widest = max(part.first.size for part in work.both.twins or ())
    step = max(1, ROW_ENTRIES // (4 * len(work.region) * widest))
    for start in range(0, len(wanted), step):
        checkpoint()
        entry = wanted[start : start + step]
        unit = np.zeros((2 * len(entry), twin.first.size))
        unit[np.arange(len(entry)), entry] = 1.0
        unit[np.arange(len(entry), 2 * len(entry)), entry] = -1.0
        value = _lower(work, np.broadcast_to(unit, (len(work.region), *unit.shape)))[0]
        low[:, entry] = np.fmax(low[:, entry], value[:, : len(entry)])
        high[:, entry] = np.fmin(high[:, entry], -value[:, len(entry) :])
    return low, high


def _lower(work: _Work, rows: Rows) -> tuple[Column, Rows]:
    """Lower bounds of rows @ (the newest difference before an activation), and their slopes in the inputs.

    Sound for float32 execution. Not-a-number anywhere gives minus infinity.
    """
    twins = work.both.twins
    assert twins is not None
    newest = len(work.noise)
    y: dict[int, Rows] = {}
    delta: dict[int, Rows] = {}
    constant, loss = _through_difference(twins[newest - 1], rows, work.noise[newest - 1], (y, delta))
    for at in range(newest - 1, 0, -1):
        twin = twins[at - 1]
        if at in delta:
            lines = work.chords[at]
            assert lines is not None
            slopes = (lines.lower_slope, lines.upper_slope)
            passed, offset = _bent(delta.pop(at), slopes, (lines.lower_offset, lines.upper_offset))
            if not isinstance(twin.first.activation, MaxOf):
                own = _through_difference(twin, passed, work.noise[at - 1], (y, delta))
                constant, loss = constant + own[0], loss + own[1]
            constant, loss = constant + offset, loss + 1e-15 * abs(offset)
        if at in y:
            own = _through_first(work, twin, at, (y.pop(at), y))
            constant, loss = constant + own[0], loss + own[1]
    slopes = y.get(0, np.zeros((*constant.shape, work.region.low.shape[1])))
    loss = loss + gamma(_terms(work.both), UNIT64) * interval.dot(abs(slopes), work.region.magnitude)
    low = constant + interval.least(slopes, work.region.low, work.region.high) - SLACK * loss
    return np.where(np.isnan(low), -np.inf, low - 2.0**-50 * abs(low)), slopes


def _through_difference(
    twin: Twin, rows: Rows, noise: Array, into: tuple[dict[int, Rows], dict[int, Rows]]
) -> tuple[Column, Column]:
    """Rows of a difference before an activation become rows of y and of delta, a constant and a loss."""
    for target, weights in zip(into, (twin.apart, twin.second.weights), strict=True):
        for k, matrix in weights.items():
            if target is into[0] or k > 0:
                _add(target, k, _product(rows, matrix))
    return rows @ twin.bias, interval.dot(abs(rows), noise)


def _through_first(
    work: _Work, twin: Twin, at: int, rows: tuple[Rows, dict[int, Rows]]
) -> tuple[Column, Column]:
    """Rows of the first network's activation become rows of earlier ones, a constant and a loss."""
    mine, into = rows
    lines = work.first.lines[twin.first.after]
    if lines is None:
        return interval.least(mine, *work.y[at]), gamma(mine.shape[2] + 8, UNIT64) * interval.dot(
            abs(mine), interval.magnitude(*work.y[at])
        )
    lower = np.zeros_like(lines.upper_offset) if lines.lower_offset is None else lines.lower_offset
    passed, offset = _bent(mine, (lines.lower_slope, lines.upper_slope), (lower, lines.upper_offset))
    for k, matrix in twin.first.weights.items():
        _add(into, k, _product(passed, matrix))
    loss = interval.dot(abs(passed), work.first_noise[at - 1]) + 1e-15 * abs(offset)
    return offset + passed @ twin.first.bias, loss


def _bent(rows: Rows, slopes: Span, offsets: Span) -> tuple[Rows, Column]:
    """Each coefficient takes the line that bounds it from below: the lower where positive, else the upper."""
    positive = np.maximum(rows, 0.0)
    negative = rows - positive
    offset = interval.dot(positive, offsets[0]) + interval.dot(negative, offsets[1])
    return positive * slopes[0][:, None, :] + negative * slopes[1][:, None, :], offset


def _product(rows: Rows, matrix: Matrix) -> Rows:
    return (rows.reshape(-1, rows.shape[2]) @ matrix).reshape(*rows.shape[:2], -1)


def _add(into: dict[int, Rows], at: int, rows: Rows) -> None:
    into[at] = into[at] + rows if at in into else rows
