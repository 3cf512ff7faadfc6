"""PCA of layer outputs (Zhang et al., 2016, as a baseline of ALDS): data decides which directions of y stay.

The layer y = W x + b becomes U U^T W x + (b + (1 - U U^T) W E[x]), U the first principal directions of y.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from sutura.compression.factors import Factors, of_columns
from sutura.compression.folding import Split
from sutura.compression.layers import Layer
from sutura.compression.moments import Moments


def directions(
    layer: Layer, moments: Moments
) -> tuple[Float64[np.ndarray, " out"], Float64[np.ndarray, "out out"]]:
    """Variances of the output along its principal directions, largest first, and these, a column each."""
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    second = moments.second if layer.absorbs else moments.second - np.outer(moments.mean, moments.mean)
    values, vectors = np.linalg.eigh(weight @ second @ weight.T)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def scores(layer: Layer, moments: Moments, cost: float) -> Float64[np.ndarray, " ranks"]:
    """How much each direction is worth: its variance over that of all up to it, and over its cost."""
    values = directions(layer, moments)[0][: min(layer.weight.shape[0], moments.mean.size)]
    return values / np.maximum(np.cumsum(values), np.finfo(float).tiny) / cost


def projected(layer: Layer, moments: Moments, split: Split) -> Factors:
    """The layer through its first `rank` principal directions."""
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    kept = directions(layer, moments)[1][:, : split.rank]
    rows = kept.T @ weight
    lost = (weight - kept @ rows) @ moments.mean
    return of_columns(layer, split, kept[None], rows[None], lost)
