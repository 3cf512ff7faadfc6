"""What a network computes, in plain numpy: a table operator -> function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from numpy.lib.stride_tricks import sliding_window_view

from sutura.errors import MismatchError
from sutura.network import ops
from sutura.network.budget import shown_shape
from sutura.network.graph import Network

Array = Float[np.ndarray, " batch *shape"]


def evaluate(
    network: Network, x: Float64[np.ndarray, " batch *shape"]
) -> Float64[np.ndarray, " batch *output_shape"]:
    """The outputs for a batch of inputs, in float64 arithmetic on the float32 weights.

    A reference, not what runs: it differs from a float32 runtime by that runtime's rounding. `x` has the
    batch first, then the network's input shape; raises MismatchError for any other shape.
    """
    return forward(network, np.asarray(x, dtype=np.float64))[network.output]


def activations(
    network: Network, x: Float64[np.ndarray, " batch *shape"]
) -> Mapping[str, Float64[np.ndarray, " batch *_"]]:
    """Every value of the network by name, the input included, for a batch of inputs; see `evaluate`."""
    return forward(network, np.asarray(x, dtype=np.float64), keep=True)


def forward(network: Network, x: Array, *, keep: bool = False) -> Mapping[str, Array]:
    """The output by name (every value where `keep`), computed in the number type of `x`."""
    if x.ndim == 0 or x.shape[1:] != network.input_shape:
        raise MismatchError(
            f"inputs have shape {shown_shape(x.shape)}; the network takes a batch of "
            f"{shown_shape(network.input_shape)}"
        )
    last = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
    values: dict[str, Array] = {network.input: x}
    for index, node in enumerate(network.nodes):
        values[node.output] = apply(node.op, tuple(values[name] for name in node.inputs))
        for name in set() if keep else set(node.inputs):
            if last[name] == index:
                del values[name]
    return MappingProxyType(values if keep else {network.output: values[network.output]})


def apply(op: ops.Op, inputs: tuple[Array, ...]) -> Array:
    """The value of one operator on batches, computed in the number type of its first input."""
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        return FUNCTIONS[type(op)](op, *inputs)


def _cast(value: np.ndarray, like: Array) -> Array:
    return value.astype(like.dtype, copy=False)


def _full(op: Any, x: Array) -> Array:
    """A broadcast constant against the sample axes of `x`."""
    value = _cast(op.value, x)
    return value.reshape((1,) * (x.ndim - value.ndim) + value.shape)


def _matmul(op: ops.MatMul, x: Array) -> Array:
    return x @ _cast(op.weight, x)


def _gemm(op: ops.Gemm, x: Array) -> Array:
    weight = _cast(op.weight, x)
    y = x.dtype.type(op.alpha) * (x @ (weight.T if op.transposed else weight))
    return y if op.bias is None else y + x.dtype.type(op.beta) * _cast(op.bias, x)


def _conv(op: ops.Conv, x: Array) -> Array:
    """One matrix product for each kernel entry, so that memory stays that of input and output."""
    rank, groups = x.ndim - 2, op.group
    kernel, out = op.weight.shape[2:], op.weight.shape[0]
    x = _padded(x, (0, *op.pads[:rank], 0, *op.pads[rank:]), 0.0)
    spans = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], kernel, op.strides, op.dilations, strict=True)
    ]
    weight = _cast(op.weight, x).reshape(groups, out // groups, -1, *kernel)
    y = np.zeros((x.shape[0], groups, out // groups, math.prod(spans)), dtype=x.dtype)
    for offset in np.ndindex(*kernel):
        cut = tuple(
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, op.dilations, spans, op.strides, strict=True)
        )
        seen = x[(slice(None), slice(None), *cut)]
        seen = seen.reshape(x.shape[0], groups, x.shape[1] // groups, math.prod(spans))
        y += weight[(slice(None), slice(None), slice(None), *offset)] @ seen
    y = y.reshape(x.shape[0], out, *spans)
    return y if op.bias is None else y + _cast(op.bias, x).reshape(-1, *(1,) * rank)


def _normalization(op: ops.BatchNormalization, x: Array) -> Array:
    parts = (op.scale, op.bias, op.mean, op.variance)
    scale, bias, mean, variance = (_cast(p, x).reshape(-1, *(1,) * (x.ndim - 2)) for p in parts)
    return (x - mean) / np.sqrt(variance + x.dtype.type(op.epsilon)) * scale + bias


def _average_pool(op: ops.AveragePool, x: Array) -> Array:
    total = _windows(x, op, np.add, 0.0)
    if op.count_include_pad:
        return total / x.dtype.type(math.prod(op.kernel))
    return total / _windows(np.ones((1, 1, *x.shape[2:]), x.dtype), op, np.add, 0.0)


def _max_pool(op: ops.MaxPool, x: Array) -> Array:
    return _windows(x, op, np.maximum, -math.inf)


def _windows(x: Array, op: ops.AveragePool | ops.MaxPool, combine: np.ufunc, fill: float) -> Array:
    """`combine` over every window, axis by axis."""
    rank = x.ndim - 2
    dilations = op.dilations if isinstance(op, ops.MaxPool) else (1,) * rank
    x = _padded(x, (0, *op.pads[:rank], 0, *op.pads[rank:]), fill)
    for axis, (kernel, stride, dilation) in enumerate(zip(op.kernel, op.strides, dilations, strict=True), 2):
        seen = sliding_window_view(x, (kernel - 1) * dilation + 1, axis=axis)
        starts = (slice(None),) * axis + (slice(None, None, stride),)
        x = combine.reduce(seen[starts][..., ::dilation], axis=-1)
    return x


def _global_pool(op: ops.GlobalAveragePool, x: Array) -> Array:
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


def _reshape(op: ops.Reshape, x: Array) -> Array:
    return x.reshape(x.shape[0], *op.shape)


def _transpose(op: ops.Transpose, x: Array) -> Array:
    return x.transpose(0, *(axis + 1 for axis in op.permutation))


def _pad(op: ops.Pad, x: Array) -> Array:
    return _padded(x, op.pads, op.value)


def _padded(x: Array, pads: tuple[int, ...], fill: float) -> Array:
    rank = len(pads) // 2
    widths = [(0, 0), *((pads[i], pads[i + rank]) for i in range(rank))]
    return np.pad(x, widths, constant_values=fill) if any(pads) else x


def _concat(op: ops.Concat, *values: Array) -> Array:
    return np.concatenate(values, axis=op.axis + 1)


def _take(op: ops.Take, x: Array) -> Array:
    return np.take(x, op.indices, axis=op.axis + 1)


def _sigmoid(op: ops.Sigmoid, x: Array) -> Array:
    # Each half uses the exponential that cannot overflow.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _add_constant(op: ops.AddConstant, x: Array) -> Array:
    return x + _full(op, x)


def _subtract_constant(op: ops.SubtractConstant, x: Array) -> Array:
    return _full(op, x) - x if op.reversed else x - _full(op, x)


def _multiply_constant(op: ops.MultiplyConstant, x: Array) -> Array:
    return x * _full(op, x)


def _divide_constant(op: ops.DivideConstant, x: Array) -> Array:
    return x / _full(op, x)


def _add(op: ops.Add, left: Array, right: Array) -> Array:
    return left + right


def _subtract(op: ops.Subtract, left: Array, right: Array) -> Array:
    return left - right


def _multiply(op: ops.Multiply, left: Array, right: Array) -> Array:
    return left * right


def _divide(op: ops.Divide, left: Array, right: Array) -> Array:
    return left / right


def _square(op: ops.Square, x: Array) -> Array:
    return x * x


def _reciprocal(op: ops.Reciprocal, x: Array) -> Array:
    return x.dtype.type(1) / x


def _exp(op: ops.Exp, x: Array) -> Array:
    return np.exp(x)


def _softmax(op: ops.Softmax, x: Array) -> Array:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _relu(op: ops.Relu, x: Array) -> Array:
    return np.maximum(x, x.dtype.type(0))


def _leaky_relu(op: ops.LeakyRelu, x: Array) -> Array:
    return np.where(x >= 0, x, x.dtype.type(op.slope) * x)


def _clip(op: ops.Clip, x: Array) -> Array:
    return np.minimum(np.maximum(x, x.dtype.type(op.low)), x.dtype.type(op.high))


def _tanh(op: ops.Tanh, x: Array) -> Array:
    return np.tanh(x)


FUNCTIONS: dict[type[Any], Callable[..., Array]] = {
    ops.MatMul: _matmul,
    ops.Gemm: _gemm,
    ops.AddConstant: _add_constant,
    ops.SubtractConstant: _subtract_constant,
    ops.MultiplyConstant: _multiply_constant,
    ops.DivideConstant: _divide_constant,
    ops.Add: _add,
    ops.Subtract: _subtract,
    ops.Multiply: _multiply,
    ops.Divide: _divide,
    ops.Conv: _conv,
    ops.BatchNormalization: _normalization,
    ops.AveragePool: _average_pool,
    ops.GlobalAveragePool: _global_pool,
    ops.MaxPool: _max_pool,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Take: _take,
    ops.Relu: _relu,
    ops.LeakyRelu: _leaky_relu,
    ops.Clip: _clip,
    ops.Sigmoid: _sigmoid,
    ops.Tanh: _tanh,
    ops.Square: _square,
    ops.Reciprocal: _reciprocal,
    ops.Exp: _exp,
    ops.Softmax: _softmax,
}
