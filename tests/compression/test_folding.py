"""The four foldings by hand, and splits against the dense layer with the truncated weight."""

from __future__ import annotations

import numpy as np
import pytest
from compressible import chain, convolution, gemm, normal, only_layer

from sutura.compression.factors import substitute, truncated
from sutura.compression.folding import (
    SCHEMES,
    Split,
    costs,
    divisors,
    encoder_axes,
    fold,
    schemes,
    slices,
    weights,
)
from sutura.network import ops
from sutura.network.cost import macs
from sutura.network.evaluate import evaluate


def layer_of(op, shape):
    return only_layer(chain(shape, op))


def numbered():
    """A 2 x 2 x 2 x 3 weight that counts 0, 1, 2, ..."""
    weight = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
    return layer_of(ops.Conv(weight, None, (1, 1), (0, 0, 0, 0), (1, 1)), (2, 4, 5))


BY_HAND = {
    0: [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]],
    1: [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11], [12, 13, 14, 18, 19, 20], [15, 16, 17, 21, 22, 23]],
    2: [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11], [12, 15, 18, 21], [13, 16, 19, 22], [14, 17, 20, 23]],
    3: [
        [0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11],
        [12, 18], [13, 19], [14, 20], [15, 21], [16, 22], [17, 23],
    ],
}  # fmt: skip
"""Scheme -> the folded matrix: rows f, f k1, f k2, f k1 k2; columns c k1 k2, c k2, c k1, c."""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_folded_matrix_is_the_one_written_by_hand(scheme):
    layer = numbered()
    assert fold(layer, layer.weight, scheme).tolist() == BY_HAND[scheme]
    halves = slices(fold(layer, layer.weight, scheme), 2)
    assert np.concatenate(list(halves), axis=1).tolist() == BY_HAND[scheme]


def test_costs_are_those_of_the_table():
    # f = 2, c = 2, k1 = 2, k2 = 3: j (k f k_decoder + c k_encoder)
    layer = numbered()
    found = {scheme: costs(layer, scheme, 2) for scheme in SCHEMES}
    assert [found[s].weights for s in SCHEMES] == [
        2 * 2 + 2 * 6,
        2 * 2 * 2 + 2 * 3,
        2 * 2 * 3 + 2 * 2,
        2 * 2 * 6 + 2,
    ]
    assert [found[s].full for s in SCHEMES] == [2, 3, 2, 1]
    # 4 x 5 in, 3 x 3 out; between: 3 x 3, 4 x 3, 3 x 5 and 4 x 5 positions.
    assert [found[s].steps for s in SCHEMES] == [
        12 * 9 + 4 * 9, 6 * 12 + 8 * 9, 4 * 15 + 12 * 9, 2 * 20 + 24 * 9,
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("rank", [1, 2])
def test_recomposed_weight_is_the_truncated_svd_of_each_slice(scheme, groups, rank):
    layer = layer_of(convolution(0, 5, 6), (6, 7, 7))
    split = Split(scheme, groups, min(rank, costs(layer, scheme, groups).full))
    again = fold(layer, truncated(layer, split).weight(layer), scheme)
    for part, whole in zip(
        slices(again, groups), slices(fold(layer, layer.weight, scheme), groups), strict=True
    ):
        u, s, v = np.linalg.svd(whole.astype(np.float64), full_matrices=False)
        expected = (u[:, : split.rank] * s[: split.rank]) @ v[: split.rank]
        assert np.max(np.abs(part - expected)) < 1e-6


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 3)])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 1), (1, 3)])
def test_split_convolution_is_the_dense_one_with_the_truncated_weight(scheme, strides, pads, dilations):
    op = convolution(1, 6, 4, strides=strides, pads=pads, dilations=dilations)
    network = chain((4, 9, 11), op)
    layer = only_layer(network)
    split = Split(scheme, 2, 2)
    factors = truncated(layer, split)
    dense = chain((4, 9, 11), ops.Conv(factors.weight(layer), op.bias, strides, pads, dilations))
    thin = substitute(network, {layer.key: layer}, {layer.key: factors})
    x = normal(2, 3, 4, 9, 11).astype(np.float64)
    assert np.max(np.abs(evaluate(thin, x) - evaluate(dense, x))) < 1e-5
    held = [node for node in thin.nodes if isinstance(node.op, ops.Conv)]
    assert sum(node.op.weight.size for node in held) == weights(layer, split)
    steps = sum(macs(node.op, thin.shapes[node.output]) for node in held)
    assert steps == costs(layer, scheme, 2).steps * split.rank


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("kind", ["gemm", "scaled", "matmul", "rows"])
def test_split_linear_layer_is_the_dense_one_with_the_truncated_weight(kind, groups):
    weight, bias = normal(4, 6, 5), normal(5, 5)
    op, shape = {
        "gemm": (gemm(4, 5, 6), (6,)),
        "scaled": (ops.Gemm(weight, bias, alpha=0.5, beta=2.0), (6,)),
        "matmul": (ops.MatMul(weight), (6,)),
        "rows": (ops.MatMul(weight), (7, 6)),
    }[kind]
    network = chain(shape, op)
    layer = only_layer(network)
    groups = groups if layer.sliced else 1
    factors = truncated(layer, Split(0, groups, 2))
    thin = substitute(network, {layer.key: layer}, {layer.key: factors})
    x = normal(6, 3, *shape).astype(np.float64)
    added = 0.0 if layer.bias is None else layer.bias
    expected = x @ factors.weight(layer).T.astype(np.float64) + added
    assert np.max(np.abs(evaluate(thin, x) - expected)) < 1e-5


def test_rows_of_a_matrix_product_are_not_sliced():
    layer = only_layer(chain((7, 6), ops.MatMul(normal(0, 6, 5))))
    assert divisors(layer) == (1,)


def test_one_dimensional_kernels_have_two_schemes():
    op = ops.Conv(normal(0, 4, 6, 3), None, (2,), (1, 1), (1,))
    network = chain((6, 12), op)
    layer = only_layer(network)
    assert schemes(layer, (0, 1, 2, 3)) == (0, 3)
    assert [encoder_axes(layer, s) for s in (0, 3)] == [(True,), (False,)]
    for scheme in (0, 3):
        factors = truncated(layer, Split(scheme, 2, 2))
        dense = chain((6, 12), ops.Conv(factors.weight(layer), None, (2,), (1, 1), (1,)))
        thin = substitute(network, {layer.key: layer}, {layer.key: factors})
        x = normal(2, 3, 6, 12).astype(np.float64)
        assert np.max(np.abs(evaluate(thin, x) - evaluate(dense, x))) < 1e-5


def test_kernels_of_one_have_one_scheme():
    layer = layer_of(convolution(0, 4, 6, kernel=(1, 1), pads=(0, 0, 0, 0)), (6, 5, 5))
    assert schemes(layer, (0, 1, 2, 3)) == (0,)
    assert divisors(layer) == (1, 2, 3, 6)
