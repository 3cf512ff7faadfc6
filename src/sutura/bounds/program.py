"""The form in which bounds are computed: a list of layers over flat vectors, each affine or an activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import csr_array

from sutura.network.ops import Exp, LeakyRelu, Reciprocal, Relu, Sigmoid, Square, Tanh

Matrix = np.ndarray | csr_array
"""[n_out, n_in], dense float64 or sparse."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """z = sum_i weights[i] @ x_sources[i] + bias, executed with at most `roundings` roundings a term.

    `absolute` and `absolute_bias` bound the magnitudes that pass through it: for any inputs |x| <= m, every
    intermediate of any execution order stays below peak * v, v = sum_i absolute[i] @ m + absolute_bias, up to
    rounding, and its share of the result below v. `flush` bounds what gradual underflow or flush-to-zero may
    add to the result, in units of the smallest normal number.
    """

    sources: tuple[int, ...]
    weights: tuple[Matrix, ...]
    bias: Float64[np.ndarray, " n"]
    absolute: tuple[Matrix, ...]
    absolute_bias: Float64[np.ndarray, " n"]
    roundings: int
    peak: float = 1.0
    flush: float = 0.0

    @property
    def size(self) -> int:
        """Number of outputs."""
        return len(self.bias)


@dataclass(frozen=True, slots=True)
class Elementwise:
    """An activation applied to every entry of one layer."""

    source: int
    op: Relu | LeakyRelu | Sigmoid | Tanh | Square | Reciprocal | Exp
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class MaxOf:
    """Entry j is the maximum of the source entries windows[j] (short windows repeat an entry)."""

    source: int
    windows: Int64[np.ndarray, "n k"]

    @property
    def size(self) -> int:
        """Number of outputs."""
        return len(self.windows)


Layer = Affine | Elementwise | MaxOf


@dataclass(frozen=True, slots=True)
class Program:
    """Value 0 is the input; layer i defines value i + 1; the last value is the output."""

    inputs: int
    layers: tuple[Layer, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Length of every value."""
        return (self.inputs, *(layer.size for layer in self.layers))

    @property
    def outputs(self) -> int:
        """Length of the output."""
        return self.sizes[-1]


def sources(layer: Layer) -> tuple[int, ...]:
    """The values a layer reads."""
    return layer.sources if isinstance(layer, Affine) else (layer.source,)


def run(program: Program, x: Float64[np.ndarray, "batch n"]) -> list[Float64[np.ndarray, "batch m"]]:
    """Every value of the program in float64 (a reference, not a bound)."""
    values = [x]
    for layer in program.layers:
        values.append(_apply(layer, values))
    return values


def _apply(layer: Layer, values: list[np.ndarray]) -> np.ndarray:
    if isinstance(layer, Affine):
        terms = (values[s] @ w.T for s, w in zip(layer.sources, layer.weights, strict=True))
        return sum(terms, layer.bias[None, :])
    if isinstance(layer, MaxOf):
        return values[layer.source][:, layer.windows].max(axis=2)
    return ACTIVATIONS[type(layer.op)](values[layer.source], layer.op)


def _relu(x: np.ndarray, _: Relu) -> np.ndarray:
    return np.maximum(x, 0.0)


def _leaky_relu(x: np.ndarray, op: LeakyRelu) -> np.ndarray:
    return np.where(x >= 0, x, op.slope * x)


def _sigmoid(x: np.ndarray, _: Sigmoid) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _tanh(x: np.ndarray, _: Tanh) -> np.ndarray:
    return np.tanh(x)


def _square(x: np.ndarray, _: Square) -> np.ndarray:
    return x * x


def _reciprocal(x: np.ndarray, _: Reciprocal) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 1.0 / x


def _exp(x: np.ndarray, _: Exp) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.exp(x)


ACTIVATIONS: Mapping[type, Callable[[np.ndarray, Any], np.ndarray]] = {
    Relu: _relu,
    LeakyRelu: _leaky_relu,
    Sigmoid: _sigmoid,
    Tanh: _tanh,
    Square: _square,
    Reciprocal: _reciprocal,
    Exp: _exp,
}
