"""The exact checker's arithmetic, one step at a time, against rational numbers: direction and size."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from sutura.certificate import exact

ONE = 1 << 149
TINY = Fraction(1, 2**126)


def random_ticks(rng, size, scale=1.0):
    bits = np.float32(rng.normal(size=size) * scale).reshape(-1).view(np.uint32)
    return [exact.ticks.ticks(int(b)) for b in bits]


@pytest.mark.parametrize("count", [1, 2, 3, 785, (1 << 20) - 1])
@pytest.mark.parametrize("total", [0, 1, 5, 1 << 24, (1 << 24) - 1, (1 << 24) + 1, 3 << 149, (1 << 300) + 1])
def test_what_is_lost_is_rounded_up(count, total):
    theirs = Fraction(count * total, (1 << 24) - count)
    assert theirs <= exact.bound.lost(count, total) < theirs + 1


def test_sums_of_a_million_terms_are_refused():
    with pytest.raises(exact.ticks.RefusedError):
        exact.bound.lost(1 << 20, 1)


@pytest.mark.parametrize("scale", [0, 1, 63, 64, 65, 200])
@pytest.mark.parametrize("total", [0, 1, -1, 12345, -12345, (1 << 200) + 1, -(1 << 200) - 1])
def test_products_are_rounded_down_to_the_scale_of_bounds(total, scale):
    theirs = Fraction(total << 64, 1 << scale)
    assert theirs - 1 < exact.bound.scaled(total, scale) <= theirs


def layer(rows, bias, roundings, sources=(0,)):
    return exact.layers.linear_layer(sources, rows, bias, roundings)


def value(lower, upper, mass=None, roundings=0):
    size = [max(-low, high) for low, high in zip(lower, upper, strict=True)]
    return exact.bound.Value(lower, upper, size, [0] * len(size), mass or size, roundings, ())


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("scale", [2.0**-140, 2.0**-20, 1.0, 2.0**40])
def test_layers_keep_their_weights_and_multiply_exactly(dense, scale):
    rng = np.random.default_rng(0)
    weights = [random_ticks(rng, 5, scale) for _ in range(7)]
    rows = [(None if dense else (0, 1, 2, 3, 4), row) for row in weights]
    made = layer(rows, [0] * 7, 6)
    assert [[Fraction(v, 1 << made.q) for v in row] for _, row in made.rows] == [
        [Fraction(v, ONE) for v in row] for row in weights
    ]
    assert any(v % 2 for _, row in made.rows for v in row) or made.q == 0
    assert bool(made.packed) == dense
    for sign in (1, -1):
        a = [sign * ((1 << 57) - i) for i in range(7)]
        theirs = [sum(x * row[j] for x, (_, row) in zip(a, made.rows, strict=True)) for j in range(5)]
        assert exact.bound.times(made, a, 5) == theirs


@pytest.mark.parametrize("many", [1, 3, 8, 64, 255, 256])
@pytest.mark.parametrize("weight", [1, 3, 2**23 - 1, 2**24 - 1])
def test_packed_rows_hold_the_largest_sums_there_can_be(many, weight):
    made = layer([(None, (sign * weight * ONE, ONE)) for sign in [1] * many], [0] * many, 3)
    for sign in (1, -1):
        a = [sign * (1 << 57)] * many
        assert exact.bound.times(made, a, 2) == [v << 57 for v in (sign * many * weight, sign * many)]


@pytest.mark.parametrize("seed", range(12))
def test_one_layer_errs_by_no_more_and_no_less_than_its_formula(seed):
    rng = np.random.default_rng(seed)
    n, scale = int(rng.integers(1, 5)), (1.0, 2.0**-60, 2.0**30, 2.0**-130)[seed % 4]
    weights, bias = random_ticks(rng, n), random_ticks(rng, 1, scale)
    middle, width = random_ticks(rng, n, scale), [abs(v) for v in random_ticks(rng, n, scale)]
    lower, upper = ([m + s * w for m, w in zip(middle, width, strict=True)] for s in (-1, 1))
    mass = [abs(v) * 3 for v in random_ticks(rng, n, scale)]
    for roundings in (n + 1, 0):
        source = value(lower, upper, mass, 5)
        row = (None, weights) if seed % 2 else (tuple(range(n)), weights)
        found = exact.bound.summed([source, source], layer([row], bias, roundings))
        total, fused = (
            sum(abs(Fraction(w, ONE)) * m for w, m in zip(weights, part, strict=True)) + abs(bias[0])
            for part in (source.size, mass)
        )
        k = roundings or 5 + 12
        noise = Fraction(k, 2**24 - k) * total + (4 * n + 4) * TINY * (
            ONE + max(map(abs, weights)) + max(source.size)
        )
        noise += 0 if roundings else Fraction(12, 2**24 - 12) * fused
        assert noise < found.noise[0] <= noise + 4
        pairs = [(w * a, w * b) for w, a, b in zip(weights, lower, upper, strict=True)]
        low = Fraction(sum(map(min, pairs)), ONE) + bias[0] - found.noise[0]
        high = Fraction(sum(map(max, pairs)), ONE) + bias[0] + found.noise[0]
        assert low - 1 < found.lower[0] <= low or (found.lower[0] == 0 and 0 < low < 1 << 23)
        assert high <= found.upper[0] < high + 1 or (found.upper[0] == 0 and -1 << 23 < high < 0)
        assert found.roundings == k
        wanted = total if roundings else fused
        assert wanted < found.mass[0] <= wanted + 2
        assert found.size[0] == max(-found.lower[0], found.upper[0])


def test_small_results_may_be_flushed_to_zero():
    small, normal = (1 << 23) - 1, 1 << 23
    line = (0, 0, 0, 0)
    found = exact.bound.enclosed([(small, normal, 0, 0, line), (-normal, -small, 0, 7, line)], 3)
    assert (list(found.lower), list(found.upper)) == ([0, -normal], [normal, 0])
    assert (list(found.size), list(found.mass), found.roundings) == ([normal, normal], [normal, 7], 3)
    found = exact.bound.enclosed([(normal, normal + 1, 0, 0, line), (-normal - 1, -normal, 0, 0, line)], 0)
    assert (list(found.lower), list(found.upper)) == ([normal, -normal - 1], [normal + 1, -normal])
    found = exact.bound.enclosed([(0, 0, 0, 0, line), (1, 1, 0, 0, line), (-1, -1, 0, 0, line)], 0)
    assert (list(found.lower), list(found.upper)) == ([0, 0, -1], [0, 1, 0])


def bend(kinks, f, **more):
    return exact.layers.Bend((0,), f, kinks, **more)


def relu():
    return bend((0,), exact.layers.clamp(0, 1 << 300))


def clip():
    return bend((-ONE, ONE // 2), exact.layers.clamp(-ONE, ONE // 2))


def leaky():
    return bend((0,), exact.layers.leaky(ONE // 8), leak=True)


@pytest.mark.parametrize("made", [relu, clip, leaky])
@pytest.mark.parametrize(
    ("low", "high"), [(-8, 8), (-8, 3), (-3, 8), (-4, -2), (2, 4), (0, 4), (-4, 0), (-4, 2), (3, 3), (-3, -3)]
)
def test_lines_enclose_and_touch_and_are_the_closest_at_the_middle(made, low, high):
    layer = made()
    low, high, noise = low * ONE // 4, high * ONE // 4, 12345
    below, t0, above, t1 = exact.bound.around(layer, low, high, noise)
    points = [low + (high - low) * i // 24 for i in range(25)]
    points += [kink for kink in layer.kinks if low < kink < high]
    under = [(layer.f(x) << 32) - (below * x + t0) for x in points]
    over = [(above * x + t1) - (layer.f(x) << 32) for x in points]
    rounding = 1 << 34 if layer.leak else 0
    for gaps in (under, over):
        assert (noise << 32) - rounding <= min(gaps) <= (noise << 32) + rounding
    middle, kinks = (low + high) // 2, [k for k in layer.kinks if low < k < high]
    slopes = [0, 1 << 32, 1 << 29]
    slopes += [((layer.f(b) - layer.f(a)) << 32) // (b - a) for a, b in ((low, high),) if b > a]
    ends = [low, *kinks, high]
    for s in slopes:
        best = min((layer.f(x) << 32) - s * x for x in ends) + s * middle - (noise << 32)
        assert below * middle + t0 >= best - (1 << 151) or s == 1 << 29
        best = max((layer.f(x) << 32) - s * x for x in ends) + s * middle + (noise << 32)
        assert above * middle + t1 <= best + (1 << 151) or s == 1 << 29


def test_curves_and_largest_entries_are_enclosed_by_constants():
    below, t0, above, t1 = exact.bound.around(bend(None, lambda x: x // 2), -8, 8, 1)
    assert (below, t0, above, t1) == (0, -5 << 32, 0, 5 << 32)
    source = value([-3 * ONE, ONE, -ONE], [2 * ONE, 3 * ONE, ONE])
    most = bend(None, exact.layers.clamp(-(1 << 300), 1 << 300), windows=[(0, 2), (0, 1)])
    found = exact.bound.bent([source], most, 0)
    assert (list(found.lower), list(found.upper)) == ([-ONE, ONE], [2 * ONE, 3 * ONE])
    assert list(found.size) == [2 * ONE, 3 * ONE]
    assert list(found.noise) == [1 << 24, 1 << 24]
    rounded = bend(None, exact.layers.leaky(ONE // 8), windows=[(0, 2), (0, 1)], leak=True)
    stray = exact.bound.lost(2, 3 * ONE) + 1
    assert list(exact.bound.bent([source], rounded, 0).noise) == [stray + (1 << 24)] * 2


def test_activations_that_round_stray_by_two_roundings_and_curves_by_their_own():
    source = value([-2 * ONE], [2 * ONE])
    found = exact.bound.bent([source], leaky(), 0)
    stray = -(-4 * ONE // ((1 << 24) - 2)) + 1
    assert (found.lower[0], found.upper[0]) == (-ONE // 4 - stray, 2 * ONE + stray)
    assert list(found.noise) == [stray + (1 << 24)]
    found = exact.bound.bent([source], bend(None, lambda x: x, stray=5), 0)
    assert (found.lower[0], found.upper[0], found.noise[0]) == (-2 * ONE - 5, 2 * ONE + 5, 5 + (1 << 24))
    pinned = bend((), lambda x: x, pins=[[None], [7 * ONE]])
    found = exact.bound.bent([source], pinned, 1)
    assert (found.lower[0], found.upper[0], found.noise[0]) == (7 * ONE, 7 * ONE, 0)
    assert found.lines[0] == (0, 7 * ONE << 32, 0, 7 * ONE << 32)
    assert list(found.mass) == [7 * ONE]


def backward(values, layers, start, row):
    """The same substitution in rational numbers, without any rounding; in ticks."""
    total, waiting = Fraction(0), {start: [Fraction(v) for v in row]}
    for at in range(start, 0, -1):
        a, made = waiting.pop(at, None), layers[at - 1]
        if a is None or not any(a):
            continue
        if isinstance(made, exact.layers.Bend):
            passed = []
            for c, (s, t, u, v) in zip(a, values[at].lines, strict=True):
                total += c * Fraction(t if c > 0 else v, 1 << 32)
                passed.append(c * Fraction(s if c > 0 else u, 1 << 32))
            if made.kinks is None:
                continue
        else:
            total += sum(c * b - abs(c) * e for c, b, e in zip(a, made.bias, values[at].noise, strict=True))
            size = sum(len(values[s].size) for s in made.sources)
            passed = [Fraction(0)] * size
            for c, (index, weights) in zip(a, made.rows, strict=True):
                for j, w in zip(range(size) if index is None else index, weights, strict=True):
                    passed[j] += c * Fraction(w, 1 << made.q)
        for source in made.sources:
            part, passed = passed[: len(values[source].size)], passed[len(values[source].size) :]
            waiting[source] = [x + y for x, y in zip(waiting.get(source, [0] * len(part)), part, strict=True)]
    a = waiting.get(0, [0] * len(values[0].size))
    ends = list(zip(a, values[0].lower, values[0].upper, strict=True))
    weights = [abs(c) * (high - low) for c, low, high in ends]
    return total + sum(c * (low if c > 0 else high) for c, low, high in ends), weights


def deep(seed, wide=False):
    """Layers with a sum of two values among them, and a box."""
    rng, made = np.random.default_rng(seed), []
    n = 3
    for depth in range(3):
        weights = [random_ticks(rng, n) for _ in range(n)]
        made.append(layer([(None, row) for row in weights], random_ticks(rng, n), n + 1, (len(made),)))
        made.append(exact.layers.Bend((len(made),), (relu, leaky)[depth % 2]().f, (0,), leak=depth % 2 == 1))
    at = len(made)
    pairs = [((i, i + n), (ONE, -ONE if seed % 2 else ONE)) for i in range(n)]
    made.append(layer(pairs, [0] * n, 0, (at, at - 2)))
    made.append(layer([((i,), (ONE // 2,)) for i in range(n)], random_ticks(rng, n), 0, (len(made),)))
    low = random_ticks(rng, n)
    return made, low, [v + ONE // (1 if wide else 8) for v in low]


@pytest.mark.parametrize("seed", range(8))
def test_backward_bounds_lose_little_and_only_downward(seed):
    layers, low, high = deep(seed, seed % 3 == 0)
    values = exact.bound.bound(layers, 0, low, high)
    assert values is not None
    for row in product((-1, 0, 2), repeat=3):
        ours, weights = exact.bound.lowest(values, layers, len(layers), row)
        theirs, exactly = backward(values, layers, len(layers), row)
        assert Fraction(ours, 1 << 64) <= theirs
        assert theirs - Fraction(ours, 1 << 64) <= (abs(theirs) + ONE) * Fraction(1, 2**40)
        scales = {round(float(w / e), 6) for w, e in zip(weights, exactly, strict=True) if e}
        assert len(scales) <= 1 or max(scales) / min(scales) < 1.001
    for at in range(1, len(layers) + 1):
        for i in range(3):
            unit = [int(i == j) for j in range(3)]
            assert Fraction(exact.bound.lowest(values, layers, at, unit)[0], 1 << 64) <= values[at].upper[i]


@pytest.mark.parametrize("seed", range(4))
def test_bends_are_bounded_by_the_better_of_both_ways(seed):
    layers, low, high = deep(seed, True)
    values = exact.bound.bound(layers, 0, low, high)
    for at, made in enumerate(layers):
        if not isinstance(made, exact.layers.Bend) or at < 3:
            continue
        source = made.sources[0]
        plain = exact.bound.summed(values[:source], layers[source - 1])
        for i in range(3):
            unit = [int(i == j) for j in range(3)]
            down = backward(values, layers, source, unit)[0]
            up = -backward(values, layers, source, [-v for v in unit])[0]
            inner = plain.lower[i] < 0 < plain.upper[i]
            best = (max(plain.lower[i], down), min(plain.upper[i], up)) if inner else None
            theirs = best or (plain.lower[i], plain.upper[i])
            assert values[source].lower[i] <= theirs[0] <= values[source].lower[i] + (ONE >> 30)
            assert values[source].upper[i] >= theirs[1] >= values[source].upper[i] - (ONE >> 30)


def test_what_may_overflow_has_no_bound():
    def through(weight, bias=0, roundings=2):
        return exact.bound.bound([layer([((0,), (weight,))], [bias], roundings)], 0, [0], [ONE])

    assert through(1 << 274) is not None
    assert through(1 << 275) is None
    assert through(ONE, 1 << 275) is None
    assert through(1 << 275, roundings=0) is None
    assert exact.bound.bound([relu()], 0, [-ONE], [1 << 274]) is not None
    assert exact.bound.bound([relu()], 0, [-ONE], [1 << 276]) is None
    assert exact.bound.bound([relu()], 0, [-ONE], [(1 << 275) - (1 << 24) - 1]) is not None
    assert exact.bound.bound([relu()], 0, [-ONE], [(1 << 275) - (1 << 24)]) is None
    assert exact.bound.bound([relu()], 0, [ONE], [-ONE]) is None
    assert exact.bound.bound([layer([((0,), (ONE,))], [0], 2)], 0, [ONE], [-ONE]) is None


def test_parts_of_a_sum_may_come_at_any_scale():
    small = ONE >> 100
    layers = [
        layer([((0,), (ONE,))], [0], 2),
        layer([((0,), (small,))], [0], 2),
        layer([((0, 1), (ONE, ONE))], [0], 0, (1, 2)),
        layer([((0, 1), (ONE, ONE))], [0], 0, (2, 1)),
        layer([((0, 1), (ONE, 3 * ONE))], [0], 0, (3, 4)),
    ]
    values = exact.bound.bound(layers, 0, [ONE], [3 * ONE])
    ours, (weight,) = exact.bound.lowest(values, layers, 5, [1])
    theirs = backward(values, layers, 5, [1])[0]
    assert Fraction(ours, 1 << 64) <= theirs <= Fraction(ours, 1 << 64) + (ONE >> 90)
    assert theirs > 3 * ONE
    assert weight > 0
