"""The backward bound against an independent one in exact rational arithmetic, with and without noise."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from ir_networks import chain, single

from sutura.bounds.crown import crown, lower_planes
from sutura.bounds.lower import lower
from sutura.bounds.region import Region
from sutura.bounds.rounding import EXACT_REALS, FLOAT32_ANY_ORDER
from sutura.network import ops
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session
from sutura.network.run import run as network_run

UNIT = Fraction(1, 2**24)


def exact(values):
    return [exact(v) if np.ndim(v) else Fraction(float(v)) for v in values]


def dot(a, b):
    return sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))


def noise(row, bias, size, unit):
    """gamma_{n+5} (|W| m + |b|) and 2^-126 for each of 2 n + 11 operations that may underflow: a product and
    a sum an input, the bias, and four for constants that a runtime may fold into the weights."""
    if not unit:
        return Fraction(0)
    roundings = len(row) + 5
    relative = roundings * unit / (1 - roundings * unit)
    tiny = (2 * roundings + 1) * Fraction(1, 2**126) * (1 + max(abs(w) for w in row))
    return relative * (dot([abs(w) for w in row], size) + abs(bias)) + tiny


def least(rows, layers, lows, highs, low, high, unit):
    """Exact lower bounds of rows . z of the last affine layer, by substitution back to the box."""
    found = []
    for row in rows:
        a, constant = list(row), Fraction(0)
        for at in range(len(layers) - 1, -1, -1):
            weight, bias = layers[at]
            source_low, source_high = (low, high) if at == 0 else relu(lows[at - 1], highs[at - 1])
            size = [max(abs(lo), abs(hi)) for lo, hi in zip(source_low, source_high, strict=True)]
            constant += dot(a, bias)
            constant -= dot(
                [abs(v) for v in a], [noise(w, b, size, unit) for w, b in zip(weight, bias, strict=True)]
            )
            a = [dot(a, [w[j] for w in weight]) for j in range(len(weight[0]))]
            if at > 0:
                a, constant = through_relu(a, constant, lows[at - 1], highs[at - 1])
        constant += sum(
            (v * (lo if v > 0 else hi) for v, lo, hi in zip(a, low, high, strict=True)), Fraction(0)
        )
        found.append(constant)
    return found


def through_relu(a, constant, lows, highs):
    slopes = []
    for v, lo, hi in zip(a, lows, highs, strict=True):
        if lo >= 0 or hi <= 0:
            slopes.append(v if lo >= 0 else Fraction(0))
        elif v > 0:
            slopes.append(v if hi > -lo else Fraction(0))
        else:
            slopes.append(v * hi / (hi - lo))
            constant += -v * lo * hi / (hi - lo)
    return slopes, constant


def relu(lows, highs):
    return [max(v, Fraction(0)) for v in lows], [max(v, Fraction(0)) for v in highs]


def reference(layers, low, high, rows, unit):
    """Exact lower bounds of rows . output; open neurons get the better of interval and substitution."""
    lows, highs = [], []
    for at, (weight, bias) in enumerate(layers):
        source_low, source_high = (low, high) if at == 0 else relu(lows[-1], highs[-1])
        size = [max(abs(lo), abs(hi)) for lo, hi in zip(source_low, source_high, strict=True)]
        r = [noise(w, b, size, unit) for w, b in zip(weight, bias, strict=True)]
        plain_low = [
            b + reach(w, source_low, source_high) - e for w, b, e in zip(weight, bias, r, strict=True)
        ]
        plain_high = [
            b + reach(w, source_high, source_low) + e for w, b, e in zip(weight, bias, r, strict=True)
        ]
        if 0 < at < len(layers) - 1:
            unit_rows = [[Fraction(int(i == j)) for j in range(len(bias))] for i in range(len(bias))]
            negated = [[-v for v in row] for row in unit_rows]
            back, forth = (
                least(r, layers[: at + 1], lows, highs, low, high, unit) for r in (unit_rows, negated)
            )
            for i in [i for i in range(len(bias)) if plain_low[i] < 0 < plain_high[i]]:
                plain_low[i] = max(plain_low[i], back[i])
                plain_high[i] = min(plain_high[i], -forth[i])
        lows.append(plain_low)
        highs.append(plain_high)
    back = least(rows, layers, lows, highs, low, high, unit)
    return [max(value, reach(row, lows[-1], highs[-1])) for value, row in zip(back, rows, strict=True)]


def reach(row, low, high):
    return sum((w * (lo if w > 0 else hi) for w, lo, hi in zip(row, low, high, strict=True)), Fraction(0))


def example(seed):
    random = np.random.default_rng(seed)
    sizes = [int(v) for v in random.integers(1, 5, int(random.integers(2, 5)))]
    scale = (1.0, 1.0, 50.0)[seed % 3]
    layers = [
        (single(random.normal(size=(m, n)) * scale), single(random.normal(size=m)))
        for n, m in pairwise(sizes)
    ]
    operators = [op for w, b in layers for op in (ops.Gemm(w, b, transposed=True), ops.Relu())][:-1]
    centre, width = random.normal(size=sizes[0]), random.random(sizes[0]) * (0.1, 1.0)[seed % 2]
    low, high = single(centre - width), single(centre + width)
    rows = single(np.concatenate([np.eye(sizes[-1]), -np.eye(sizes[-1]), random.normal(size=(2, sizes[-1]))]))
    return chain((sizes[0],), *operators), layers, low, high, rows


def fast(network, low, high, rows, profile):
    program, region = lower(network), Region(low[None].astype(np.float64), high[None].astype(np.float64))
    bounds = crown(program, region, profile=profile)
    return [
        Fraction(v) for v in lower_planes(program, region, bounds, rows.astype(np.float64)).value[0].tolist()
    ]


@pytest.mark.parametrize("seed", range(60))
def test_the_fast_bound_is_never_above_the_exact_one_and_close_to_it(seed):
    network, layers, low, high, rows = example(seed)
    exact_layers = [(exact(w), exact(b)) for w, b in layers]
    ends = exact(low), exact(high)
    noisy = reference(exact_layers, *ends, exact(rows), UNIT)
    reals = reference(exact_layers, *ends, exact(rows), Fraction(0))
    sound = fast(network, low, high, rows, FLOAT32_ANY_ORDER)
    without = fast(network, low, high, rows, EXACT_REALS)
    assert all(a <= b for a, b in zip(sound, noisy, strict=True))
    assert all(a <= b for a, b in zip(without, reals, strict=True))
    # Close: the fast bound adds only its own float64 slack, far below the noise of float32 itself.
    slack = [n - s for n, s in zip(noisy, sound, strict=True)]
    cost = [r - n for r, n in zip(reals, noisy, strict=True)]
    assert all(s <= c / 1000 for s, c in zip(slack, cost, strict=True))
    # A bound without the noise term would be caught: it lies above what is sound.
    assert all(a > b for a, b in zip(without, noisy, strict=True))


def order_dependent(n, omega):
    """y = omega - omega + 1 in some order, then 10 relu(0.5 - y): 0 in the reals, 5 where 1 is lost."""
    first = ops.Gemm(single(np.zeros((n, 1))), single(np.ones(n)), transposed=True)
    row = single([[omega, *[1 / (n - 2)] * (n - 2), -omega]])
    second = ops.Gemm(-row, single([0.5]), transposed=True)
    last = ops.Gemm(single([[10.0]]), single([0.0]))
    return chain((1,), first, ops.Relu(), second, ops.Relu(), last)


@pytest.mark.parametrize(("n", "omega"), [(3, 2.0**25), (34, 2.0**20), (66, 2.0**30)])
def test_an_order_dependent_network_keeps_its_worst_execution_inside(n, omega):
    network = order_dependent(n, omega)
    region = Region(np.array([[0.0]]), np.array([[1.0]]))
    bounds = crown(lower(network), region)
    executed = float(network_run(open_session(write_onnx(network)), single([[0.5]]))[0, 0])
    assert bounds.high[-1][0, 0] >= max(5.0, executed)
    assert crown(lower(network), region, profile=EXACT_REALS).high[-1][0, 0] < 1.0
