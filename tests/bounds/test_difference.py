"""Bounds of the difference of two networks: hand-computed, and left by no pair of float32 executions."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ir_networks import ORDERS, chain, execute, graph, single
from random_networks import boxes, networks, points

from sutura.bounds.difference import difference_bounds
from sutura.bounds.lower import lower
from sutura.bounds.pair import pair
from sutura.bounds.program import run
from sutura.bounds.region import Region
from sutura.bounds.secant import SECANTS, chords
from sutura.bounds.stages import stages
from sutura.network import ops

thorough = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def nudged(network, seed, size):
    """The same network with other weights: a share of their size away."""
    random = np.random.default_rng(seed)

    def moved(op):
        if not isinstance(op, ops.MatMul | ops.Gemm | ops.Conv | ops.AddConstant):
            return op
        names = [f.name for f in fields(op) if f.name in ("weight", "bias", "value")]
        old = {name: getattr(op, name) for name in names if getattr(op, name) is not None}
        new = {k: single(v * (1.0 + size * random.normal(size=v.shape))) for k, v in old.items()}
        return replace(op, **new)

    return replace(network, nodes=tuple(replace(n, op=moved(n.op)) for n in network.nodes))


def assert_between(value, low, high):
    lost = np.isnan(value) & (low == -np.inf) & (high == np.inf)
    assert (lost | ((low <= value) & (value <= high))).all(), (value, low, high)


@thorough
@given(st.data())
def test_no_two_executions_differ_by_more(data):
    first = data.draw(networks())
    second = nudged(first, data.draw(st.integers(0, 99)), data.draw(st.sampled_from((0.0, 1e-3, 0.3))))
    region = data.draw(boxes(first.input_size))
    both = pair(lower(first), lower(second))
    assert both.twins is not None
    with np.errstate(all="ignore"):
        paired = difference_bounds(both, region)
        joint = difference_bounds(replace(both, twins=None), region)
        exact = [run(both.joint, xs.astype(np.float64))[-1] for xs in points(region, 8)]
    for box, xs in enumerate(points(region, 3)):
        for x in xs:
            shaped = x.reshape(first.input_shape)
            ours = [execute(first, shaped, order)[first.output].reshape(-1) for order in ORDERS]
            theirs = [execute(second, shaped, order)[second.output].reshape(-1) for order in ORDERS]
            for a in ours:
                for b in theirs:
                    with np.errstate(invalid="ignore"):
                        apart = a.astype(np.float64) - b.astype(np.float64)
                    assert_between(apart, paired.low[box], paired.high[box])
                    assert_between(apart, joint.low[box], joint.high[box])
        if np.isfinite(exact[box]).all():
            assert_between(exact[box], paired.low[box], paired.high[box])


@thorough
@given(
    st.sampled_from(sorted(SECANTS, key=lambda kind: kind.__name__)),
    st.integers(0, 2**32 - 1),
    st.sampled_from((1e-3, 1.0, 20.0)),
)
def test_chords_hold_the_difference_of_two_activations(kind, seed, scale):
    random = np.random.default_rng(seed)
    op = ops.LeakyRelu(float(np.float32(random.normal()))) if kind is ops.LeakyRelu else kind()
    low = single(random.normal(size=(1, 40)) * scale).astype(np.float64)
    high = low + single(random.random((1, 40)) * scale)
    a, b = (low + random.random((200, 40)) * (high - low) for _ in range(2))
    d_low, d_high = (a - b).min(axis=0)[None], (a - b).max(axis=0)[None]
    lines = chords(SECANTS[kind](low, high, op), d_low, d_high)
    apply = {
        ops.Relu: lambda x: np.maximum(x, 0),
        ops.LeakyRelu: lambda x: np.where(x >= 0, x, getattr(op, "slope", 0) * x),
        ops.Sigmoid: lambda x: 1 / (1 + np.exp(-x)),
        ops.Tanh: np.tanh,
        ops.Square: np.square,
        ops.Exp: np.exp,
        ops.Reciprocal: lambda x: 1 / x,
    }[kind]
    with np.errstate(all="ignore"):
        y = apply(a) - apply(b)
        assert_between(y, lines.lower_slope * (a - b) + lines.lower_offset, np.inf)
        assert_between(y, -np.inf, lines.upper_slope * (a - b) + lines.upper_offset)


def test_chords_by_hand():
    # ReLU, both signs open, d in [-1, 3]: above through (-1, 0), (3, 3); below through (-1, -1), (3, 0).
    steep = SECANTS[ops.Relu](np.array([[-2.0]]), np.array([[2.0]]), ops.Relu())
    lines = chords(steep, np.array([[-1.0]]), np.array([[3.0]]))
    assert lines.upper_slope == pytest.approx(0.75)
    assert lines.upper_offset == pytest.approx(0.75)
    assert lines.lower_slope == pytest.approx(0.25)
    assert lines.lower_offset == pytest.approx(-0.75)


def test_stages_compose_affine_layers():
    a, b, c = (np.array(w, np.float32) for w in ([[1, 2], [3, 4]], [[1, 0], [1, 1]], [[2], [1]]))
    network = chain((2,), ops.MatMul(a), ops.MatMul(b), ops.Relu(), ops.MatMul(c))
    first, last = stages(lower(network))
    assert np.array_equal(np.asarray(first.weights[0]), (a @ b).T)
    assert np.array_equal(np.asarray(last.weights[1]), c.T)
    assert last.activation is None


def test_one_relu_by_hand():
    # relu(x) - relu(x + 0.5) on [-1, 1]: -0.5 where both are active, 0 where neither is.
    first = chain((1,), ops.MatMul(single([[1.0]])), ops.Relu())
    second = chain((1,), ops.MatMul(single([[1.0]])), ops.AddConstant(single([0.5])), ops.Relu())
    region = Region(np.array([[-1.0]]), np.array([[1.0]]))
    found = difference_bounds(pair(lower(first), lower(second)), region)
    assert found.low[0, 0] == pytest.approx(-0.5, abs=1e-5)
    assert found.high[0, 0] == pytest.approx(0.0, abs=1e-5)
    # By their own bounds: 0 - 1.5 and 1 - 0.
    assert found.separate[0][0, 0] == pytest.approx(-1.5, abs=1e-5)
    assert found.separate[1][0, 0] == pytest.approx(1.0, abs=1e-5)


def test_a_network_differs_from_itself_by_rounding_alone():
    random = np.random.default_rng(0)
    layers = []
    for n, m in ((5, 40), (40, 40), (40, 3)):
        layers += [ops.MatMul(single(random.normal(size=(n, m)) / np.sqrt(n))), ops.Relu()]
    network = chain((5,), *layers[:-1])
    region = Region(np.full((1, 5), -1.0), np.full((1, 5), 1.0))
    found = difference_bounds(pair(lower(network), lower(network)), region)
    assert max(abs(found.low).max(), abs(found.high).max()) < 1e-3
    assert (found.separate[1] - found.separate[0]).max() > 1.0


def test_a_low_rank_layer_pairs_with_the_dense_one():
    random = np.random.default_rng(0)
    narrow, wide = single(random.normal(size=(4, 1))), single(random.normal(size=(1, 6)))
    tail = (ops.Relu(), ops.MatMul(single(random.normal(size=(6, 2)))))
    dense = chain((4,), ops.MatMul(single(narrow @ wide)), *tail)
    split = chain((4,), ops.MatMul(narrow), ops.MatMul(wide), *tail)
    both = pair(lower(dense), lower(split))
    assert both.twins is not None
    region = Region(np.full((1, 4), -1.0), np.full((1, 4), 1.0))
    assert abs(difference_bounds(both, region).high).max() < 1e-4


def test_other_activations_do_not_pair():
    weight = ops.MatMul(single([[1.0, -1.0]]))
    one, other = chain((1,), weight, ops.Relu()), chain((1,), weight, ops.Tanh())
    assert pair(lower(one), lower(other)).twins is None


def test_branches_keep_their_own_differences():
    weight = single(np.eye(2))
    steps = [(ops.MatMul(weight), ("x",), "a"), (ops.Relu(), ("a",), "b"), (ops.Add(), ("a", "b"), "c")]
    first = graph((2,), *steps)
    second = nudged(first, 1, 0.01)
    region = Region(np.full((1, 2), -1.0), np.full((1, 2), 1.0))
    found = difference_bounds(pair(lower(first), lower(second)), region)
    assert 0 < abs(found.high).max() < 0.2


def test_networks_that_do_not_pair_meet_the_same_input():
    first, second = (lower(chain((1,), ops.MatMul(single([[slope]])))) for slope in (3.0, 2.75))
    region = Region(np.array([[-1.0]]), np.array([[1.0]]))
    found = difference_bounds(replace(pair(first, second), twins=None), region)
    assert found.separate[1][0, 0] == pytest.approx(5.75, rel=1e-5)
    assert 0.25 <= found.high[0, 0] < 0.25001
    assert -0.25001 < found.low[0, 0] <= -0.25
