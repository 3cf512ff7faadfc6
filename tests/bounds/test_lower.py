"""Lowered programs compute what the operators compute, in float64 to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
from ir_networks import chain, graph, single

from sutura.bounds.crown import crown
from sutura.bounds.lower import Hold, lower, lower_traced
from sutura.bounds.program import Affine, Elementwise, run
from sutura.bounds.region import Region
from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.evaluate import activations, evaluate

RANDOM = np.random.default_rng(7)


def normal(*shape):
    return single(np.random.default_rng(sum(shape) + len(shape)).normal(size=shape))


def conv(out, per_group, kernel, strides, pads, dilations, group=1, bias=True):
    weight = normal(out, per_group, *kernel)
    return ops.Conv(weight, normal(out) if bias else None, strides, pads, dilations, group)


IMAGE, FLAT = (4, 6, 7), (5,)
NORMAL = ops.BatchNormalization(
    normal(4), normal(4), normal(4), single([0.5, 2, 0.1, 1]), 2.0**-10
)  # fmt: skip

OPERATORS = [
    (FLAT, ops.MatMul(normal(5, 3))),
    ((2, 3, 5), ops.MatMul(normal(5, 3))),
    (FLAT, ops.Gemm(normal(5, 4), normal(4))),
    (FLAT, ops.Gemm(normal(4, 5), normal(4), 0.5, -2.0, True)),
    (FLAT, ops.Gemm(normal(5, 4), single(0.7), 1.5, 0.125)),
    (FLAT, ops.Gemm(normal(5, 4), None)),
    (IMAGE, conv(6, 4, (2, 3), (1, 1), (0, 0, 0, 0), (1, 1))),
    (IMAGE, conv(6, 2, (2, 3), (2, 1), (1, 0, 0, 2), (1, 1), group=2)),
    (IMAGE, conv(4, 1, (3, 2), (1, 2), (2, 1, 0, 3), (2, 3), group=4, bias=False)),
    ((3, 9), conv(2, 3, (3,), (2,), (1, 4), (2,))),
    ((2, 4, 3, 5), conv(2, 2, (2, 2, 2), (1, 1, 2), (0, 1, 0, 1, 0, 1), (1, 1, 2))),
    (IMAGE, ops.AveragePool((2, 3), (1, 2), (1, 0, 0, 2), False)),
    (IMAGE, ops.AveragePool((2, 3), (1, 2), (1, 0, 0, 2), True)),
    ((2, 9), ops.AveragePool((4,), (3,), (1, 3), False)),
    (IMAGE, ops.GlobalAveragePool()),
    (IMAGE, ops.MaxPool((2, 3), (1, 2), (1, 0, 0, 2), (2, 1))),
    ((2, 9), ops.MaxPool((4,), (3,), (1, 3), (2,))),
    (IMAGE, NORMAL),
    ((4,), NORMAL),
    (FLAT, ops.AddConstant(normal(5))),
    (IMAGE, ops.AddConstant(normal(4, 1, 1))),
    ((1, 3), ops.AddConstant(normal(4, 1))),
    (IMAGE, ops.SubtractConstant(normal(1, 6, 1))),
    (IMAGE, ops.SubtractConstant(normal(7), reversed=True)),
    (IMAGE, ops.MultiplyConstant(normal(6, 7))),
    ((2, 1), ops.MultiplyConstant(normal(2, 3))),
    (FLAT, ops.MultiplyConstant(single([0, 1, -1, 2, 0.5]))),
    (IMAGE, ops.DivideConstant(single(3.0))),
    (IMAGE, ops.Reshape((12, 14))),
    (IMAGE, ops.Transpose((2, 0, 1))),
    (IMAGE, ops.Pad((0, 1, 2, 1, 0, 3), -0.75)),
    (IMAGE, ops.Take(1, np.array([5, 0, 0, 3]))),
    (FLAT, ops.Take(0, np.array([4]))),
    (IMAGE, ops.Relu()),
    (FLAT, ops.LeakyRelu(float(np.float32(0.1)))),
    (FLAT, ops.LeakyRelu(-0.5)),
    (FLAT, ops.LeakyRelu(3.0)),
    (FLAT, ops.Sigmoid()),
    (FLAT, ops.Tanh()),
    (FLAT, ops.Square()),
    (FLAT, ops.Exp()),
    (FLAT, ops.Softmax()),
    ((3, 2, 4), ops.Softmax()),
    ((3, 2), ops.Softmax()),
    (FLAT, ops.Clip(-0.5, 0.75)),
    (FLAT, ops.Clip(-np.inf, 0.25)),
    (FLAT, ops.Clip(0.125, np.inf)),
    (FLAT, ops.Clip(-np.inf, np.inf)),
    (FLAT, ops.Clip(0.0, float(np.finfo(np.float32).max))),
]


def assert_same(network, scale=2.0):
    x = np.random.default_rng(1).normal(size=(6, *network.input_shape)) * scale
    expected = evaluate(network, x).reshape(6, -1)
    for program in (lower(network), lower_traced(network)[0]):
        assert program.sizes[0] == network.input_size and program.outputs == network.output_size
        found = run(program, x.reshape(6, -1))[-1]
        assert np.abs(found - expected).max() <= 1e-9


@pytest.mark.parametrize(("shape", "op"), OPERATORS, ids=lambda v: type(v).__name__)
def test_each_operator_alone_and_between_layers(shape, op):
    assert_same(chain(shape, op))
    size = int(np.prod(shape))
    around = [
        ops.Reshape((size,)),
        ops.Gemm(normal(size, size), normal(size)),
        ops.Relu(),
        ops.Reshape(shape),
        op,
    ]
    assert_same(chain(shape, *around), 0.2)


def test_every_operator_is_covered():
    alone = {type(op) for _, op in OPERATORS}
    pairs = {op for op, _, _ in (*RESIDUAL, *QUOTIENT)}
    assert alone | {type(op) for op in pairs} == set(ops.Op.__args__)


RESIDUAL = [
    (ops.Gemm(normal(5, 5), normal(5)), ["x"], "a"),
    (ops.Relu(), ["a"], "b"),
    (ops.Add(), ["b", "x"], "c"),
    (ops.Subtract(), ["c", "a"], "d"),
    (ops.Add(), ["d", "d"], "e"),
    (ops.Subtract(), ["e", "e"], "f"),
    (ops.Concat(0), ["e", "x", "f", "e"], "g"),
    (ops.MatMul(normal(20, 3)), ["g"], "h"),
]

JOINED = [
    (ops.Conv(normal(2, 4, 1, 1), None, (1, 1), (0, 0, 0, 0), (1, 1)), ["x"], "a"),
    (ops.Concat(0), ["a", "x"], "b"),
    (ops.Transpose((1, 2, 0)), ["b"], "c"),
    (ops.Concat(1), ["c", "c"], "d"),
    (ops.MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1)), ["d"], "e"),
    (ops.GlobalAveragePool(), ["e"], "f"),
    (ops.Reshape((6,)), ["f"], "g"),
]


QUOTIENT = [
    (ops.Gemm(normal(5, 5), normal(5)), ["x"], "a"),
    (ops.Multiply(), ["a", "x"], "b"),
    (ops.Square(), ["b"], "c"),
    (ops.AddConstant(single([1.0])), ["c"], "d"),
    (ops.Divide(), ["a", "d"], "e"),
    (ops.Reciprocal(), ["d"], "f"),
    (ops.Multiply(), ["f", "f"], "g"),
    (ops.Divide(), ["g", "d"], "h"),
]


@pytest.mark.parametrize(("shape", "steps"), [(FLAT, RESIDUAL), (IMAGE, JOINED), (FLAT, QUOTIENT)])
def test_branches_join(shape, steps):
    for length in range(1, len(steps) + 1):
        assert_same(graph(shape, *steps[:length]))


def test_an_output_before_the_last_node():
    network = graph(FLAT, (ops.Relu(), ["x"], "y"), (ops.Tanh(), ["y"], "dead"))
    early = type(network)("early", "x", "y", network.nodes, network.shapes, "")
    x = RANDOM.normal(size=(3, 5))
    assert np.abs(run(lower(early), x)[-1] - np.maximum(x, 0)).max() == 0.0


def test_a_trace_tells_where_each_value_lies():
    network = graph(FLAT, *RESIDUAL)
    program, at = lower_traced(network)
    x = RANDOM.normal(size=(3, 5))
    values, expected = run(program, x), activations(network, x)
    for name, value in expected.items():
        assert np.abs(values[at[name]] - value.reshape(3, -1)).max() <= 1e-9


def test_moves_and_scales_are_merged_into_one_layer():
    normalise = [ops.SubtractConstant(single(0.5)), ops.DivideConstant(single(0.25))]
    turn = [
        ops.Transpose((1, 2, 0)),
        ops.Reshape((168,)),
        ops.MatMul(normal(168, 3)),
        ops.AddConstant(normal(3)),
    ]
    program = lower(chain(IMAGE, *normalise, *turn, ops.Relu()))
    kinds = [type(layer) for layer in program.layers]
    assert kinds == [Affine, Affine, Elementwise] or kinds == [Affine, Affine, Affine, Elementwise]
    assert_same(chain(IMAGE, *normalise, *turn, ops.Relu()))


def test_merged_layers_keep_the_bounds_of_their_parts():
    parts = [
        ops.MatMul(normal(5, 4)),
        ops.AddConstant(normal(4)),
        ops.MultiplyConstant(normal(4)),
        ops.Relu(),
    ]
    network = chain(FLAT, *parts)
    region = Region(-np.ones((1, 5)), np.ones((1, 5)))
    merged, apart = crown(lower(network), region), crown(lower_traced(network)[0], region)
    assert len(merged.low) < len(apart.low)
    assert merged.low[-1] == pytest.approx(apart.low[-1], abs=1e-5)
    assert merged.high[-1] == pytest.approx(apart.high[-1], abs=1e-5)


def test_a_hold_replaces_entries_of_a_value():
    network = chain(FLAT, ops.Gemm(normal(5, 3), normal(3)), ops.Relu(), ops.MatMul(normal(3, 2)))
    hold = Hold(np.array([True, False, True]), single([0.5, 9.0, 2.0]))
    x = RANDOM.normal(size=(4, 5))
    held = activations(network, x)["v1"].copy()
    held[:, 0], held[:, 2] = 0.5, 2.0
    expected = held @ normal(3, 2)
    assert np.abs(run(lower(network, {"v1": hold}), x)[-1] - expected).max() <= 1e-9


def test_a_held_value_may_overflow():
    network = chain((1,), ops.MatMul(single([[2.0**100, 1.0]])), ops.MatMul(single([[1.0], [1.0]])))
    hold = Hold(np.array([True, False]), single([0.25, 0.0]))
    region = Region(np.array([[2.0**28]]), np.array([[2.0**28]]))
    with np.errstate(all="ignore"):
        bounds = crown(lower(network, {"v0": hold}), region)
    assert (
        np.isfinite(bounds.low[-1]).all() and bounds.low[-1][0, 0] <= 2.0**28 + 0.25 <= bounds.high[-1][0, 0]
    )


@pytest.mark.parametrize(
    ("shape", "op"),
    [
        ((2**14,), ops.MatMul(np.zeros((2**14, 2**13), np.float32))),
        ((8, 512, 512), ops.Conv(np.zeros((8, 8, 3, 3), np.float32), None, (1, 1), (1, 1, 1, 1), (1, 1))),
        ((8, 1024, 1024), ops.MaxPool((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))),
    ],
    ids=["MatMul", "Conv", "MaxPool"],
)
def test_what_would_not_fit_is_refused_before_it_is_built(shape, op):
    with pytest.raises(NetworkError, match=r"^node 'node v0' \(\w+\) is too large to bound: [\d,]+ weights"):
        lower(chain(shape, op))
