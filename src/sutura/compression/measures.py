"""How much of a layer a split loses, read off the weights alone: one measure a function.

Each gives, for a layer, scheme and number of groups k, the relative error of every rank j of a slice.
With s_i the singular values of slice i, ascending in loss: s_i[j] is the first one cut off at rank j.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from sutura.compression.folding import costs, fold, slices
from sutura.compression.layers import Layer


def spectra(layer: Layer, scheme: int, groups: int) -> Float64[np.ndarray, "groups full"]:
    """The singular values of each slice, largest first; in float64."""
    matrix = fold(layer, layer.weight.astype(np.float64), scheme)
    return np.linalg.svd(slices(matrix, groups), compute_uv=False)


def norm(layer: Layer, scheme: int) -> float:
    """The largest singular value of the whole folded weight; 1 for a weight of zeros."""
    return float(np.linalg.norm(fold(layer, layer.weight.astype(np.float64), scheme), 2)) or 1.0


def _cut(values: Float64[np.ndarray, "groups full"]) -> Float64[np.ndarray, " full"]:
    """The largest value that each rank from 1 to the full one cuts off."""
    return np.append(values.max(axis=0)[1:], 0.0)


def reference(layer: Layer, scheme: int, groups: int) -> Float64[np.ndarray, " full"]:
    """max_i s_i[j] / |W|: the figure of the authors' code. No bound of the error where k > 1."""
    return _cut(spectra(layer, scheme, groups)) / norm(layer, scheme)


def theorem(layer: Layer, scheme: int, groups: int) -> Float64[np.ndarray, " full"]:
    """sqrt(k) max_i s_i[j] / |W|, the bound of |W - W'| / |W| in the spectral norm (Theorem 1)."""
    return np.sqrt(groups) * reference(layer, scheme, groups)


def spectral(layer: Layer, scheme: int, groups: int) -> Float64[np.ndarray, " full"]:
    """|W - W'| / |W| in the spectral norm itself, but for float64 rounding."""
    matrix = fold(layer, layer.weight.astype(np.float64), scheme)
    u, s, _ = np.linalg.svd(slices(matrix, groups), full_matrices=False)
    cut = u * s[:, None, :]
    rest = np.zeros((len(matrix), len(matrix)))
    squares = [0.0]
    # What rank j cuts off is a sum of outer products; it grows by one of each slice as j falls.
    for rank in range(s.shape[1] - 1, 0, -1):
        rest += cut[:, :, rank].T @ cut[:, :, rank]
        squares.append(float(np.linalg.eigvalsh(rest)[-1]))
    return np.sqrt(np.maximum(squares[::-1], 0.0)) / norm(layer, scheme)


def frobenius(layer: Layer, scheme: int, groups: int) -> Float64[np.ndarray, " full"]:
    """|W - W'| / |W| in the Frobenius norm."""
    energy = (spectra(layer, scheme, groups) ** 2).sum(axis=0)
    return np.sqrt(_tail(energy) / (energy.sum() or 1.0))


def nuclear(layer: Layer, scheme: int, groups: int) -> Float64[np.ndarray, " full"]:
    """The share of the sum of singular values that is cut off."""
    values = spectra(layer, scheme, groups).sum(axis=0)
    return _tail(values) / (values.sum() or 1.0)


def _tail(values: Float64[np.ndarray, " full"]) -> Float64[np.ndarray, " full"]:
    """What comes after each entry, summed."""
    return np.append(np.cumsum(values[:0:-1])[::-1], 0.0)


def nothing(layer: Layer, scheme: int, groups: int) -> Float64[np.ndarray, " full"]:
    """Zero for every rank: where only sizes are asked for."""
    return np.zeros(costs(layer, scheme, groups).full)
