"""The condensed network is the network on its box, and maxima as rectifiers are the maxima."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_networks import chain, single
from random_networks import boxes, networks, points

from sutura.bounds.condensed import condense
from sutura.bounds.crown import crown
from sutura.bounds.lower import lower
from sutura.bounds.maxima import without_maxima
from sutura.bounds.program import MaxOf, run
from sutura.bounds.region import Region
from sutura.network import ops
from sutura.verdict.descent import forward


def condensed(program, region, rows):
    with np.errstate(all="ignore"):
        return condense(program, region, crown(program, region), rows)


def box(low, high):
    return Region(np.array([low], dtype=np.float64), np.array([high], dtype=np.float64))


def test_stable_neurons_disappear():
    # Over [1, 2]: relu(x) = x, relu(-x) = 0, relu(x - 1.5) is open.
    network = chain(
        (1,),
        ops.Gemm(single([[1], [-1], [1]]), single([0, 0, -1.5]), transposed=True),
        ops.Relu(),
        ops.Gemm(single([[1, 10, 4]]), single([7]), transposed=True),
    )
    net = condensed(lower(network), box([1], [2]), np.ones((1, 1)))
    assert net.neurons == 1
    np.testing.assert_allclose(net.from_inputs, [[1]])
    np.testing.assert_allclose(net.bias, [-1.5])
    np.testing.assert_allclose(net.rows_inputs, [[1]])
    np.testing.assert_allclose(net.rows_neurons, [[4]])
    np.testing.assert_allclose(net.rows_bias, [7])
    assert net.low[0] <= -0.5 < -0.49 and net.high[0] >= 0.5


def test_inputs_that_are_one_number_are_folded_into_the_constants():
    network = chain((2,), ops.Gemm(single([[3, 5]]), single([1]), transposed=True), ops.Relu())
    net = condensed(lower(network), box([-1, 2], [1, 2]), np.ones((1, 1)))
    assert list(net.varying) == [0]
    np.testing.assert_allclose(net.from_inputs, np.zeros((0, 1)))
    np.testing.assert_allclose(net.rows_bias, [11])
    np.testing.assert_allclose(net.inputs(single([[0.5]])), [[0.5, 2]])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_inside_the_box_it_is_the_network(data):
    network = data.draw(networks())
    region = data.draw(boxes(network.input_size)).take(slice(0, 1))
    program = without_maxima(lower(network))
    rows = np.eye(network.output_size)
    net = condensed(program, region, rows)
    xs = points(region, 8)[0].astype(np.float64)
    with np.errstate(all="ignore"):
        values = run(program, xs)
        _, f = forward(net, xs[:, net.varying].astype(np.float32))
        found = xs[:, net.varying] @ net.rows_inputs.T + f @ net.rows_neurons.T + net.rows_bias
        scale = 1 + max(abs(v).max() for v in values) + abs(net.rows_bias).max() + abs(f).max(initial=0)
    if np.isfinite(scale) and scale < 1e6:
        scale *= 1 + abs(net.rows_neurons).max(initial=0) + abs(net.from_neurons).max(initial=0)
        np.testing.assert_allclose(found, values[-1], atol=3e-5 * scale)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_rectified_differences_are_the_maxima(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    kernel = data.draw(st.sampled_from([(2, 2), (3, 2), (1, 3), (4, 4)]))
    network = chain(
        (2, 5, 5), ops.MaxPool(kernel, (2, 1), (0, 0, 1, 0) if kernel[0] > 1 else (0,) * 4, (1, 1))
    )
    program = lower(network)
    changed = without_maxima(program)
    assert not any(isinstance(layer, MaxOf) for layer in changed.layers)
    x = random.normal(size=(6, 50))
    np.testing.assert_allclose(run(changed, x)[-1], run(program, x)[-1], atol=1e-12)
