"""How a layer is folded to a matrix and split in encoder and decoder (Liebenwein et al., 2021, section 2).

The input channels are cut into k runs; each run's weights, folded to a matrix, are replaced by a product of
rank j. The encoder is a convolution with k groups and k*j outputs, the decoder one from those to all outputs.
A scheme says which kernel axes the encoder keeps; the decoder has the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sutura.compression.layers import Layer
from sutura.network.graph import Shape
from sutura.network.shapes import window_counts


@dataclass(frozen=True, slots=True)
class Split:
    """Scheme, number of channel groups k, and rank of each group j."""

    scheme: int
    groups: int
    rank: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What splits of one layer under one scheme and k cost: numbers and steps, each times j.

    Encoder and decoder together hold `weights * j` numbers and take `steps * j` multiply-accumulate steps;
    `full` is the largest rank that a group can have.
    """

    weights: int
    steps: int
    full: int


def encoder_axes(layer: Layer, scheme: int) -> tuple[bool, ...]:
    """Whether the encoder keeps each kernel axis."""
    axes = len(layer.kernel)
    return SCHEMES[scheme] if axes == 2 else (scheme == 0,) * axes


def schemes(layer: Layer, wanted: Sequence[int]) -> tuple[int, ...]:
    """Those of the wanted schemes that differ on this layer; always one at least."""
    rank = len(layer.kernel)
    if math.prod(layer.kernel) == 1:
        return (0,)
    differ = (0, 1, 2, 3) if rank == 2 and min(layer.kernel) > 1 else (0, 3)
    return tuple(scheme for scheme in wanted if scheme in differ) or (0,)


def divisors(layer: Layer) -> tuple[int, ...]:
    """The possible k: divisors of the number of input channels; 1 alone where it cannot be sliced."""
    channels = layer.sides[1]
    if not layer.sliced:
        return (1,)
    return tuple(k for k in range(1, channels + 1) if channels % k == 0)


def kernels(layer: Layer, scheme: int) -> tuple[Shape, Shape]:
    """Kernels of encoder and decoder."""
    kept = encoder_axes(layer, scheme)
    encoder = tuple(n if keep else 1 for n, keep in zip(layer.kernel, kept, strict=True))
    decoder = tuple(1 if keep else n for n, keep in zip(layer.kernel, kept, strict=True))
    return encoder, decoder


def costs(layer: Layer, scheme: int, groups: int) -> Costs:
    """What each rank costs under a scheme and k."""
    encoder, decoder = kernels(layer, scheme)
    out, channels = layer.sides
    inner, outer = channels * math.prod(encoder), groups * out * math.prod(decoder)
    before, after = positions(layer, scheme)
    full = min(out * math.prod(decoder), channels // groups * math.prod(encoder))
    return Costs(inner + outer, inner * before + outer * after, full)


def weights(layer: Layer, split: Split | None) -> int:
    """How many weights the layer has after a split."""
    if split is None:
        return layer.weight.size
    return costs(layer, split.scheme, split.groups).weights * split.rank


def positions(layer: Layer, scheme: int) -> tuple[int, int]:
    """At how many positions encoder and decoder are applied to one sample."""
    if not layer.kernel:
        count = math.prod(layer.output[:-1])
        return count, count
    kernel, kept = kernels(layer, scheme)[0], encoder_axes(layer, scheme)
    between = window_counts(layer.input[1:], kernel, *windows(layer, kept))
    return math.prod(between), math.prod(layer.output[1:])


def windows(layer: Layer, kept: Sequence[bool]) -> tuple[Shape, Shape, Shape]:
    """Strides, pads and dilations on the kept axes, and those of a 1 wide kernel on the others."""
    strides = tuple(n if keep else 1 for n, keep in zip(layer.strides, kept, strict=True))
    dilations = tuple(n if keep else 1 for n, keep in zip(layer.dilations, kept, strict=True))
    pads = tuple(n if keep else 0 for n, keep in zip(layer.pads, (*kept, *kept), strict=True))
    return strides, pads, dilations


def fold(
    layer: Layer, weight: Float[np.ndarray, "out in *kernel"], scheme: int
) -> Float[np.ndarray, "rows columns"]:
    """The weight as a matrix: rows (output, decoder axes), columns (input channel, encoder axes)."""
    kept = encoder_axes(layer, scheme)
    inner = [axis + 2 for axis, keep in enumerate(kept) if keep]
    outer = [axis + 2 for axis, keep in enumerate(kept) if not keep]
    rows = len(weight) * math.prod(weight.shape[axis] for axis in outer)
    return weight.transpose(0, *outer, 1, *inner).reshape(rows, -1)


def slices(matrix: Float[np.ndarray, "rows columns"], groups: int) -> Float[np.ndarray, "groups rows width"]:
    """The columns of a folded matrix in runs of consecutive input channels."""
    rows, columns = matrix.shape
    return matrix.reshape(rows, groups, columns // groups).transpose(1, 0, 2)


def encoder_weight(
    layer: Layer, split: Split, rows: Float[np.ndarray, "groups rank width"]
) -> Float[np.ndarray, "groups*rank in/groups *kernel"]:
    """The grouped convolution whose rows, group by group, are the right factors."""
    kernel = kernels(layer, split.scheme)[0]
    return rows.reshape(split.groups * split.rank, layer.sides[1] // split.groups, *kernel)


def decoder_weight(
    layer: Layer, split: Split, columns: Float[np.ndarray, "groups rows rank"]
) -> Float[np.ndarray, "out groups*rank *kernel"]:
    """The convolution whose columns, group by group, are the left factors."""
    kernel = kernels(layer, split.scheme)[1]
    beside = columns.transpose(1, 0, 2).reshape(layer.sides[0], *kernel, split.groups * split.rank)
    return np.moveaxis(beside, -1, 1)


def recompose(
    layer: Layer, split: Split, encoder: Float[np.ndarray, "n w *k"], decoder: Float[np.ndarray, "out n *k"]
) -> Float[np.ndarray, "out in *kernel"]:
    """The weight of the one layer that encoder and decoder are together."""
    groups, rank = split.groups, split.rank
    out, channels = layer.sides
    grouped = encoder.reshape(groups, rank, channels // groups, *encoder.shape[2:])
    spread = decoder.reshape(out, groups, rank, *decoder.shape[2:])
    left, right = spread.reshape(out, groups, rank, -1), grouped.reshape(groups, rank, channels // groups, -1)
    whole = np.einsum("ogrd,grwe->ogwde", left, right, optimize=True)
    # Of each kernel axis one factor has length one: the two lengths side by side are the axis itself.
    axes = len(layer.kernel)
    whole = whole.reshape(out, channels, *decoder.shape[2:], *encoder.shape[2:])
    order = [axis + 2 for n in range(axes) for axis in (n, n + axes)]
    return whole.transpose(0, 1, *order).reshape(layer.weight.shape)


SCHEMES: dict[int, tuple[bool, bool]] = {
    0: (True, True),
    1: (False, True),
    2: (True, False),
    3: (False, False),
}
"""Scheme -> whether the encoder keeps the first and the second kernel axis; numbered as the authors do."""
