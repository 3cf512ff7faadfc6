"""The bound that closes a leaf: slopes and multipliers as the ascent left them, on the program itself.

Sound for float32 execution: a split is a statement on the value that the execution computes, which lies on
one side or the other, and execution errors enter backward as in `crown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from sutura.bounds import interval
from sutura.bounds.ascent import Choice, Domain, ranges
from sutura.bounds.condensed import Block, Condensed
from sutura.bounds.crown import Bounds, Checkpoint, no_checkpoint
from sutura.bounds.program import Affine, Program
from sutura.bounds.region import Region
from sutura.bounds.relaxation import Lines
from sutura.bounds.rounding import SLACK, UNIT64, gamma
from sutura.bounds.slopes import sound_lines

ENTRIES = 1 << 19
"""Entries of the widest coefficient block of leaves bounded together."""

Column = Float64[np.ndarray, " batch"]
Rows = Float64[np.ndarray, "batch n"]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A program on a single box, its sound bounds there, and its condensed form."""

    program: Program
    region: Region
    bounds: Bounds
    net: Condensed


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """rows @ output <= limits, one inequality a subproblem, at all points of interest. `absolute` are sums of
    the absolute parts that the rows were rounded from, so many `terms` each; limits are rounded up."""

    rows: Float64[np.ndarray, "batch outputs"]
    absolute: Float64[np.ndarray, "batch outputs"]
    limits: Column
    terms: int

    def take(self, rows: Int64[np.ndarray, " k"]) -> Given:
        """Those of some of the subproblems."""
        return Given(self.rows[rows], self.absolute[rows], self.limits[rows], self.terms)

    def scaled(self, factor: Column) -> Given:
        """Each inequality times a factor that is not negative."""
        limits = factor * self.limits
        wide = factor[:, None]
        return Given(wide * self.rows, wide * self.absolute, limits + 1e-15 * abs(limits), self.terms + 1)


def mixed(mix: Rows, rows: Rows, bounds: Float64[np.ndarray, " m"]) -> Given:
    """Mixtures of inequalities rows @ output <= bounds."""
    size = abs(mix)
    limits = mix @ bounds + 1e-14 * (size @ abs(bounds))
    return Given(mix @ rows, size @ abs(rows), limits, len(rows))


def sound_outputs(
    place: Place,
    domain: Domain,
    choice: Choice,
    rows: Float64[np.ndarray, "m outputs"],
    checkpoint: Checkpoint = no_checkpoint,
) -> Column:
    """Lower bounds of the choice's mixture of rows @ output in each subproblem; infinite where one is empty.

    `domain` narrows the bounds of the box. Sound for float32 execution, for any choice.
    """
    assert choice.mix is not None
    mix = choice.mix.astype(np.float64)
    at = len(place.program.layers)
    lost = _rounded_off(place, abs(mix) @ abs(rows), len(rows))
    return sound_values(place, domain, choice, (at, mix @ rows), checkpoint) - lost


def _rounded_off(place: Place, absolute: Rows, terms: int) -> Column:
    """What rows of the output lose where they were rounded from sums of so many terms."""
    at = len(place.program.layers)
    size = interval.magnitude(place.bounds.low[at], place.bounds.high[at])[0]
    return SLACK * (absolute @ size) * 2.0 * gamma(interval.terms(place.program) + terms, UNIT64)


def sound_values(
    place: Place,
    domain: Domain,
    choice: Choice,
    start: tuple[int, Rows],
    checkpoint: Checkpoint = no_checkpoint,
    given: Given | None = None,
) -> Column:
    """Lower bounds of rows[i] . value k in each subproblem, for start = (k, rows), the rows taken as exact.

    Sound for float32 execution, of points where what is `given` holds; infinite where a subproblem is empty.
    """
    at, rows = start
    most = max(1, ENTRIES // max(place.program.sizes))
    found: list[Column] = []
    last = len(place.program.layers)
    for first in range(0, len(rows), most):
        checkpoint()
        part = slice(first, first + most)
        kept, chosen, begin = domain.take(part), choice.take(part), {at: rows[part]}
        if given is not None:
            begin[last] = given.rows[part] + begin.get(last, 0.0)
        with np.errstate(all="ignore"):
            value = _backward(place, *_narrowed(place, max(begin), kept, chosen), begin)
            if given is not None:
                value = value - given.limits[part] - _rounded_off(place, given.absolute[part], given.terms)
                value = np.where(np.isnan(value), -np.inf, value - 2.0**-50 * abs(value))
        found.append(np.where((kept.low > kept.high).any(axis=1), np.inf, value))
    return np.concatenate(found) if found else np.zeros(0)


def _backward(place: Place, bounds: Bounds, pulls: Mapping[int, Rows], start: Mapping[int, Rows]) -> Column:
    """As `crown.backward`, one row a subproblem, with multipliers: so much of the coefficient of each entry
    that an activation reads is bounded by the entry's own interval. Not-a-number gives minus infinity."""
    program, region = place.program, place.region
    flowing, count = dict(start), len(next(iter(start.values())))
    constant, loss = np.zeros(count), np.zeros(count)
    rounded = gamma(interval.terms(program), UNIT64)
    for at in range(max(start), 0, -1):
        a = flowing.pop(at, None)
        if a is None:
            continue
        layer = program.layers[at - 1]
        if isinstance(layer, Affine):
            error = bounds.errors[at]
            assert error is not None
            constant, loss = constant + a @ layer.bias, loss + abs(a) @ error[0]
            for source, weight in zip(layer.sources, layer.weights, strict=True):
                flowing[source] = flowing[source] + a @ weight if source in flowing else a @ weight
            continue
        lines, s = bounds.lines[at], layer.source
        assert lines is not None
        positive = np.maximum(a, 0.0)
        negative = a - positive
        offset = (negative * lines.upper_offset).sum(axis=1)
        if lines.lower_offset is not None:
            offset = offset + (positive * lines.lower_offset).sum(axis=1)
        passed = positive * lines.lower_slope + negative * lines.upper_slope
        size = interval.magnitude(bounds.low[s], bounds.high[s])
        spent = abs(passed)
        if at in pulls:
            offset = offset + _least(pulls[at], bounds.low[s], bounds.high[s])
            spent = spent + 2.0 * abs(pulls[at])
            passed = passed - pulls[at]
        constant = constant + offset
        loss = loss + rounded * ((spent + abs(passed)) * size).sum(axis=1) + abs(offset) * 1e-15
        flowing[s] = flowing[s] + passed if s in flowing else passed
    slopes = flowing.get(0, np.zeros((len(constant), program.inputs)))
    loss = loss + rounded * (abs(slopes) * region.magnitude).sum(axis=1)
    low = constant + _least(slopes, region.low, region.high) - SLACK * loss
    return np.where(np.isnan(low), -np.inf, low - 2.0**-50 * abs(low))


def _least(rows: Rows, low: Rows, high: Rows) -> Column:
    positive = np.maximum(rows, 0.0)
    return (positive * low + (rows - positive) * high).sum(axis=1)


def _narrowed(place: Place, before: int, domain: Domain, choice: Choice) -> tuple[Bounds, dict[int, Rows]]:
    """The bounds of each subproblem, with its chosen lines, and its multipliers for each activation."""
    bounds = place.bounds
    blocks = [b for b in place.net.blocks if b.stop <= domain.low.shape[1]]
    low, high, lines = list(bounds.low), list(bounds.high), list(bounds.lines)
    pulls: dict[int, Rows] = {}
    below, above = ranges(blocks, domain)
    lower, upper = below.slope(choice.lower).astype(np.float64), above.slope(choice.upper).astype(np.float64)
    for block in (b for b in blocks if b.at <= before):
        span, count, s = block.span, len(domain.low), block.source
        # Both hold: the box's bounds and the split's.
        low[s] = np.maximum(low[s], _placed(low[s], block, domain.low[:, span], count))
        high[s] = np.minimum(high[s], _placed(high[s], block, domain.high[:, span], count))
        here = low[s][:, block.entry], high[s][:, block.entry]
        known = lines[block.at]
        assert known is not None
        lines[block.at] = _fitted(
            known, sound_lines(block.op, *here, lower[:, span], upper[:, span]), block, count
        )
        if choice.pull[:, span].any():
            zero = np.zeros((count, low[s].shape[1]))
            pulls[block.at] = _placed(zero, block, choice.pull[:, span], count)
    return replace(bounds, low=tuple(low), high=tuple(high), lines=tuple(lines)), pulls


def _placed(whole: np.ndarray, block: Block, part: np.ndarray, count: int) -> np.ndarray:
    spread = np.repeat(whole, count, axis=0) if len(whole) == 1 else whole.copy()
    spread[:, block.entry] = part
    return spread


def _fitted(known: Lines, fitted: Lines, block: Block, count: int) -> Lines:
    """The box's lines with those of the open neurons put in their places."""
    offset = known.lower_offset
    if fitted.lower_offset is not None:
        zero = np.zeros_like(known.lower_slope)
        offset = _placed(zero if offset is None else offset, block, fitted.lower_offset, count)
    return Lines(
        _placed(known.lower_slope, block, fitted.lower_slope, count),
        offset,
        _placed(known.upper_slope, block, fitted.upper_slope, count),
        _placed(known.upper_offset, block, fitted.upper_offset, count),
    )
