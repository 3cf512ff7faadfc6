"""Second moments of what each layer reads, from calibration samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from numpy.lib.stride_tricks import sliding_window_view

from sutura.compression.layers import Layer
from sutura.compression.trace import trace
from sutura.network.graph import Network

MOST_COLUMNS = 4096
"""Widest unfolded input whose moments are taken (a matrix of that side squared)."""

SHRINK = 1e-4
"""Share of the mean variance added to that of every direction: those never seen must not look free."""

MOST_POSITIONS = 16_384
"""Positions, over all samples, that enter a layer's moments."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of a layer's unfolded input x, over samples and positions: E[x] and the matrix to whiten with.

    `second` is the covariance where a constant added to the output has somewhere to go (see Layer.absorbs),
    else E[x x^T], so that in both cases tr(D second D^T) is the mean squared error of a change D of weights.
    """

    mean: Float64[np.ndarray, " columns"]
    second: Float64[np.ndarray, "columns columns"]


def moments(
    network: Network, layers: Sequence[Layer], x: Float32[np.ndarray, "batch *sample"], seed: int = 0
) -> Mapping[str, Moments]:
    """The moments of each layer's input by the layer's key, one pass over the samples.

    Layers wider than MOST_COLUMNS have none. At most MOST_POSITIONS positions are drawn, evenly at random.
    """
    wanted = {layer.key: layer for layer in layers if columns(layer) <= MOST_COLUMNS}
    found: dict[str, Moments] = {}
    for node, inputs, _ in trace(network, x):
        if node.output in wanted:
            layer = wanted[node.output]
            seen = unfolded(layer, inputs[0], drawn(layer, len(x), seed))
            found[layer.key] = of_samples(seen, centred=bool(layer.absorbs))
    return found


def columns(layer: Layer) -> int:
    """How many numbers one output position reads."""
    return math.prod(layer.weight.shape[1:])


def of_samples(seen: Float32[np.ndarray, "n columns"], *, centred: bool) -> Moments:
    """The moments of rows, about their mean where `centred`."""
    mean = seen.mean(axis=0, dtype=np.float64)
    about = seen - mean.astype(np.float32) if centred else seen
    second = (about.T @ about).astype(np.float64) / len(seen)
    floor = SHRINK * np.trace(second) / len(second) + np.finfo(np.float32).eps
    return Moments(mean, second + floor * np.eye(len(second)))


def drawn(layer: Layer, samples: int, seed: int) -> tuple[np.ndarray, ...]:
    """Indices (sample, position...) of the output positions to look at, all or MOST_POSITIONS of them."""
    spatial = layer.output[1:] if layer.kernel else layer.output[:-1]
    shape = (samples, *spatial)
    total = math.prod(shape)
    if total <= MOST_POSITIONS:
        return np.unravel_index(np.arange(total), shape)
    picked = np.random.default_rng(seed).choice(total, MOST_POSITIONS, replace=False)
    return np.unravel_index(np.sort(picked), shape)


def unfolded(
    layer: Layer, x: Float32[np.ndarray, "batch *input"], at: tuple[np.ndarray, ...]
) -> Float32[np.ndarray, "n columns"]:
    """What the layer reads at the output positions `at`: rows in the order of its weight, (in, kernel)."""
    if not layer.kernel:
        return np.ascontiguousarray(x[at])
    rank = len(layer.kernel)
    pads = [(0, 0), (0, 0), *zip(layer.pads[:rank], layer.pads[rank:], strict=True)]
    x = np.pad(x, pads)
    reach = [(k - 1) * d + 1 for k, d in zip(layer.kernel, layer.dilations, strict=True)]
    windows = sliding_window_view(x, reach, axis=tuple(range(2, 2 + rank)))
    thin = (slice(None),) * (2 + rank) + tuple(slice(None, None, d) for d in layer.dilations)
    starts = tuple(index * stride for index, stride in zip(at[1:], layer.strides, strict=True))
    return windows[thin][(at[0], slice(None), *starts)].reshape(len(at[0]), -1)


def outputs_at(
    layer: Layer, y: Float32[np.ndarray, "batch *output"], at: tuple[np.ndarray, ...]
) -> Float32[np.ndarray, "n out"]:
    """The layer's outputs at the positions `at`."""
    return y[(at[0], slice(None), *at[1:])] if layer.kernel else y[at]
