"""Operators against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.cost import macs, parameters
from sutura.network.evaluate import apply
from sutura.network.shapes import output_shape

SQUARE = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)  # 1 2 3 / 4 5 6 / 7 8 9


def f32(*values):
    return np.array(values, dtype=np.float32)


def taps(*values, shape):
    return f32(*values).reshape(shape)


CORNERS = taps(1, 0, 0, 10, shape=(1, 1, 2, 2))

ORACLES = {
    "matmul": (ops.MatMul(f32([1, 2], [3, 4])), [[5.0, 6.0]], [[23.0, 34.0]]),
    "gemm": (
        ops.Gemm(f32([1, 2], [3, 4]), f32(1, -1), alpha=2.0, beta=10.0, transposed=True),
        [[5.0, 6.0]],
        [[44.0, 68.0]],
    ),
    "subtract_reversed": (ops.SubtractConstant(f32(1, 2), reversed=True), [[5.0, 6.0]], [[-4.0, -4.0]]),
    "divide": (ops.DivideConstant(f32(2, -4)), [[5.0, 6.0]], [[2.5, -1.5]]),
    "conv": (
        ops.Conv(CORNERS, f32(0.5), (1, 1), (0, 0, 0, 0), (1, 1)),
        SQUARE,
        [[[[51.5, 62.5], [84.5, 95.5]]]],
    ),
    # Asymmetric pads: one row above, one column to the right.
    "conv_padded": (
        ops.Conv(CORNERS, None, (1, 1), (1, 0, 0, 1), (1, 1)),
        SQUARE,
        [[[[20.0, 30.0, 0.0], [51.0, 62.0, 3.0], [84.0, 95.0, 6.0]]]],
    ),
    "conv_strided": (
        ops.Conv(CORNERS, None, (2, 2), (0, 0, 1, 1), (1, 1)),
        SQUARE,
        [[[[51.0, 3.0], [7.0, 9.0]]]],
    ),
    "conv_dilated": (ops.Conv(CORNERS, None, (1, 1), (0, 0, 0, 0), (2, 2)), SQUARE, [[[[91.0]]]]),
    "conv_grouped": (
        ops.Conv(taps(1, 2, 3, 4, shape=(2, 1, 2)), None, (1,), (0, 0), (1,), group=2),
        [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]],
        [[[5.0, 8.0], [32.0, 39.0]]],
    ),
    "norm": (
        ops.BatchNormalization(f32(2), f32(1), f32(3), f32(0.75), 0.25),
        [[[4.0, 5.0]]],
        [[[3.0, 5.0]]],
    ),
    "average": (ops.AveragePool((2, 2), (1, 1), (0, 0, 0, 0)), SQUARE, [[[[3.0, 4.0], [6.0, 7.0]]]]),
    "average_excluding": (
        ops.AveragePool((2, 2), (2, 2), (1, 1, 0, 0)),
        SQUARE,
        [[[[1.0, 2.5], [5.5, 7.0]]]],
    ),
    "average_including": (
        ops.AveragePool((2, 2), (2, 2), (1, 1, 0, 0), count_include_pad=True),
        SQUARE,
        [[[[0.25, 1.25], [2.75, 7.0]]]],
    ),
    "global_average": (ops.GlobalAveragePool(), SQUARE, [[[[5.0]]]]),
    "max_of_negatives": (
        ops.MaxPool((2, 2), (2, 2), (1, 1, 0, 0), (1, 1)),
        -SQUARE,
        [[[[-1.0, -2.0], [-4.0, -5.0]]]],
    ),
    "max_dilated": (ops.MaxPool((2, 2), (1, 1), (0, 0, 0, 0), (2, 2)), SQUARE, [[[[9.0]]]]),
    "reshape": (ops.Reshape((2, 2)), [[1.0, 2.0, 3.0, 4.0]], [[[1.0, 2.0], [3.0, 4.0]]]),
    "transpose": (ops.Transpose((1, 0)), [[[1.0, 2.0], [3.0, 4.0]]], [[[1.0, 3.0], [2.0, 4.0]]]),
    "pad": (ops.Pad((1, 0, 0, 2), 7.0), [[[1.0, 2.0]]], [[[7.0, 7.0, 7.0, 7.0], [1.0, 2.0, 7.0, 7.0]]]),
    "take": (ops.Take(0, np.array([2, 0, 2])), [[1.0, 2.0, 3.0]], [[3.0, 1.0, 3.0]]),
    "relu": (ops.Relu(), [[-1.0, 0.0, 2.0]], [[0.0, 0.0, 2.0]]),
    "leaky": (ops.LeakyRelu(0.25), [[-4.0, 0.0, 2.0]], [[-1.0, 0.0, 2.0]]),
    "clip": (ops.Clip(-1.0, 6.0), [[-4.0, 0.5, 8.0]], [[-1.0, 0.5, 6.0]]),
    "clip_half": (ops.Clip(-math.inf, 6.0), [[-4.0, 0.5, 8.0]], [[-4.0, 0.5, 6.0]]),
    "sigmoid": (ops.Sigmoid(), [[0.0, 1000.0, -1000.0, math.log(3)]], [[0.5, 1.0, 0.0, 0.75]]),
    "tanh": (ops.Tanh(), [[0.0, math.log(2)]], [[0.0, 0.6]]),
}


@pytest.mark.parametrize("name", ORACLES)
def test_value_by_hand(name):
    op, x, expected = ORACLES[name]
    x, expected = np.array(x), np.array(expected)
    np.testing.assert_allclose(apply(op, (x,)), expected, rtol=0, atol=1e-15)
    assert output_shape(op, (x.shape[1:],)) == expected.shape[1:]


def test_two_operands_by_hand():
    a, b = np.array([[1.0, 2.0]]), np.array([[10.0, 30.0]])
    assert apply(ops.Add(), (a, b)).tolist() == [[11.0, 32.0]]
    assert apply(ops.Subtract(), (a, b)).tolist() == [[-9.0, -28.0]]
    assert apply(ops.Concat(0), (a, b, a)).tolist() == [[1.0, 2.0, 10.0, 30.0, 1.0, 2.0]]


MISFITS = {
    "add_two": (ops.Add(), ((2,), (3,)), "2 and 3"),
    "broadcast_over_batch": (ops.AddConstant(np.zeros((2, 3), np.float32)), ((3,),), "batch axis"),
    "broadcast": (ops.AddConstant(f32(1, 2)), ((3,),), "does not fit"),
    "concat": (ops.Concat(0), ((2, 3), (2, 4)), "do not join"),
    "conv": (ops.Conv(CORNERS, None, (1, 1), (0,) * 4, (1, 1)), ((2, 3, 3),), "misfits"),
    "conv_small": (ops.Conv(CORNERS, None, (1, 1), (0,) * 4, (3, 1)), ((1, 3, 3),), "window of 4x2"),
    "gemm": (ops.Gemm(f32([1, 2]), None), ((2,),), "does not fit"),
    "gemm_bias": (ops.Gemm(f32([1, 2]), f32(1, 2, 3)), ((1,),), "bias"),
    "matmul": (ops.MatMul(f32([1, 2])), ((2,),), "does not fit"),
    "pool_pads": (ops.MaxPool((2,), (1,), (2, 0), (1,)), ((1, 5),), "smaller than the kernel"),
    "reshape": (ops.Reshape((2, 2)), ((3,),), "as 2x2"),
    "take": (ops.Take(0, np.array([3])), ((3,),), "outside"),
    "transpose": (ops.Transpose((0, 0)), ((3, 2),), "permutation"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit_are_told(name):
    op, shapes, words = MISFITS[name]
    with pytest.raises(NetworkError, match=words):
        output_shape(op, shapes)


def test_work_and_parameters_by_hand():
    conv = ops.Conv(np.ones((8, 3, 5, 5), np.float32), np.ones(8, np.float32), (1, 1), (0,) * 4, (1, 1))
    assert macs(conv, (8, 10, 10)) == 8 * 100 * 75
    assert parameters(conv) == 8 * 75 + 8
    assert macs(ops.Gemm(np.ones((4, 3), np.float32), None), (3,)) == 12
    assert macs(ops.MatMul(np.ones((4, 3), np.float32)), (7, 3)) == 84
    assert macs(ops.Reshape((5,)), (5,)) == 0
    assert parameters(ops.Take(0, np.array([1]))) == 0
