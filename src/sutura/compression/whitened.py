"""Splits that lose least of what a layer computes on data, instead of least of its weights.

With C the second moment of the unfolded input, the mean squared change of the output is tr(D C D^T) for a
change D of the weight. Each slice is cut where W_i C_ii^(1/2) has its small singular values; since slices are
correlated, the decoder is then fitted anew by least squares: U = W C E^T (E C E^T)^+ with E the encoder.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, Int64
from scipy.linalg import solve_triangular

from sutura.compression.factors import Factors, of_columns
from sutura.compression.folding import Split, encoder_axes, fold, kernels, slices
from sutura.compression.layers import Layer
from sutura.compression.moments import Moments


def loss_of_ranks(layer: Layer, moments: Moments, scheme: int, groups: int) -> Float64[np.ndarray, " full"]:
    """The relative root mean squared change of the output for every rank, after the decoder's fit.

    One Cholesky factor serves all ranks: with the encoder's rows in order of rank, those of a lower rank are
    the first ones.
    """
    rows = encoder_rows(layer, moments, scheme, groups)
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    total = float(((weight @ moments.second) * weight).sum())
    gram, cross = _normal_equations(rows, read_at(layer, scheme, groups), weight, moments)
    solved = solve_triangular(np.linalg.cholesky(gram), cross, lower=True, check_finite=False)
    gained = (solved**2).sum(axis=1).reshape(rows.shape[1], -1).sum(axis=1)
    return np.sqrt(np.clip(1.0 - np.cumsum(gained) / (total or 1.0), 0.0, None))


def whitened(layer: Layer, moments: Moments, split: Split) -> Factors:
    """The split with the encoder of the whitened slices and the decoder of least squares.

    The mean of what is cut off goes into the bias, or into the normalisation that follows.
    """
    rows = encoder_rows(layer, moments, split.scheme, split.groups)[:, : split.rank]
    at = read_at(layer, split.scheme, split.groups)
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    gram, cross = _normal_equations(rows, at, weight, moments)
    decoder = np.linalg.solve(gram, cross)
    read = (rows[:, None] @ moments.mean[at][..., None]).transpose(2, 0, 1, 3).reshape(-1)
    lost = weight @ moments.mean - decoder.T @ read
    columns = decoder.reshape(split.rank, *at.shape[:2], len(layer.weight)).transpose(1, 3, 2, 0)
    columns = columns.reshape(split.groups, -1, split.rank)
    return of_columns(layer, split, columns, rows, lost)


def encoder_rows(
    layer: Layer, moments: Moments, scheme: int, groups: int
) -> Float64[np.ndarray, "groups full width"]:
    """The right factors of each slice, whitened: row r is the r-th most important, with unit variance."""
    matrix = slices(fold(layer, layer.weight.astype(np.float64), scheme), groups)
    second = _folded_moment(layer, moments.second, scheme)
    width = matrix.shape[2]
    blocks = (second[at : at + width, at : at + width] for at in range(0, groups * width, width))
    roots = np.stack([np.linalg.cholesky(block) for block in blocks])
    rows = np.linalg.svd(matrix @ roots, full_matrices=False)[2]
    pairs = zip(roots, rows, strict=True)
    return np.stack([solve_triangular(a, b.T, lower=True, trans=1, check_finite=False).T for a, b in pairs])


def _folded_moment(
    layer: Layer, second: Float64[np.ndarray, "columns columns"], scheme: int
) -> Float64[np.ndarray, "width width"]:
    """The second moment of what the encoder reads: summed over the positions that the decoder looks at."""
    kept, axes = encoder_axes(layer, scheme), len(layer.kernel)
    channels = layer.sides[1]
    left = [0, *range(1, axes + 1)]
    right = [axes + 1, *(a if not keep else axes + 1 + a for a, keep in enumerate(kept, 1))]
    out = [[i for i in side if i == side[0] or kept[(i - 1) % (axes + 1)]] for side in (left, right)]
    whole = second.reshape(channels, *layer.kernel, channels, *layer.kernel)
    moment = np.einsum(whole, [*left, *right], [*out[0], *out[1]])
    return moment.reshape(math.isqrt(moment.size), -1)


def read_at(layer: Layer, scheme: int, groups: int) -> Int64[np.ndarray, "groups offsets width"]:
    """The columns of the unfolded input that a group reads at an offset of the decoder; each column once."""
    kept, outer = encoder_axes(layer, scheme), kernels(layer, scheme)[1]
    whole = np.arange(layer.weight[0].size).reshape(groups, -1, *layer.kernel)
    places = (
        tuple(slice(None) if keep else slice(p, p + 1) for keep, p in zip(kept, place, strict=True))
        for place in np.ndindex(*outer)
    )
    return np.stack([whole[(slice(None), slice(None), *at)].reshape(groups, -1) for at in places], axis=1)


def _normal_equations(
    rows: Float64[np.ndarray, "groups rank width"],
    at: Int64[np.ndarray, "groups offsets width"],
    weight: Float64[np.ndarray, "out columns"],
    moments: Moments,
) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n out"]]:
    """E C E^T, a trifle added that keeps it positive, and E C W^T; E by rank, then group, then offset."""
    rank = rows.shape[1]
    order, count = at.reshape(-1), at.shape[0] * at.shape[1] * rank
    second = moments.second[np.ix_(order, order)].reshape(*at.shape, -1)
    seen = (rows[:, None] @ second).transpose(2, 0, 1, 3).reshape(count, -1)
    # A group at a time: E is zero but for what the group reads.
    halves = seen.reshape(count, *at.shape).transpose(1, 0, 2, 3) @ rows.transpose(0, 2, 1)[:, None]
    gram = halves.transpose(1, 3, 0, 2).reshape(count, count)
    return gram + 1e-9 * np.eye(count), seen @ weight[:, order].T
