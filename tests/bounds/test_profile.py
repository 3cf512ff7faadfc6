"""Execution profiles: errors are those of formula (2), and executions in them stay inside the bounds."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from ir_networks import chain, single

from sutura.bounds.crown import crown
from sutura.bounds.lower import lower
from sutura.bounds.profile import EXECUTIONS, under
from sutura.bounds.program import Affine
from sutura.bounds.region import Region
from sutura.errors import NetworkError
from sutura.network import ops

UNIT = Fraction(1, 2**24)


def small(seed=0, sizes=(4, 6, 6, 2)):
    rng = np.random.default_rng(seed)
    shapes = pairwise(sizes)
    weights = [(single(rng.normal(size=(m, n))), single(rng.normal(size=m))) for n, m in shapes]
    steps = [op for w, b in weights for op in (ops.Gemm(w, b, transposed=True), ops.Relu())][:-1]
    return chain((sizes[0],), *steps), weights


def gamma(k, u):
    return k * u / (1 - k * u)


@pytest.mark.parametrize("name", ["float32-chopping", "tf32"])
def test_the_count_of_roundings_pays_for_the_formula_and_little_more(name):
    execution = EXECUTIONS[name]
    plain = lower(small()[0])
    for before, after in zip(plain.layers, under(plain, execution).layers, strict=True):
        if isinstance(before, Affine):
            factor, unit = Fraction(execution.factor), Fraction(execution.unit)
            wanted = (1 + factor) ** 2 * (1 + gamma(before.roundings, unit)) - 1
            assert wanted <= gamma(after.roundings, UNIT) <= wanted * Fraction(11, 10) + 3 * UNIT


def test_chopping_is_twice_the_roundings():
    plain = lower(small()[0])
    pairs = zip(plain.layers, under(plain, EXECUTIONS["float32-chopping"]).layers, strict=True)
    assert all(b.roundings - 2 * a.roundings in (0, 1, 2) for a, b in pairs if isinstance(a, Affine))


def test_reals_have_no_roundings_and_the_default_changes_nothing():
    plain = lower(small()[0])
    assert under(plain, EXECUTIONS["float32-any-order"]) is plain
    exact = under(plain, EXECUTIONS["reals"])
    assert all(layer.roundings == 0 == layer.flush for layer in exact.layers if isinstance(layer, Affine))


def cut(x, bits):
    """float32 numbers with their last bits cut off."""
    return (np.float32(x).view(np.uint32) & np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)).view(np.float32)


def toward_zero(value):
    """A float64 value chopped to float32."""
    near = np.float32(value)
    away = np.abs(near.astype(np.float64)) > np.abs(value)
    return np.where(away, np.nextafter(near, np.float32(0)), near).astype(np.float32)


def execute(weights, x, name, rng):
    """One run in the profile: every sum chopped in a random order; TF32 cuts 13 bits of each factor first."""
    values, h = [], x
    for at, (w, b) in enumerate(weights):
        left, right = (cut(w, 13), cut(h, 13)) if name == "tf32" else (w, h)
        z = np.zeros(len(b), np.float32)
        for j in rng.permutation(len(h)):
            product = toward_zero(left[:, j].astype(np.float64) * np.float64(right[j]))
            z = toward_zero(z.astype(np.float64) + product)
        h = toward_zero(z.astype(np.float64) + b)
        values.append(h)
        if at < len(weights) - 1:
            h = np.maximum(h, 0)
            values.append(h)
    return values


@pytest.mark.parametrize("name", ["float32-chopping", "tf32"])
@pytest.mark.parametrize("seed", range(4))
def test_executions_in_the_profile_stay_inside_at_every_neuron(name, seed):
    network, weights = small(seed)
    rng = np.random.default_rng(seed)
    point = single(rng.normal(size=(1, 4)))
    region = Region(point.astype(np.float64), point.astype(np.float64))
    program = lower(network)
    found = crown(under(program, EXECUTIONS[name]), region)
    narrow = crown(program, region)
    runs = [execute(weights, point[0], name, rng) for _ in range(20)]
    assert all(inside(found, values) for values in runs)
    if name == "tf32":
        assert not any(inside(narrow, values) for values in runs)


def inside(bounds, values):
    ends = zip(bounds.low[1:], bounds.high[1:], values, strict=True)
    return all(np.all((low[0] <= value) & (value <= high[0])) for low, high, value in ends)


def test_what_counts_on_round_to_nearest_has_no_bound_in_other_profiles():
    network = chain((2,), ops.LeakyRelu(0.1))
    program = lower(network)
    names = {type(node.op).__name__ for node in network.nodes}
    with pytest.raises(NetworkError, match="tf32 has no bound for LeakyRelu"):
        under(program, EXECUTIONS["tf32"], names)
    under(program, EXECUTIONS["reals"], names)
