"""Readers of the ONNX operators that compute: a table op_type -> reader."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import shown
from sutura.network.graph import Shape
from sutura.network.onnx_value import Activation, Applied, Call, Constant, Reading, sample_constant


def _unary(op: ops.Op, call: Call) -> Reading:
    return Applied((call.activation(),), (op,))


def _relu(call: Call) -> Reading:
    return _unary(ops.Relu(), call)


def _sigmoid(call: Call) -> Reading:
    return _unary(ops.Sigmoid(), call)


def _tanh(call: Call) -> Reading:
    return _unary(ops.Tanh(), call)


def _leaky_relu(call: Call) -> Reading:
    return _unary(ops.LeakyRelu(float(np.float32(call.number("alpha", 0.01)))), call)


def _clip(call: Call) -> Reading:
    if call.opset < 11:
        low, high = (
            _limit(call.attributes.get(name), end) for name, end in (("min", -math.inf), ("max", math.inf))
        )
    else:
        low, high = (_limit(call.constant(index), end) for index, end in ((1, -math.inf), (2, math.inf)))
    if not low <= high:
        raise NetworkError(f"clips to [{low}, {high}], which holds nothing")
    return _unary(ops.Clip(low, high), call)


def _limit(given: object, default: float) -> float:
    if given is None:
        return default
    value = given.array if isinstance(given, Constant) else np.asarray(given)
    if value.size != 1 or value.dtype.kind != "f":
        raise NetworkError("an end of the clipping range must be one float32 number")
    return float(np.float32(value.reshape(())))


def _operands(call: Call) -> tuple[Activation, Float32[np.ndarray, "*_"], bool] | None:
    """Activation, constant, and whether the constant comes first; None where both are activations."""
    left, right = call.input(0), call.input(1)
    if isinstance(left, Activation) and isinstance(right, Constant):
        return left, sample_constant(right, left.shape, batched=call.batched), False
    if isinstance(left, Constant) and isinstance(right, Activation):
        return right, sample_constant(left, right.shape, batched=call.batched), True
    if isinstance(left, Activation) and isinstance(right, Activation):
        return None
    raise NetworkError("needs two operands")


def _add(call: Call) -> Reading:
    operands = _operands(call)
    if operands is None:
        return Applied((call.activation(0), call.activation(1)), (ops.Add(),))
    return Applied(operands[:1], (ops.AddConstant(operands[1]),))


def _subtract(call: Call) -> Reading:
    operands = _operands(call)
    if operands is None:
        return Applied((call.activation(0), call.activation(1)), (ops.Subtract(),))
    return Applied(operands[:1], (ops.SubtractConstant(operands[1], reversed=operands[2]),))


def _multiply(call: Call) -> Reading:
    operands = _operands(call)
    if operands is None and call.activation(0).name == call.activation(1).name:
        return _unary(ops.Square(), call)
    if operands is None:
        return Applied((call.activation(0), call.activation(1)), (ops.Multiply(),))
    return Applied(operands[:1], (ops.MultiplyConstant(operands[1]),))


def _divide(call: Call) -> Reading:
    operands = _operands(call)
    if operands is None:
        return Applied((call.activation(0), call.activation(1)), (ops.Divide(),))
    if operands[2]:
        raise NetworkError("divides a constant by an activation; write Reciprocal and Mul instead")
    if not operands[1].all():
        raise NetworkError("divides by a constant that holds zero")
    return Applied(operands[:1], (ops.DivideConstant(operands[1]),))


def _power(call: Call) -> Reading:
    exponent = call.constant(1)
    if exponent is None or exponent.array.size != 1 or exponent.array.reshape(-1)[0] != 2:
        raise NetworkError("raises to another power than 2; only squares are supported")
    if exponent.array.ndim > len(call.activation().shape):
        raise NetworkError("has an exponent with more axes than a sample")
    return _unary(ops.Square(), call)


def _reciprocal(call: Call) -> Reading:
    return _unary(ops.Reciprocal(), call)


def _exp(call: Call) -> Reading:
    return _unary(ops.Exp(), call)


def _softmax(call: Call) -> Reading:
    value = call.activation()
    rank = len(value.shape) + call.lead
    # Before opset 13 all axes from this one on were flattened into one.
    axis = call.axis(call.integer("axis", -1 if call.opset >= 13 else 1), rank)
    if axis != len(value.shape) - 1:
        raise NetworkError("is not over the last axis; transpose before and after it")
    return Applied((value,), (ops.Softmax(),))


TWO_ACTIVATIONS = "multiplies two activations, as attention does, which is not supported"


def _matmul(call: Call) -> Reading:
    if isinstance(call.input(0), Activation) and isinstance(call.input(1), Activation):
        raise NetworkError(TWO_ACTIVATIONS)
    return Applied((call.activation(),), (ops.MatMul(call.weight(1)),))


def _gemm(call: Call) -> Reading:
    if call.integer("transA", 0):
        raise NetworkError("transposes its activation (transA), which moves the batch axis")
    bias = call.constant(2)
    op = ops.Gemm(
        weight=call.weight(1),
        bias=None if bias is None else sample_constant(bias, (1,)),
        alpha=call.number("alpha", 1.0),
        beta=call.number("beta", 1.0),
        transposed=bool(call.integer("transB", 0)),
    )
    return Applied((call.activation(),), (op,))


def _conv(call: Call) -> Reading:
    weight = call.weight(1)
    if weight.ndim not in (3, 4):
        raise NetworkError(f"has a weight of {weight.ndim} axes; 1-D and 2-D convolutions are supported")
    kernel = tuple(weight.shape[2:])
    if call.tuple_of("kernel_shape") not in (None, kernel):
        raise NetworkError(f"kernel_shape contradicts the weight, whose kernel is {kernel}")
    strides, dilations = _per_axis(call, "strides", kernel), _per_axis(call, "dilations", kernel)
    op = ops.Conv(
        weight=weight,
        bias=call.optional_weight(2),
        strides=strides,
        pads=_pads(call, kernel, strides, dilations),
        dilations=dilations,
        group=call.integer("group", 1),
    )
    return Applied((call.activation(),), (op,))


def _per_axis(call: Call, name: str, kernel: Shape) -> Shape:
    """An attribute with one positive number an axis of the kernel, ones where absent."""
    values = call.tuple_of(name)
    if values is None:
        return (1,) * len(kernel)
    if len(values) != len(kernel) or any(not 0 < v < 2**31 for v in values):
        raise NetworkError(f"{name} {shown(str(values))} does not fit a kernel of {len(kernel)} axes")
    return values


def _pads(call: Call, kernel: Shape, strides: Shape, dilations: Shape) -> Shape:
    """Explicit pads (begin..., end...); SAME_* resolved from the size of the activation."""
    mode, given = call.word("auto_pad", "NOTSET"), call.tuple_of("pads")
    rank, size = len(kernel), call.activation().shape[1:]
    if mode == "NOTSET":
        pads = given or (0,) * (2 * rank)
        if len(pads) != 2 * rank or any(not 0 <= p < 2**31 for p in pads):
            raise NetworkError(f"pads {shown(str(pads))} do not fit a kernel of {rank} axes, or are negative")
        return pads
    if given is not None and any(given):
        raise NetworkError(f"has both pads and auto_pad {shown(mode)}")
    if mode == "VALID":
        return (0,) * (2 * rank)
    if mode not in ("SAME_UPPER", "SAME_LOWER") or len(size) != rank:
        raise NetworkError(f"auto_pad {shown(mode)} is not supported for {len(size)} spatial axes")
    total = [
        (-(-n // s) - 1) * s + (k - 1) * d + 1 - n
        for n, k, s, d in zip(size, kernel, strides, dilations, strict=True)
    ]
    # Where strides skip the end of the input, runtimes disagree on which end is left out.
    if min(total) < 0:
        raise NetworkError(f"auto_pad {mode} would cut the input; export with explicit pads")
    less = [t // 2 for t in total]
    more = [t - part for t, part in zip(total, less, strict=True)]
    return tuple(less + more if mode == "SAME_UPPER" else more + less)


def _batch_normalization(call: Call) -> Reading:
    if call.integer("training_mode", 0) or call.outputs > 1 or not call.integer("spatial", 1):
        raise NetworkError("is in training mode or not per channel; export the network for inference")
    scale, bias, mean, variance = (call.weight(index) for index in (1, 2, 3, 4))
    epsilon = call.number("epsilon", float(np.float32(1e-5)))
    if not (variance.astype(np.float64) + epsilon > 0).all():
        raise NetworkError("has a channel whose variance + epsilon is not positive")
    return _unary(ops.BatchNormalization(scale, bias, mean, variance, epsilon), call)


def _window(call: Call) -> tuple[Shape, Shape, Shape, Shape]:
    """Kernel, strides, pads and dilations of a pooling node, whose windows end inside the padded input."""
    kernel = call.tuple_of("kernel_shape")
    if kernel is None or not 1 <= len(kernel) <= 2 or any(not 0 < k < 2**31 for k in kernel):
        raise NetworkError("needs a kernel_shape of one or two positive numbers")
    size = call.activation().shape[1:]
    if len(size) != len(kernel):
        raise NetworkError(f"has a kernel of {len(kernel)} axes on {len(size)} spatial axes")
    strides, dilations = _per_axis(call, "strides", kernel), _per_axis(call, "dilations", kernel)
    pads = _pads(call, kernel, strides, dilations)
    if call.integer("ceil_mode", 0):
        left = [
            (n + pads[i] + pads[i + len(size)] - (k - 1) * d - 1) % s
            for i, (n, k, d, s) in enumerate(zip(size, kernel, dilations, strides, strict=True))
        ]
        if any(left):
            raise NetworkError("has ceil_mode with windows that reach outside; export with ceil_mode=0")
    return kernel, strides, pads, dilations


def _average_pool(call: Call) -> Reading:
    kernel, strides, pads, dilations = _window(call)
    if set(dilations) != {1}:
        raise NetworkError("has dilations; only dense average pooling is supported")
    return _unary(ops.AveragePool(kernel, strides, pads, bool(call.integer("count_include_pad", 0))), call)


def _max_pool(call: Call) -> Reading:
    if call.outputs > 1 or call.integer("storage_order", 0):
        raise NetworkError("gives indices too; only the maximum is supported")
    return _unary(ops.MaxPool(*_window(call)), call)


def _global_average_pool(call: Call) -> Reading:
    return _unary(ops.GlobalAveragePool(), call)


def _reduce_mean(call: Call) -> Reading:
    value = call.activation()
    axes = _reduced(call, call.tuple_of("axes") if call.opset < 18 else call.integers(1))
    if not axes:
        return value
    if call.batched and len(value.shape) > 1 and axes == tuple(range(1, len(value.shape))):
        keep = () if call.integer("keepdims", 1) else (ops.Reshape(value.shape[:1]),)
        return Applied((value,), (ops.GlobalAveragePool(), *keep))
    count = np.float32(math.prod(value.shape[axis] for axis in axes))
    *summed, last = _summed(call, value.shape, axes)
    return Applied((value,), (*summed, ops.DivideConstant(np.array(count)), last))


def _reduce_sum(call: Call) -> Reading:
    value = call.activation()
    axes = _reduced(call, call.tuple_of("axes") if call.opset < 13 else call.integers(1))
    return Applied((value,), _summed(call, value.shape, axes)) if axes else value


def _reduced(call: Call, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The sample axes that go, in order; none where the node does nothing."""
    rank = len(call.activation().shape) + call.lead
    if not axes:
        axes = () if call.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    found = {call.axis(axis, rank) for axis in axes}
    if len(found) != len(axes):
        raise NetworkError(f"names an axis twice in {shown(str(axes))}")
    return tuple(sorted(found))


def _summed(call: Call, shape: Shape, axes: tuple[int, ...]) -> tuple[ops.Op, ...]:
    """Sums over `axes`: they are brought last, joined into one and multiplied by ones."""
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    count = math.prod(shape[axis] for axis in axes)
    left = tuple(shape[axis] for axis in rest)
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    turn = () if [*rest, *axes] == list(range(len(shape))) else (ops.Transpose((*rest, *axes)),)
    return (
        *turn,
        ops.Reshape((*left, count)),
        ops.MatMul(np.ones((count, 1), np.float32)),
        ops.Reshape(kept if call.integer("keepdims", 1) else left),
    )


def _negate(call: Call) -> Reading:
    return _unary(ops.SubtractConstant(np.array(0, np.float32), reversed=True), call)


def _absolute(call: Call) -> Reading:
    return _unary(ops.LeakyRelu(-1.0), call)


WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")

LAYERS = {
    "Abs": (_absolute, ()),
    "Add": (_add, ()),
    "AveragePool": (_average_pool, (*WINDOW, "ceil_mode", "count_include_pad")),
    "BatchNormalization": (_batch_normalization, ("epsilon", "momentum", "spatial", "training_mode")),
    "Clip": (_clip, ("min", "max")),
    "Conv": (_conv, (*WINDOW, "group")),
    "Div": (_divide, ()),
    "Exp": (_exp, ()),
    "Gemm": (_gemm, ("alpha", "beta", "transA", "transB")),
    "GlobalAveragePool": (_global_average_pool, ()),
    "LeakyRelu": (_leaky_relu, ("alpha",)),
    "MatMul": (_matmul, ()),
    "MaxPool": (_max_pool, (*WINDOW, "ceil_mode", "storage_order")),
    "Mul": (_multiply, ()),
    "Neg": (_negate, ()),
    "Pow": (_power, ()),
    "Reciprocal": (_reciprocal, ()),
    "ReduceMean": (_reduce_mean, ("axes", "keepdims", "noop_with_empty_axes")),
    "ReduceSum": (_reduce_sum, ("axes", "keepdims", "noop_with_empty_axes")),
    "Relu": (_relu, ()),
    "Sigmoid": (_sigmoid, ()),
    "Softmax": (_softmax, ("axis",)),
    "Sub": (_subtract, ()),
    "Tanh": (_tanh, ()),
}
"""op_type -> its reader, and the attributes it knows (any other is refused)."""
