"""Bounds of every value for every float32 execution over a box, by intervals and by going backward.

Enclosures are in ticks. A coefficient is a whole number at a power-of-two scale; what a shift drops of it is
charged to the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import mul
from typing import NamedTuple

from .layers import COEFFICIENT, Bend, Linear
from .ticks import NORMAL, ONE, Ints, want

Line = tuple[int, int, int, int]
Layers = Sequence[Linear | Bend]


class Value(NamedTuple):
    """An enclosure, its largest size, and the absolute parts that a fused runtime may add, rounded so often.

    `noise` is how far an execution may stray from the layer; `lines` enclose a bend: slope (2^-32) and
    intercept (2^-181), below and above.
    """

    lower: Ints
    upper: Ints
    size: Ints
    noise: Ints
    mass: Ints
    roundings: int
    lines: Sequence[Line]


def enclosed(found: Sequence[tuple[int, int, int, int, Line]], roundings: int) -> Value:
    """A value by (lower, upper, noise, mass or 0, line) of its entries; subnormal results may be flushed."""
    low, high, noise, mass, lines = zip(*found, strict=True)
    low = [0 if 0 < x < NORMAL else x for x in low]
    high = [0 if -NORMAL < x < 0 else x for x in high]
    size = [max(-x, y) for x, y in zip(low, high, strict=True)]
    return Value(low, high, size, noise, [m or s for m, s in zip(mass, size, strict=True)], roundings, lines)


def bound(layers: Layers, row: int, lower: Ints, upper: Ints) -> list[Value] | None:
    """Bounds of every value over a box in a row of the gates; None where an execution may overflow."""
    size = [max(-low, high) for low, high in zip(lower, upper, strict=True)]
    values = [Value(lower, upper, size, [0] * len(size), size, 0, ())]
    for layer in layers:
        if isinstance(layer, Bend):
            tighten(values, layers, layer)
            if crossed(values[layer.sources[0]]):
                return None
        values.append(bent(values, layer, row) if isinstance(layer, Bend) else summed(values, layer))
        largest = max(map(sum, zip(values[-1].mass, values[-1].noise, strict=True)), default=0)
        if largest >= OVERFLOW or crossed(values[-1]):
            return None
    return values


def crossed(value: Value) -> bool:
    """Whether bounds contradict each other: nothing may rest on them then."""
    return any(low > high for low, high in zip(value.lower, value.upper, strict=True))


def lost(count: int, total: int) -> int:
    """gamma(count) total, rounded up: what so many roundings may lose of a sum."""
    want(count < 1 << 20, "a sum is too long for the error bound")
    return -(-count * total // ((1 << 24) - count))


def summed(values: Sequence[Value], layer: Linear) -> Value:
    """|fl(y) - y| <= gamma(roundings) (|W| size + |bias|) + underflow; more where folded."""
    parts, folded = [values[at] for at in layer.sources], not layer.roundings
    ends = [end for part in parts for end in zip(part.lower, part.upper, part.size, part.mass, strict=True)]
    joined = [(low + high, high - low, size, mass) for low, high, size, mass in ends]
    columns = [*zip(*joined, strict=True)]
    count = layer.roundings or sum(part.roundings for part in parts) + FUSED
    found: list[tuple[int, int, int, int, Line]] = []
    for (index, weights), bias in zip(layer.rows, layer.bias, strict=True):
        picked = columns if index is None else zip(*(joined[j] for j in index), strict=True)
        middle, width, size, mass = picked
        sizes = [*map(abs, weights)]
        sums = (sum(map(mul, sizes, part)) for part in (size, mass if folded else size))
        total, fused = (-(-part >> layer.q) + abs(bias) + 1 for part in sums)
        tiny = (4 * len(size) + 4) * (ONE + (max(sizes) << 149 >> layer.q) + max(size)) >> 126
        noise = lost(count, total) + (lost(FUSED, fused) if folded else 0) + tiny + 1
        centre, reach = sum(map(mul, weights, middle)), sum(map(mul, sizes, width))
        low, high = (centre - reach >> layer.q + 1) + bias, -(-centre - reach >> layer.q + 1) + bias
        found.append((low - noise, high + noise, noise, fused, (0, 0, 0, 0)))
    return enclosed(found, count)


def bent(values: Sequence[Value], layer: Bend, row: int) -> Value:
    """The image of an enclosure, and the lines around the bend."""
    source = values[layer.sources[0]]
    ends = list(zip(source.lower, source.upper, source.size, strict=True))
    if layer.windows:
        columns = [[*zip(*(ends[j] for j in window), strict=True)] for window in layer.windows]
        ends = [(max(low), max(high), max(size)) for low, high, size in columns]
    found: list[tuple[int, int, int, int, Line]] = []
    pins = layer.pins[row] if layer.pins else [None] * len(ends)
    for (low, high, size), pin in zip(ends, pins, strict=True):
        if pin is not None:
            found.append((pin, pin, 0, 0, (0, pin << 32, 0, pin << 32)))
            continue
        stray = layer.stray + (lost(2, size) + 1 if layer.leak else 0)
        noise = stray + 2 * NORMAL
        line = around(layer, low, high, noise)
        found.append((layer.f(low) - stray, layer.f(high) + stray, noise, 0, line))
    return enclosed(found, 0)


def around(layer: Bend, low: int, high: int, noise: int) -> Line:
    """Any slope gives a line, its intercept taken at the ends and kinks: the best at the middle wins."""
    inner = [kink for kink in layer.kinks or () if low < kink < high]
    ends = [(x, layer.f(x) << 32) for x in (low, *inner, high)]
    pieces = [(ends[0], ends[-1]), *pairwise(ends)] if layer.kinks is not None else []
    slopes = [(y1 - y0) // (x1 - x0) for (x0, y0), (x1, y1) in pieces if x1 > x0] or [0]
    lines = [([y - s * x for x, y in ends], s) for s in slopes]
    below, s0 = max(((min(part), s) for part, s in lines), key=lambda t: 2 * t[0] + t[1] * (low + high))
    above, s1 = min(((max(part), s) for part, s in lines), key=lambda t: 2 * t[0] + t[1] * (low + high))
    return s0, below - (noise << 32), s1, above + (noise << 32)


def tighten(values: list[Value], layers: Layers, layer: Bend) -> None:
    """Backward bounds for the neurons that a bend bends, where an interval is not the best already."""
    (at,) = layer.sources
    if at == 0 or layers[at - 1].sources == (0,):
        return
    low, high = [*values[at].lower], [*values[at].upper]
    for i, (x, y) in enumerate(zip(values[at].lower, values[at].upper, strict=True)):
        if layer.kinks is None or any(x < kink < y for kink in layer.kinks):
            unit = [int(j == i) for j in range(len(low))]
            low[i] = max(x, lowest(values, layers, at, unit)[0] >> 64)
            high[i] = min(y, -(lowest(values, layers, at, [-v for v in unit])[0] >> 64))
    values[at] = values[at]._replace(lower=low, upper=high)


def lowest(values: Sequence[Value], layers: Layers, start: int, row: Ints) -> tuple[int, list[int]]:
    """A lower bound (2^-213) of a combination of value `start`, and |row| times the widths of the inputs."""
    total, waiting = 0, {start: ([*row], 0)}
    for at in range(start, 0, -1):
        a, scale = waiting.pop(at, ([], 0))
        layer, value, first = layers[at - 1], values[at], 0
        if not any(a):
            continue
        if isinstance(layer, Bend):
            lines = ((s, t) if c > 0 else (u, v) for c, (s, t, u, v) in zip(a, value.lines, strict=True))
            slopes, intercepts = zip(*lines, strict=True)
            total += scaled(sum(map(mul, a, intercepts)), scale + 32)
            if layer.kinks is None:
                continue
            passed, fine = [*map(mul, a, slopes)], scale + 32
        else:
            shift = max(0, max(map(abs, a)).bit_length() - COEFFICIENT)
            if shift:
                a, scale = [c >> shift for c in a], scale - shift
                total += scaled(-sum(value.size), scale)
            charged = sum(map(mul, a, layer.bias)) - sum(map(mul, map(abs, a), value.noise))
            total += scaled(charged, scale)
            passed, fine = times(layer, a, sum(len(values[s].size) for s in layer.sources)), scale + layer.q
        for source in layer.sources:
            old, before = waiting.get(source, ([0] * len(values[source].size), fine))
            both, finest = zip(passed[first : first + len(old)], old, strict=True), max(fine, before)
            waiting[source] = [(x << finest - fine) + (y << finest - before) for x, y in both], finest
            first += len(old)
    a, scale = waiting.get(0, ([0] * len(values[0].size), 0))
    ends = list(zip(a, values[0].lower, values[0].upper, strict=True))
    total += scaled(sum(c * (low if c > 0 else high) for c, low, high in ends), scale)
    return total, [abs(c) * (high - low) for c, low, high in ends]


def scaled(total: int, scale: int) -> int:
    """A product of a coefficient at 2^-scale and ticks, rounded down to 2^-213."""
    return total << 64 - scale if scale <= 64 else total >> scale - 64


def times(layer: Linear, A: Ints, inputs: int) -> list[int]:
    """A W, exactly; where rows are packed, by one multiplication of a long number for each neuron."""
    width, found = layer.limb, [0] * inputs
    if layer.packed:
        half = 1 << 8 * width - 1
        ones = ((1 << 8 * width * inputs) - 1) // ((1 << 8 * width) - 1)
        raw = (sum(map(mul, A, layer.packed)) + half * ones).to_bytes(width * inputs, "little")
        cuts = range(0, width * inputs, width)
        return [int.from_bytes(raw[at : at + width], "little") - half for at in cuts]
    for a, (index, weights) in zip(A, layer.rows, strict=True):
        for j, w in zip(range(inputs) if index is None else index, weights, strict=True):
            found[j] += a * w
    return found


OVERFLOW = 1 << 275  # 2^126: below it no partial sum can overflow
FUSED = 12  # roundings that an operation may add when a runtime folds it into its neighbour
