"""Splits that lose least of what a layer computes on data, instead of least of its weights.

With C the second moment of the unfolded input, the mean squared change of the output is tr(D C D^T) for a
change D of the weight. Each slice is cut where W_i C_ii^(1/2) has its small singular values; since slices are
correlated, the decoder is then fitted anew by least squares: U = W C E^T (E C E^T)^+ with E the encoder.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

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
    spread = reading(layer, rows, scheme)
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    total = float(np.einsum("ij,jk,ik->", weight, moments.second, weight, optimize=True))
    gram, cross = _normal_equations(spread, weight, moments)
    solved = np.linalg.solve(np.linalg.cholesky(gram), cross)
    gained = (solved**2).sum(axis=1).reshape(rows.shape[1], -1).sum(axis=1)
    return np.sqrt(np.clip(1.0 - np.cumsum(gained) / (total or 1.0), 0.0, None))


def whitened(layer: Layer, moments: Moments, split: Split) -> Factors:
    """The split with the encoder of the whitened slices and the decoder of least squares.

    The mean of what is cut off goes into the bias, or into the normalisation that follows.
    """
    rows = encoder_rows(layer, moments, split.scheme, split.groups)[:, : split.rank]
    spread = reading(layer, rows, split.scheme)
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    gram, cross = _normal_equations(spread, weight, moments)
    decoder = np.linalg.solve(gram, cross)
    lost = (weight - decoder.T @ spread) @ moments.mean
    out, offsets = len(layer.weight), math.prod(kernels(layer, split.scheme)[1])
    columns = decoder.reshape(split.rank, split.groups, offsets, out).transpose(1, 3, 2, 0)
    columns = columns.reshape(split.groups, out * offsets, split.rank)
    return of_columns(layer, split, columns, rows, lost)


def encoder_rows(
    layer: Layer, moments: Moments, scheme: int, groups: int
) -> Float64[np.ndarray, "groups full width"]:
    """The right factors of each slice, whitened: row r is the r-th most important, with unit variance."""
    matrix = slices(fold(layer, layer.weight.astype(np.float64), scheme), groups)
    second = _folded_moment(layer, moments.second, scheme)
    width = matrix.shape[2]
    blocks = np.stack(
        [second[i * width : (i + 1) * width, i * width : (i + 1) * width] for i in range(groups)]
    )
    values, vectors = np.linalg.eigh(blocks)
    root = np.sqrt(values)
    rows = np.linalg.svd((matrix @ vectors) * root[:, None, :], full_matrices=False)[2]
    return (rows / root[:, None, :]) @ vectors.transpose(0, 2, 1)


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


def reading(
    layer: Layer, rows: Float64[np.ndarray, "groups rank width"], scheme: int
) -> Float64[np.ndarray, "rank*groups*offsets columns"]:
    """What the decoder reads as a linear map of the unfolded input: rows by rank, then group, then offset."""
    kept, (inner, outer) = encoder_axes(layer, scheme), kernels(layer, scheme)
    groups, rank, _ = rows.shape
    channels = layer.sides[1] // groups
    offsets = math.prod(outer)
    spread = np.zeros((rank, groups, offsets, groups, channels, *layer.kernel))
    turned = rows.reshape(groups, rank, channels, *inner).swapaxes(0, 1)
    for offset, place in enumerate(np.ndindex(*outer)):
        at = tuple(slice(None) if keep else slice(p, p + 1) for keep, p in zip(kept, place, strict=True))
        for group in range(groups):
            spread[(slice(None), group, offset, group, slice(None), *at)] = turned[:, group]
    return spread.reshape(rank * groups * offsets, -1)


def _normal_equations(
    spread: Float64[np.ndarray, "n columns"], weight: Float64[np.ndarray, "out columns"], moments: Moments
) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n out"]]:
    """E C E^T, a trifle added that keeps it positive, and E C W^T."""
    seen = spread @ moments.second
    gram = seen @ spread.T
    return gram + 1e-9 * np.eye(len(gram)), seen @ weight.T
