"""No execution leaves the bounds: any operator, any box, several orders of summation, ONNX Runtime."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from ir_networks import ORDERS, chain, execute, graph, single
from random_networks import boxes, networks, points

from sutura.bounds.crown import crown, lower_planes
from sutura.bounds.lower import lower, lower_traced
from sutura.bounds.program import run
from sutura.bounds.region import Region, halves
from sutura.network import ops
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session
from sutura.network.run import run as network_run

thorough = settings(
    max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def bounded(program, region, known=None):
    with np.errstate(all="ignore"):
        return crown(program, region, known)


def assert_inside(value, low, high):
    """Not-a-number may only be where nothing is promised."""
    lost = np.isnan(value) & (low == -np.inf) & (high == np.inf)
    outside = ~lost & ~((low <= value) & (value <= high))
    assert not outside.any(), (value[outside], np.broadcast_to(low, value.shape)[outside], high)


def executions(network, x):
    for order in ORDERS:
        yield order, execute(network, x, order)


def runtime(network, x):
    return network_run(open_session(write_onnx(network)), x.reshape(len(x), *network.input_shape))


@thorough
@given(st.data())
def test_no_float32_execution_leaves_the_bounds_at_any_value(data):
    network = data.draw(networks())
    region = data.draw(boxes(network.input_size))
    program, at = lower_traced(network)
    merged = lower(network)
    bounds, joined = bounded(program, region), bounded(merged, region)
    event(f"{len(network.nodes)} nodes")
    for box, xs in enumerate(points(region, 3)):
        for x in xs:
            for _, values in executions(network, x.reshape(network.input_shape)):
                for name, value in values.items():
                    flat = value.reshape(-1).astype(np.float64)
                    assert_inside(flat, bounds.low[at[name]][box], bounds.high[at[name]][box])
                flat = values[network.output].reshape(-1).astype(np.float64)
                assert_inside(flat, joined.low[-1][box], joined.high[-1][box])
        found = runtime(network, xs).reshape(len(xs), -1).astype(np.float64)
        assert_inside(found, bounds.low[at[network.output]][box], bounds.high[at[network.output]][box])
        assert_inside(found, joined.low[-1][box], joined.high[-1][box])


@thorough
@given(st.data())
def test_no_exact_value_leaves_the_bounds_and_neither_do_those_of_halves(data):
    network = data.draw(networks())
    region = data.draw(boxes(network.input_size))
    program = lower(network)
    whole = bounded(program, region)
    dims = (region.high - region.low).argmax(axis=1)
    open_boxes = np.flatnonzero((region.high > region.low).any(axis=1))
    parts = [(region, whole)]
    if len(open_boxes):
        cut = halves(region.take(open_boxes), dims[open_boxes])
        known = whole.enclosure(program).take(open_boxes)
        parts += [(half, bounded(program, half, known)) for half in cut]
    for part, bounds in parts:
        for box, xs in enumerate(points(part, 12)):
            with np.errstate(all="ignore"):
                values = run(program, xs.astype(np.float64))
            for value, low, high in zip(values, bounds.low, bounds.high, strict=True):
                assert_inside(value, low[box], high[box])
            found = runtime(network, xs[:2]).reshape(2, -1).astype(np.float64)
            assert_inside(found, bounds.low[-1][box], bounds.high[-1][box])


@thorough
@given(st.data())
def test_lower_planes_stay_below_every_execution(data):
    network = data.draw(networks())
    region = data.draw(boxes(network.input_size))
    program = lower(network)
    outputs = network.output_size
    unit = np.eye(outputs)
    random = np.random.default_rng(outputs)
    mixed = single(random.normal(size=(3, outputs))).astype(np.float64)
    rows = np.concatenate([unit[:4], -unit[:4], mixed, unit[:1] - unit[-1:]])
    bounds = bounded(program, region)
    with np.errstate(all="ignore"):
        planes = lower_planes(program, region, bounds, rows)
    assert not np.isnan(planes.value).any()
    for box, xs in enumerate(points(region, 3)):
        for x in xs:
            found = [v[network.output] for _, v in executions(network, x.reshape(network.input_shape))]
            for y in [*found, runtime(network, x[None])[0]]:
                assert_below(planes.value[box], rows, y.reshape(-1))


@thorough
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 0.05, 1.0, 20.0]))
def test_products_and_quotients_stay_inside(seed, width):
    """u * v / (v^2 + k), 1 / (v^2 + k) and e^u of two random affine functions, in float32 of any order."""
    random = np.random.default_rng(seed)
    weights = [single(random.normal(size=(3, 2)) * random.choice([0.1, 1.0, 30.0])) for _ in "uv"]
    network = graph(
        (3,),
        (ops.MatMul(weights[0]), ("x",), "u"),
        (ops.MatMul(weights[1]), ("x",), "v"),
        (ops.Square(), ("v",), "s"),
        (ops.AddConstant(single(random.choice([1e-3, 0.5]))), ("s",), "d"),
        (ops.Multiply(), ("u", "v"), "p"),
        (ops.Divide(), ("p", "d"), "q"),
        (ops.Reciprocal(), ("d",), "r"),
        (ops.Tanh(), ("u",), "t"),
        (ops.Exp(), ("t",), "e"),
        (ops.Concat(0), ("u", "v"), "w"),
        (ops.Softmax(), ("w",), "m"),
        (ops.Concat(0), ("q", "r", "e", "m"), "y"),
    )
    centre = random.normal(size=(1, 3)) * 3
    low, high = single(centre - width), single(centre + width)
    region = Region(low.astype(np.float64), high.astype(np.float64))
    program, at = lower_traced(network)
    bounds, joined = bounded(program, region), bounded(lower(network), region)
    xs = points(region, 6)[0]
    for x in xs:
        for _, values in executions(network, x):
            for name, value in values.items():
                assert_inside(value.astype(np.float64), bounds.low[at[name]][0], bounds.high[at[name]][0])
            assert_inside(values["y"].astype(np.float64), joined.low[-1][0], joined.high[-1][0])
    found = runtime(network, xs).astype(np.float64)
    assert_inside(found, joined.low[-1][0], joined.high[-1][0])


def assert_below(value, rows, y):
    """Products of float32 numbers are exact in float64, and fsum rounds once."""
    if np.isfinite(y).all():
        exact = [math.fsum(products) for products in rows * y.astype(np.float64)]
        assert (value <= exact).all()


def point(*values):
    low = single([values]).astype(np.float64)
    return Region(low, low)


def scaled(weight, factor):
    return chain((1,), ops.MatMul(single([[weight]])), ops.MultiplyConstant(single([factor])))


@pytest.mark.parametrize("factor", [2.0**-100, 0.0])
def test_an_overflow_inside_merged_layers_leaves_nothing_promised(factor):
    # 2^30 * 2^100 overflows float32; inf * 2^-100 is inf and inf * 0 not a number, whatever the reals say.
    network = scaled(2.0**100, factor)
    bounds = bounded(lower(network), point(2.0**30))
    assert not np.isfinite(runtime(network, single([[2.0**30]]))).any()
    assert bounds.low[-1][0, 0] == -np.inf and bounds.high[-1][0, 0] == np.inf


def test_an_underflow_inside_merged_layers_is_covered():
    # 2^-80 * 2^-80 is below the least float32 number: the run gives 0 where the reals give 2^-40.
    network = scaled(2.0**-80, 2.0**120)
    bounds = bounded(lower(network), point(2.0**-80))
    assert runtime(network, single([[2.0**-80]])) == 0.0
    assert bounds.low[-1][0, 0] <= 0.0 and bounds.high[-1][0, 0] >= 2.0**-40


def test_merging_never_changes_what_is_promised_of_scaled_convolutions():
    random = np.random.default_rng(5)
    weight = single(random.normal(size=(2, 1, 2, 2)))
    normal = ops.BatchNormalization(
        single([1e-3, 0.0]), single([0.5, 0.25]), single([0.1, 0.2]), single([1e-4, 1.0]), 1e-5
    )
    conv = ops.Conv(weight, None, (1, 1), (0, 0, 0, 0), (1, 1))
    network = chain((1, 3, 3), conv, normal)
    assert len(lower(network).layers) == 1
    region = Region(-np.ones((1, 9)), np.ones((1, 9)))
    bounds = bounded(lower(network), region)
    found = runtime(network, points(region, 200)[0]).reshape(200, -1)
    assert_inside(found.astype(np.float64), bounds.low[-1], bounds.high[-1])
    assert bounds.low[-1][0, 4] == pytest.approx(0.25, abs=1e-6)  # a channel scaled by zero is its bias


def test_what_overflows_is_refused_and_the_rest_is_not():
    # Two outputs: one passes through 2^128 and is lost, the other is y = x.
    weight, back = single([[2.0**100, 1.0]]), single(np.diag([2.0**-100, 1.0]))
    network = chain((1,), ops.MatMul(weight), ops.Relu(), ops.MatMul(back))
    region = Region(np.array([[2.0**27]]), np.array([[2.0**28]]))
    bounds = bounded(lower(network), region)
    with np.errstate(all="ignore"):
        planes = lower_planes(lower(network), region, bounds, np.eye(2))
    assert planes.value[0, 0] == -np.inf
    assert bounds.low[1][0, 0] == -np.inf and bounds.high[1][0, 0] == np.inf
    assert bounds.low[1][0, 1] == pytest.approx(2.0**27, rel=1e-6)
    assert bounds.high[1][0, 1] == pytest.approx(2.0**28, rel=1e-6)


def test_a_value_added_to_itself_counts_twice():
    # relu(tanh(x) + tanh(x)) at x = 1 is 1.5232; read once it would seem to be 0.7616.
    steps = [(ops.Tanh(), ["x"], "t"), (ops.Add(), ["t", "t"], "s"), (ops.LeakyRelu(0.5), ["s"], "y")]
    region = Region(np.array([[-1.0]]), np.array([[1.0]]))
    bounds = bounded(lower(graph((1,), *steps)), region)
    assert bounds.low[-1][0, 0] <= -np.tanh(1) and bounds.high[-1][0, 0] >= 2 * np.tanh(1)


@pytest.mark.parametrize(
    "op",
    [
        ops.GlobalAveragePool(),
        ops.AveragePool((6,), (1,), (0, 0)),
        ops.MatMul(np.full((6, 1), 0.25, np.float32)),
        ops.Conv(np.full((1, 1, 6), 0.25, np.float32), None, (1,), (0, 0), (1,)),
    ],
    ids=lambda op: type(op).__name__,
)
def test_every_order_of_a_cancelling_sum_is_inside(op):
    # 2^24 + 1 is 2^24 in float32: some orders give 0, others 4/6 (or 1).
    x = single([[2.0**24, 1, 1, 1, 1, -(2.0**24)]])
    network = chain((1, 6), op)
    bounds = bounded(lower(network), point(*x[0]))
    found = [float(values["v0"].reshape(-1)[0]) for _, values in executions(network, x)]
    assert min(found) == 0.0 and max(found) > 0.6
    assert bounds.low[-1][0, 0] <= min(found) and max(found) <= bounds.high[-1][0, 0]
