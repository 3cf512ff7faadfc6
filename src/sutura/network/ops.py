"""The operator vocabulary: what a network may be made of, one frozen dataclass an operator.

Axes and shapes are those of one sample: the batch axis, always first, is never counted. Weights are kept
exactly as the file stores them, so that a network written again runs the same kernels on the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True, slots=True, eq=False)
class MatMul:
    """y = x @ weight over the last axis."""

    weight: Float32[np.ndarray, "n m"]


@dataclass(frozen=True, slots=True, eq=False)
class Gemm:
    """y = alpha * (x @ W) + beta * bias, with W = weight, or its transpose where `transposed`."""

    weight: Float32[np.ndarray, "a b"]
    bias: Float32[np.ndarray, "*_"] | None
    alpha: float = 1.0
    beta: float = 1.0
    transposed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AddConstant:
    """y = x + value, broadcast."""

    value: Float32[np.ndarray, "*_"]


@dataclass(frozen=True, slots=True, eq=False)
class SubtractConstant:
    """y = x - value, or value - x where `reversed`; broadcast."""

    value: Float32[np.ndarray, "*_"]
    reversed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class MultiplyConstant:
    """y = x * value, broadcast."""

    value: Float32[np.ndarray, "*_"]


@dataclass(frozen=True, slots=True, eq=False)
class DivideConstant:
    """y = x / value, broadcast; no value is zero."""

    value: Float32[np.ndarray, "*_"]


@dataclass(frozen=True, slots=True)
class Add:
    """y = a + b, two activations of one shape."""


@dataclass(frozen=True, slots=True)
class Subtract:
    """y = a - b, two activations of one shape."""


@dataclass(frozen=True, slots=True)
class Multiply:
    """y = a * b, two activations of one shape."""


@dataclass(frozen=True, slots=True)
class Divide:
    """y = a / b, two activations of one shape."""


@dataclass(frozen=True, slots=True, eq=False)
class Conv:
    """Cross-correlation over the trailing axes; `pads` is (begin..., end...), as ONNX orders them."""

    weight: Float32[np.ndarray, "out in_per_group *kernel"]
    bias: Float32[np.ndarray, " out"] | None
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class BatchNormalization:
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias, per channel (sample axis 0)."""

    scale: Float32[np.ndarray, " channels"]
    bias: Float32[np.ndarray, " channels"]
    mean: Float32[np.ndarray, " channels"]
    variance: Float32[np.ndarray, " channels"]
    epsilon: float


@dataclass(frozen=True, slots=True)
class AveragePool:
    """Mean over windows; `count_include_pad` divides border windows by the whole kernel."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    count_include_pad: bool = False


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """Mean over all axes but the channel (sample axis 0); reduced axes stay, with length one."""


@dataclass(frozen=True, slots=True)
class MaxPool:
    """Maximum over windows; padding never wins."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same numbers in row-major order under another sample shape (all sizes known)."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transpose:
    """Sample axes permuted: output axis i is input axis permutation[i]."""

    permutation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pad:
    """Constant padding of the sample axes; `pads` is (begin..., end...) over all of them, none negative."""

    pads: tuple[int, ...]
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Concat:
    """Activations joined along a sample axis."""

    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """Entries `indices` of a sample axis, in that order (Gather and Slice with constant indices)."""

    axis: int
    indices: Int64[np.ndarray, " k"]


@dataclass(frozen=True, slots=True)
class Relu:
    """y = max(0, x)."""


@dataclass(frozen=True, slots=True)
class LeakyRelu:
    """y = x where x >= 0, else slope * x; slope is a float32 number."""

    slope: float


@dataclass(frozen=True, slots=True)
class Clip:
    """y = min(max(x, low), high); either end may be infinite."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """y = 1 / (1 + exp(-x))."""


@dataclass(frozen=True, slots=True)
class Tanh:
    """y = tanh(x)."""


@dataclass(frozen=True, slots=True)
class Square:
    """y = x * x."""


@dataclass(frozen=True, slots=True)
class Reciprocal:
    """y = 1 / x."""


@dataclass(frozen=True, slots=True)
class Exp:
    """y = e to the power x."""


@dataclass(frozen=True, slots=True)
class Softmax:
    """y = exp(x) / sum of exp(x) over the last sample axis."""


Op = (
    MatMul | Gemm | AddConstant | SubtractConstant | MultiplyConstant | DivideConstant | Add | Subtract
    | Multiply | Divide
    | Conv | BatchNormalization | AveragePool | GlobalAveragePool | MaxPool
    | Reshape | Transpose | Pad | Concat | Take
    | Relu | LeakyRelu | Clip | Sigmoid | Tanh | Square | Reciprocal | Exp | Softmax
)  # fmt: skip
