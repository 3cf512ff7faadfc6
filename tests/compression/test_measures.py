"""Errors read off singular values, against the norms themselves."""

from __future__ import annotations

import numpy as np
import pytest
from compressible import chain, convolution, only_layer
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.compression import measures
from sutura.compression.factors import truncated
from sutura.compression.folding import SCHEMES, Split, costs, fold
from sutura.network import ops


def layer_of(seed, out=5, channels=6, kernel=(3, 2)):
    op = convolution(seed, out, channels, kernel=kernel, pads=(0, 0, 0, 0))
    return only_layer(chain((channels, 6, 6), op))


def exact(layer, split):
    """|W - W'| / |W| in the spectral norm, by the definition."""
    gap = layer.weight.astype(np.float64) - truncated(layer, split).weight(layer)
    whole = fold(layer, layer.weight.astype(np.float64), split.scheme)
    return np.linalg.norm(fold(layer, gap, split.scheme), 2) / np.linalg.norm(whole, 2)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(sorted(SCHEMES)),
    st.sampled_from([1, 2, 3, 6]),
    st.integers(1, 4),
)
def test_theorem_bounds_the_error_and_spectral_is_it(seed, scheme, groups, rank):
    layer = layer_of(seed)
    rank = min(rank, costs(layer, scheme, groups).full)
    found = exact(layer, Split(scheme, groups, rank))
    assert measures.theorem(layer, scheme, groups)[rank - 1] >= found - 1e-6
    assert measures.spectral(layer, scheme, groups)[rank - 1] == pytest.approx(found, abs=1e-6)


def test_figure_of_the_authors_code_is_no_bound():
    """Two equal slices: what both lose adds up, and the code's figure counts one of them."""
    half = np.diag([2.0, 1.0]).astype(np.float32)
    op = ops.Conv(np.hstack([half, half])[:, :, None, None], None, (1, 1), (0, 0, 0, 0), (1, 1))
    layer = only_layer(chain((4, 3, 3), op))
    # |W| = 2 sqrt 2; rank 1 of each half loses a 1 of each, together sqrt 2.
    assert exact(layer, Split(0, 2, 1)) == pytest.approx(0.5, abs=1e-6)
    assert measures.reference(layer, 0, 2)[0] == pytest.approx(1 / (2 * np.sqrt(2)), abs=1e-6)
    assert measures.reference(layer, 0, 2)[0] < exact(layer, Split(0, 2, 1)) - 0.1
    assert measures.theorem(layer, 0, 2)[0] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("groups", [1, 3])
def test_frobenius_is_the_norm_of_the_difference(scheme, groups):
    layer = layer_of(9)
    for rank, found in enumerate(measures.frobenius(layer, scheme, groups), 1):
        gap = layer.weight - truncated(layer, Split(scheme, groups, rank)).weight(layer)
        assert found == pytest.approx(np.linalg.norm(gap) / np.linalg.norm(layer.weight), abs=1e-5)


def test_errors_by_hand():
    weight = np.diag([4.0, 2.0, 1.0]).astype(np.float32)
    layer = only_layer(chain((3,), ops.MatMul(weight)))
    assert measures.reference(layer, 0, 1) == pytest.approx([0.5, 0.25, 0.0])
    assert measures.nuclear(layer, 0, 1) == pytest.approx([3 / 7, 1 / 7, 0.0])
    assert measures.frobenius(layer, 0, 1) == pytest.approx(np.sqrt([5 / 21, 1 / 21, 0.0]))


def test_weights_of_zeros_lose_nothing():
    layer = only_layer(chain((3,), ops.MatMul(np.zeros((3, 4), np.float32))))
    for measure in (measures.theorem, measures.spectral, measures.frobenius, measures.nuclear):
        assert measure(layer, 0, 1).tolist() == [0.0, 0.0, 0.0]
