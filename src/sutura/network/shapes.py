"""The sample shape that an operator gives: a table operator -> rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import MAX_ELEMENTS, shown_shape
from sutura.network.graph import Shape


def output_shape(op: ops.Op, shapes: tuple[Shape, ...]) -> Shape:
    """Sample shape of the output of `op` on inputs of these sample shapes (no batch axis).

    Computed with Python integers, nothing is allocated. Raises NetworkError where op and shapes do not fit.
    """
    return RULES[type(op)](op, *shapes)


def window_counts(size: Shape, kernel: Shape, strides: Shape, pads: Shape, dilations: Shape) -> Shape:
    """How many windows fit on each axis (rounded down)."""
    rank = len(size)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise NetworkError(f"kernel {kernel}, its strides, pads or dilations do not fit {rank} spatial axes")
    if min((*kernel, *strides, *dilations), default=1) < 1 or min(pads, default=0) < 0:
        raise NetworkError("kernel, strides and dilations must be positive, pads not negative")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    padded = [n + pads[i] + pads[i + rank] for i, n in enumerate(size)]
    if math.prod(padded) > MAX_ELEMENTS:
        raise NetworkError(
            f"pads its input to {shown_shape(padded)}; at most {MAX_ELEMENTS} numbers are supported"
        )
    if any(r > n for r, n in zip(reach, padded, strict=True)):
        raise NetworkError(f"a window of {shown_shape(reach)} does not fit into {shown_shape(padded)}")
    return tuple((n - r) // s + 1 for n, r, s in zip(padded, reach, strides, strict=True))


def _same(op: ops.Op, shape: Shape) -> Shape:
    return shape


def _softmax(op: ops.Softmax, shape: Shape) -> Shape:
    if not shape or shape[-1] < 2:
        raise NetworkError(f"needs at least two numbers on its axis, and reads {shown_shape(shape)}")
    return shape


def _pair(op: ops.Op, left: Shape, right: Shape) -> Shape:
    if left != right:
        raise NetworkError(
            f"the two operands have shapes {shown_shape(left)} and {shown_shape(right)}; make them equal"
        )
    return left


def _broadcast(op: Any, shape: Shape) -> Shape:
    if op.value.ndim > len(shape):
        raise NetworkError(
            f"a constant of shape {shown_shape(op.value.shape)} would spread over the batch axis of samples "
            f"{shown_shape(shape)}"
        )
    try:
        return np.broadcast_shapes(op.value.shape, shape)
    except ValueError:
        raise NetworkError(
            f"a constant of shape {shown_shape(op.value.shape)} does not fit {shown_shape(shape)}"
        ) from None


def _matmul(op: ops.MatMul, shape: Shape) -> Shape:
    if not shape or op.weight.ndim != 2 or op.weight.shape[0] != shape[-1]:
        raise NetworkError(f"a weight of {shown_shape(op.weight.shape)} does not fit {shown_shape(shape)}")
    return (*shape[:-1], op.weight.shape[1])


def _gemm(op: ops.Gemm, shape: Shape) -> Shape:
    weight = op.weight.shape[::-1] if op.transposed else op.weight.shape
    if len(shape) != 1 or len(weight) != 2 or weight[0] != shape[0]:
        raise NetworkError(f"a weight of {shown_shape(weight)} does not fit {shown_shape(shape)}")
    if op.bias is not None and op.bias.shape not in ((), (1,), (weight[1],)):
        raise NetworkError(f"a bias of {shown_shape(op.bias.shape)} does not fit {weight[1]} outputs")
    return (weight[1],)


def _conv(op: ops.Conv, shape: Shape) -> Shape:
    out, per_group, *kernel = op.weight.shape
    if op.group < 1 or len(shape) != len(kernel) + 1 or per_group * op.group != shape[0] or out % op.group:
        raise NetworkError(
            f"a weight of {shown_shape(op.weight.shape)} in {op.group} groups misfits {shown_shape(shape)}"
        )
    if op.bias is not None and op.bias.shape != (out,):
        raise NetworkError(f"a bias of {shown_shape(op.bias.shape)} does not fit {out} channels")
    return (out, *window_counts(shape[1:], tuple(kernel), op.strides, op.pads, op.dilations))


def _normalization(op: ops.BatchNormalization, shape: Shape) -> Shape:
    parts = (op.scale, op.bias, op.mean, op.variance)
    if not shape or any(part.shape != (shape[0],) for part in parts):
        raise NetworkError(
            f"scale, bias, mean and variance must have one entry a channel of {shown_shape(shape)}"
        )
    return shape


def _pool(op: ops.AveragePool | ops.MaxPool, shape: Shape) -> Shape:
    _spatial(shape)
    if any(p >= k for p, k in zip(op.pads, op.kernel * 2, strict=False)):
        raise NetworkError(f"pads {op.pads} must be smaller than the kernel {op.kernel}")
    dilations = op.dilations if isinstance(op, ops.MaxPool) else (1,) * len(op.kernel)
    return (shape[0], *window_counts(shape[1:], op.kernel, op.strides, op.pads, dilations))


def _global_pool(op: ops.GlobalAveragePool, shape: Shape) -> Shape:
    _spatial(shape)
    return (shape[0], *(1 for _ in shape[1:]))


def _spatial(shape: Shape) -> None:
    if len(shape) < 2:
        raise NetworkError(f"pooling needs channels and at least one spatial axis, not {shown_shape(shape)}")


def _reshape(op: ops.Reshape, shape: Shape) -> Shape:
    if math.prod(op.shape) != math.prod(shape) or any(n < 1 for n in op.shape):
        raise NetworkError(f"cannot read samples of {shown_shape(shape)} as {shown_shape(op.shape)}")
    return op.shape


def _transpose(op: ops.Transpose, shape: Shape) -> Shape:
    if sorted(op.permutation) != list(range(len(shape))):
        raise NetworkError(f"permutation {op.permutation} does not fit {shown_shape(shape)}")
    return tuple(shape[axis] for axis in op.permutation)


def _pad(op: ops.Pad, shape: Shape) -> Shape:
    rank = len(shape)
    if len(op.pads) != 2 * rank or any(p < 0 for p in op.pads):
        raise NetworkError(f"pads {op.pads} do not fit {shown_shape(shape)}, or are negative")
    return tuple(n + op.pads[i] + op.pads[i + rank] for i, n in enumerate(shape))


def _concat(op: ops.Concat, *shapes: Shape) -> Shape:
    first, axis = shapes[0], op.axis
    if not 0 <= axis < len(first):
        raise NetworkError(f"sample axis {axis} does not exist in {shown_shape(first)}")
    if any(
        len(s) != len(first) or s[:axis] + s[axis + 1 :] != first[:axis] + first[axis + 1 :] for s in shapes
    ):
        raise NetworkError(
            f"shapes {', '.join(shown_shape(s) for s in shapes[:5])} do not join on sample axis {axis}"
        )
    return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :])


def _take(op: ops.Take, shape: Shape) -> Shape:
    if not 0 <= op.axis < len(shape) or op.indices.ndim != 1:
        raise NetworkError(f"sample axis {op.axis} does not exist in {shown_shape(shape)}")
    if op.indices.size and not 0 <= int(op.indices.min()) <= int(op.indices.max()) < shape[op.axis]:
        raise NetworkError(f"an index lies outside axis {op.axis} of {shown_shape(shape)}")
    return (*shape[: op.axis], op.indices.size, *shape[op.axis + 1 :])


RULES: dict[type[Any], Callable[..., Shape]] = {
    ops.MatMul: _matmul,
    ops.Gemm: _gemm,
    ops.AddConstant: _broadcast,
    ops.SubtractConstant: _broadcast,
    ops.MultiplyConstant: _broadcast,
    ops.DivideConstant: _broadcast,
    ops.Add: _pair,
    ops.Subtract: _pair,
    ops.Multiply: _pair,
    ops.Divide: _pair,
    ops.Conv: _conv,
    ops.BatchNormalization: _normalization,
    ops.AveragePool: _pool,
    ops.GlobalAveragePool: _global_pool,
    ops.MaxPool: _pool,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Take: _take,
    ops.Relu: _same,
    ops.LeakyRelu: _same,
    ops.Clip: _same,
    ops.Sigmoid: _same,
    ops.Tanh: _same,
    ops.Square: _same,
    ops.Reciprocal: _same,
    ops.Exp: _same,
    ops.Softmax: _softmax,
}
