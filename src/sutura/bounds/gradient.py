"""Gradients of a program at points, for attacks and for choosing neurons; no proof rests on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from sutura.bounds.program import Affine, Elementwise, MaxOf, Program
from sutura.network.ops import Exp, LeakyRelu, Reciprocal, Relu, Sigmoid, Square, Tanh

Array = Float64[np.ndarray, "batch n"]


def gradients(program: Program, values: Sequence[Array], seed: Array) -> dict[int, Array]:
    """d(seed . output) / d(value k) for every value k that the output depends on, at the points of `values`.

    `values` are those of `program.run`; the result holds the input under key 0.
    """
    flowing = {len(program.layers): seed}
    for at in range(len(program.layers), 0, -1):
        if at not in flowing:
            continue
        layer = program.layers[at - 1]
        for source, part in _through(layer, values, flowing[at]):
            flowing[source] = flowing[source] + part if source in flowing else part
    return flowing


def _through(
    layer: Affine | Elementwise | MaxOf, values: Sequence[Array], g: Array
) -> list[tuple[int, Array]]:
    if isinstance(layer, Affine):
        return [(s, g @ w) for s, w in zip(layer.sources, layer.weights, strict=True)]
    x = values[layer.source]
    if isinstance(layer, Elementwise):
        return [(layer.source, g * SLOPES[type(layer.op)](x, layer.op))]
    winner = x[:, layer.windows].argmax(axis=2)
    entry = np.take_along_axis(
        np.broadcast_to(layer.windows, (len(x), *layer.windows.shape)), winner[..., None], 2
    )
    flat = entry[..., 0] + np.arange(len(x))[:, None] * x.shape[1]
    return [(layer.source, np.bincount(flat.reshape(-1), g.reshape(-1), minlength=x.size).reshape(x.shape))]


def _relu_slope(x: Array, _: Relu) -> Array:
    return (x > 0).astype(np.float64)


def _leaky_slope(x: Array, op: LeakyRelu) -> Array:
    return np.where(x > 0, 1.0, op.slope)


def _tanh_slope(x: Array, _: Tanh) -> Array:
    return 1.0 - np.tanh(x) ** 2


def _sigmoid_slope(x: Array, _: Sigmoid) -> Array:
    y = 0.5 * (1.0 + np.tanh(0.5 * x))
    return y * (1.0 - y)


def _square_slope(x: Array, _: Square) -> Array:
    return 2.0 * x


def _reciprocal_slope(x: Array, _: Reciprocal) -> Array:
    return -1.0 / (x * x)


def _exp_slope(x: Array, _: Exp) -> Array:
    return np.exp(x)


SLOPES: Mapping[type, Callable[[Array, Any], Array]] = {
    Relu: _relu_slope,
    LeakyRelu: _leaky_slope,
    Sigmoid: _sigmoid_slope,
    Tanh: _tanh_slope,
    Square: _square_slope,
    Reciprocal: _reciprocal_slope,
    Exp: _exp_slope,
}
