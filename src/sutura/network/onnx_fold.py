"""ONNX operators on constants, computed at reading: a table op_type -> function.

Only operators whose float32 result is exact or correctly rounded are here, so that what is folded equals what
ONNX Runtime would compute. Sizes are checked before anything is allocated.
"""

from __future__ import annotations

import math

import numpy as np

from sutura.errors import NetworkError
from sutura.network.budget import MAX_FOLDED, MAX_RANK, shown_shape
from sutura.network.onnx_layout import slice_bounds
from sutura.network.onnx_tensor import Unreadable
from sutura.network.onnx_value import BATCH, Activation, Call


def fold(call: Call) -> np.ndarray:
    """Compute `call`, all of whose inputs are constants (or whose operator is Shape).

    Raises NetworkError where the operator cannot be folded, or its inputs do not fit.
    """
    if call.operator not in FOLDS:
        raise NetworkError(
            "has constant inputs only, which is not supported for this operator; simplify the export"
        )
    function, attributes = FOLDS[call.operator]
    if not set(call.attributes) <= set(attributes):
        raise NetworkError("has attributes that are not supported on constants")
    try:
        with np.errstate(all="ignore"):
            return function(call)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        text = str(error).splitlines()[0][:80] if str(error) else "shapes do not fit"
        raise NetworkError(f"cannot be computed on its constants: {text}") from None


def _array(call: Call, index: int = 0) -> np.ndarray:
    value = call.constant(index)
    if value is None:
        raise NetworkError(f"input {index} is missing")
    return value.array


def _numbers(call: Call, index: int) -> np.ndarray:
    """A constant for arithmetic, in which the batch length may not occur."""
    array = _array(call, index)
    if array.dtype.kind == "i" and (array == BATCH).any():
        raise NetworkError(
            "computes with the batch length; only shapes that keep the batch axis first are supported"
        )
    return array


def _checked(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) > MAX_RANK or math.prod(shape) > MAX_FOLDED or min(shape, default=0) < 0:
        raise NetworkError(
            f"would compute a constant of {shown_shape(shape)}; at most {MAX_FOLDED} numbers are folded"
        )
    return shape


def _constant(call: Call) -> np.ndarray:
    if len(call.attributes) != 1:
        raise NetworkError("needs exactly one attribute")
    ((name, value),) = call.attributes.items()
    if name == "value" and isinstance(value, np.ndarray):
        return value
    if name not in NUMBERS or not isinstance(value, int | float | tuple):
        reason = value.reason if isinstance(value, Unreadable) else "holds neither numbers nor a tensor"
        raise NetworkError(reason)
    return np.array(value, dtype=NUMBERS[name])


def _binary(call: Call) -> np.ndarray:
    left, right = _numbers(call, 0), _numbers(call, 1)
    if left.dtype != right.dtype or left.dtype.kind not in "if":
        raise NetworkError("needs two constants of one number type")
    _checked(np.broadcast_shapes(left.shape, right.shape))
    if call.operator != "Div":
        return {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[call.operator](left, right)
    if not right.all():
        raise NetworkError("divides by a constant that holds zero")
    if left.dtype.kind == "f":
        return np.divide(left, right)
    if (left < 0).any() or (right < 0).any():
        raise NetworkError("divides negative integers; simplify the export")
    return left // right


def _sqrt(call: Call) -> np.ndarray:
    array = _array(call)
    if array.dtype != np.float32:
        raise NetworkError("needs a float32 constant")
    return np.sqrt(array)


def _shape(call: Call) -> np.ndarray:
    value = call.input(0)
    if isinstance(value, Activation):
        batch = (1 if call.fixed_batch else BATCH,)
        dims = (*batch[: call.lead], *value.shape)
    else:
        dims = _array(call).shape
    start, end = call.integer("start", 0), call.attributes.get("end")
    return np.array(dims, dtype=np.int64)[start : end if isinstance(end, int) else None]


def _cast(call: Call) -> np.ndarray:
    kinds = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_}
    target = call.integer("to", 0)
    if target not in kinds:
        raise NetworkError("casts a constant to a type that is not supported")
    array = _array(call)
    if target == 7 or array.dtype == kinds[target]:
        return array.astype(np.int64) if target == 7 else array
    return _numbers(call, 0).astype(kinds[target])


def _gather(call: Call) -> np.ndarray:
    array, indices, axis = _array(call), _array(call, 1), call.integer("axis", 0)
    if array.ndim:
        axis = axis + array.ndim if axis < 0 else axis
        _checked((*array.shape[:axis], *indices.shape, *array.shape[axis + 1 :]))
    return np.take(array, indices, axis=axis)


def _slice(call: Call) -> np.ndarray:
    array = _array(call)
    cuts = [slice(None)] * array.ndim
    for start, end, axis, step in zip(*slice_bounds(call), strict=True):
        cuts[axis] = slice(start, end, step)
    return array[tuple(cuts)]


def _concat(call: Call) -> np.ndarray:
    arrays = [_array(call, index) for index in range(len(call.inputs))]
    if len({a.dtype for a in arrays}) != 1 or sum(a.size for a in arrays) > MAX_FOLDED:
        raise NetworkError(f"joins constants of several types, or more than {MAX_FOLDED} numbers")
    return np.concatenate(arrays, axis=call.integer("axis", 0))


def _axes(call: Call) -> tuple[int, ...] | None:
    return call.tuple_of("axes") if call.opset < 13 else call.integers(1)


def _squeeze(call: Call) -> np.ndarray:
    return np.squeeze(_array(call), axis=_axes(call))


def _unsqueeze(call: Call) -> np.ndarray:
    axes = _axes(call)
    if axes is None or _array(call).ndim + len(axes) > MAX_RANK:
        raise NetworkError(f"names no axes, or more than {MAX_RANK}")
    return np.expand_dims(_array(call), axes)


def _reshape(call: Call) -> np.ndarray:
    array, target = _array(call), call.integers(1)
    if target is None or len(target) > MAX_RANK:
        raise NetworkError(f"needs a shape of at most {MAX_RANK} axes")
    copy = not call.integer("allowzero", 0)
    return array.reshape([array.shape[i] if n == 0 and copy else n for i, n in enumerate(target)])


def _transpose(call: Call) -> np.ndarray:
    return np.ascontiguousarray(np.transpose(_array(call), call.tuple_of("perm")))


def _filled(call: Call) -> np.ndarray:
    target = call.integers(0)
    value = call.attributes.get("value", np.zeros(1, np.float32))
    if target is None or not isinstance(value, np.ndarray) or value.size != 1:
        raise NetworkError("needs a constant shape and a value of one number")
    if BATCH in target:
        raise NetworkError(
            "makes a constant as long as the batch (a class token), which is not supported; "
            "export with batch axis 1"
        )
    return np.full(_checked(target), value.reshape(())[()], dtype=value.dtype)


def _dequantised(call: Call) -> np.ndarray:
    """(x - zero) * scale in float32, as the standard has it: the difference is exact, the product rounded."""
    whole, scale = _array(call), _array(call, 1)
    zero = np.zeros_like(scale, whole.dtype) if call.constant(2) is None else _array(call, 2)
    if whole.dtype.name not in ("int8", "uint8") or zero.dtype != whole.dtype or scale.dtype != np.float32:
        raise NetworkError("needs int8 or uint8 numbers and zero point, and a float32 scale")
    if scale.ndim > 1 or zero.shape != scale.shape or call.integer("block_size", 0):
        raise NetworkError("needs one scale and zero point in all, or one each along an axis")
    if scale.ndim and scale.size > 1:
        axis = call.integer("axis", 1)
        if not -whole.ndim <= axis < whole.ndim or whole.shape[axis] != scale.size:
            raise NetworkError(f"has {scale.size} scales for {shown_shape(whole.shape)} along axis {axis}")
        scale, zero = (np.moveaxis(v.reshape(-1, *(1,) * (whole.ndim - 1)), 0, axis) for v in (scale, zero))
    difference = whole.astype(np.int32) - zero.astype(np.int32)
    return difference.astype(np.float32) * scale


def _same(call: Call) -> np.ndarray:
    return _array(call)


NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}

FOLDS = {
    "Add": (_binary, ()),
    "Cast": (_cast, ("to", "saturate", "round_mode")),
    "Concat": (_concat, ("axis",)),
    "Constant": (_constant, ("value", "value_float", "value_floats", "value_int", "value_ints")),
    "ConstantOfShape": (_filled, ("value",)),
    "DequantizeLinear": (_dequantised, ("axis", "block_size")),
    "Div": (_binary, ()),
    "Gather": (_gather, ("axis",)),
    "Identity": (_same, ()),
    "Mul": (_binary, ()),
    "Reshape": (_reshape, ("allowzero",)),
    "Shape": (_shape, ("start", "end")),
    "Slice": (_slice, ("axes", "ends", "starts")),
    "Sqrt": (_sqrt, ()),
    "Squeeze": (_squeeze, ("axes",)),
    "Sub": (_binary, ()),
    "Transpose": (_transpose, ("perm",)),
    "Unsqueeze": (_unsqueeze, ("axes",)),
}
"""op_type -> its function, and the attributes it knows (any other is refused)."""
