"""Moments, whitened splits, PCA, and weights fitted anew, against what layers compute on the samples."""

from __future__ import annotations

import numpy as np
import pytest
from compressible import chain, classifier, convolution, gemm, normal, normalisation, only_layer, samples

from sutura.compression import pca
from sutura.compression.factors import substitute, truncated
from sutura.compression.folding import SCHEMES, Split, costs
from sutura.compression.layers import compressible
from sutura.compression.moments import columns, drawn, moments, outputs_at, unfolded
from sutura.compression.refit import fitted, normalised
from sutura.compression.trace import trace
from sutura.compression.whitened import loss_of_ranks, whitened
from sutura.network import ops
from sutura.network.evaluate import activations, evaluate

ODD = {"strides": (2, 1), "pads": (2, 0, 1, 3), "dilations": (1, 2)}


def change(network, other, x):
    """The mean squared change of the output over its variance."""
    before, after = (evaluate(net, x.astype(np.float64)) for net in (network, other))
    return np.mean((before - after) ** 2) / np.var(before)


@pytest.mark.parametrize("op", [convolution(0, 5, 4, **ODD), convolution(2, 5, 4, bias=False)])
def test_unfolded_input_times_weight_is_the_output(op):
    network = chain((4, 7, 8), op)
    layer, x = only_layer(network), normal(1, 3, 4, 7, 8)
    at = drawn(layer, 3, 0)
    seen = unfolded(layer, x, at)
    y = seen @ layer.weight.reshape(5, -1).T + (0.0 if layer.bias is None else layer.bias)
    expected = evaluate(network, x.astype(np.float64)).astype(np.float32)
    assert np.max(np.abs(y - outputs_at(layer, expected, at))) < 1e-5
    assert seen.shape == (expected[:, 0].size, columns(layer))


def test_moments_are_those_of_the_samples():
    network = classifier()
    layers, _ = compressible(network)
    x = samples(network).x
    found = moments(network, layers, x)
    values = activations(network, x.astype(np.float64))
    read = values[layers[-1].node.inputs[0]]
    assert found[layers[-1].key].mean == pytest.approx(read.mean(axis=0), abs=1e-4)
    assert np.max(np.abs(found[layers[-1].key].second - np.cov(read.T, bias=True))) < 1e-4


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_loss_of_ranks_is_the_change_of_the_output(scheme, groups, bias):
    network = chain((4, 6, 6), convolution(3, 5, 4, bias=bias, **ODD))
    layer, x = only_layer(network), samples(network).x
    known = moments(network, [layer], x)[layer.key]
    told = loss_of_ranks(layer, known, scheme, groups)
    y = evaluate(network, x.astype(np.float64))
    about = y.mean(axis=(0, 2, 3), keepdims=True) if bias else 0.0
    for rank in (1, 2, costs(layer, scheme, groups).full):
        split = Split(scheme, groups, min(rank, len(told)))
        thin = substitute(network, {layer.key: layer}, {layer.key: whitened(layer, known, split)})
        lost = np.mean((evaluate(thin, x.astype(np.float64)) - y) ** 2) / np.mean((y - about) ** 2)
        assert np.sqrt(lost) == pytest.approx(told[split.rank - 1], abs=2e-3)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_whitened_split_without_groups_is_the_best_of_its_rank(rank):
    network = chain((4, 6, 6), convolution(3, 5, 4), normalisation(8, 5))
    layer, x = only_layer(network), samples(network).x
    known = moments(network, [layer], x)[layer.key]
    before = evaluate(network, x.astype(np.float64))
    scale = np.sqrt(network.nodes[1].op.variance) / network.nodes[1].op.scale
    lost = []
    for part in (whitened(layer, known, Split(0, 1, rank)), truncated(layer, Split(0, 1, rank))):
        thin = substitute(network, {layer.key: layer}, {layer.key: part})
        gap = (evaluate(thin, x.astype(np.float64)) - before) * scale[:, None, None]
        lost.append(np.mean(gap**2))
    assert lost[0] < lost[1]


@pytest.mark.parametrize("after", [(), (normalisation(8, 5),)])
def test_constants_that_a_split_loses_are_made_up_for(after):
    """A constant input: all that is cut off is a constant, which bias or normalisation takes up."""
    network = chain((4, 6, 6), convolution(3, 5, 4, pads=(0, 0, 0, 0), bias=not after), *after)
    layer = only_layer(network)
    x = np.ones((9, 4, 6, 6), np.float32)
    known = moments(network, [layer], x)[layer.key]
    thin = substitute(network, {layer.key: layer}, {layer.key: whitened(layer, known, Split(0, 1, 1))})
    wide = x.astype(np.float64)
    assert np.max(np.abs(evaluate(thin, wide) - evaluate(network, wide))) < 1e-4


def test_pca_keeps_the_principal_directions():
    network = chain((6,), gemm(0, 4, 6))
    layer, x = only_layer(network), samples(network).x
    known = moments(network, [layer], x)[layer.key]
    y = evaluate(network, x.astype(np.float64))
    centred = y - y.mean(axis=0)
    u = np.linalg.svd(centred.T, full_matrices=False)[0][:, :2]
    thin = substitute(network, {layer.key: layer}, {layer.key: pca.projected(layer, known, Split(0, 1, 2))})
    expected = centred @ u @ u.T + y.mean(axis=0)
    assert np.max(np.abs(evaluate(thin, x.astype(np.float64)) - expected)) < 1e-3


def test_pca_scores_by_hand():
    weight = np.diag([3.0, 1.0]).astype(np.float32)
    network = chain((2,), ops.Gemm(weight, np.zeros(2, np.float32), transposed=True))
    layer = only_layer(network)
    x = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    known = moments(network, [layer], x)[layer.key]
    # Variances 9 and 1; cost 5 each.
    assert pca.scores(layer, known, 5.0) == pytest.approx([1 / 5, 1 / 10 / 5])


def thin_classifier(seed=0):
    network = classifier(seed)
    layers, _ = compressible(network)
    splits = [Split(0, 1, 2), Split(0, 2, 1), Split(0, 1, 4), None]
    parts = {la.key: truncated(la, s) for la, s in zip(layers, splits, strict=True) if s}
    kept = [la for la, s in zip(layers, splits, strict=True) if s]
    return network, substitute(network, {la.key: la for la in layers}, parts), kept


def test_fitted_weights_change_outputs_less():
    network, thin, split = thin_classifier()
    data = samples(network, 200)
    fit = fitted(network, thin, split, data.x[:150])
    assert change(network, fit, data.x[150:]) < 0.5 * change(network, thin, data.x[150:])
    assert [node.output for node in fit.nodes] == [node.output for node in thin.nodes]


def test_fitting_what_lacks_nothing_changes_nothing():
    network = classifier()
    layers, _ = compressible(network)
    x = samples(network).x
    again = fitted(network, network, layers, x)
    wide = x.astype(np.float64)
    assert np.max(np.abs(evaluate(again, wide) - evaluate(network, wide))) < 1e-3


def test_normalisations_have_the_moments_of_what_reaches_them():
    _, thin, _ = thin_classifier()
    x = samples(thin).x
    for node, inputs, value in trace(normalised(thin, x), x):
        if isinstance(node.op, ops.BatchNormalization):
            assert node.op.mean == pytest.approx(inputs[0].mean(axis=(0, 2, 3)), abs=1e-5)
            assert value.mean(axis=(0, 2, 3)) == pytest.approx(node.op.bias, abs=1e-4)


def test_trace_gives_what_evaluate_does():
    network = classifier()
    x = samples(network).x
    values = activations(network, x.astype(np.float64))
    for node, _, value in trace(network, x):
        assert np.max(np.abs(value - values[node.output])) < 1e-3
