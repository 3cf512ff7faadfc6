"""Readers of the ONNX operators that only move numbers: a table op_type -> reader."""

from __future__ import annotations

import math

import numpy as np

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import MAX_FOLDED, shown, shown_shape
from sutura.network.graph import Shape
from sutura.network.onnx_value import BATCH, Applied, Call, Constant, Reading

FAR = 2**31 - 1
"""Slices that end here or beyond mean the end of the axis."""


def _same(call: Call) -> Reading:
    return call.activation()


def _cast(call: Call) -> Reading:
    if call.integer("to", 0) != 1:
        raise NetworkError("casts an activation to another type than float32")
    return call.activation()


def _dropout(call: Call) -> Reading:
    mode = call.constant(2)
    if call.outputs > 1 or (mode is not None and mode.array.any()):
        raise NetworkError("drops at random or gives its mask; export the network for inference")
    return call.activation()


def _flatten(call: Call) -> Reading:
    value, axis = call.activation(), call.integer("axis", 1)
    rank = len(value.shape) + 1
    axis = axis + rank if axis < 0 else axis
    if not 1 <= axis <= rank or math.prod(value.shape[: axis - 1]) != 1:
        raise NetworkError(f"flattens at axis {axis}, which would mix the batch axis with others")
    return Applied((value,), (ops.Reshape((math.prod(value.shape),)),))


def _reshape(call: Call) -> Reading:
    value, target = call.activation(), call.integers(1)
    if not target or (call.integer("allowzero", 0) and 0 in target):
        raise NetworkError("needs a constant shape of at least one axis, none of length zero")
    if target[0] == 1 and not call.fixed_batch:
        raise NetworkError(
            "reshapes the batch axis to 1, while the input says any length: export with batch axis 1"
        )
    return Applied((value,), (ops.Reshape(_target(value.shape, target)),))


def _target(shape: Shape, target: tuple[int, ...]) -> Shape:
    """Sample shape that an ONNX reshape target means, the batch axis kept."""
    given = "x".join("batch" if n == BATCH else str(n) for n in target[:9])
    wrong = NetworkError(
        f"reshapes samples of {shown_shape(shape)} to {given}, which would mix the batch axis with others"
    )
    if target[0] not in (0, 1, -1, BATCH) or BATCH in target[1:] or min(target[1:], default=1) < -1:
        raise wrong
    if any(n == 0 and i >= len(shape) for i, n in enumerate(target[1:])):
        raise wrong
    rest = [shape[i] if n == 0 else n for i, n in enumerate(target[1:])]
    size, known = math.prod(shape), math.prod(n for n in rest if n != -1)
    if rest.count(-1) + (target[0] == -1) > 1 or size % known or (-1 not in rest and known != size):
        raise wrong
    return tuple(size // known if n == -1 else n for n in rest)


def _transpose(call: Call) -> Reading:
    value = call.activation()
    rank = len(value.shape) + 1
    order = call.tuple_of("perm") or tuple(range(rank))[::-1]
    if sorted(order) != list(range(rank)) or order[0] != 0:
        raise NetworkError(f"permutes axes as {shown(str(order))}; the batch axis must stay first")
    return Applied((value,), (ops.Transpose(tuple(axis - 1 for axis in order[1:])),))


def _axes(call: Call, index: int) -> tuple[int, ...]:
    axes = call.tuple_of("axes") if call.opset < 13 else call.integers(index)
    if not axes:
        raise NetworkError("names no axes; without them the batch axis might go")
    return axes


def _squeeze(call: Call) -> Reading:
    value = call.activation()
    rank = len(value.shape) + 1
    axes = {axis + rank if axis < 0 else axis for axis in _axes(call, 1)}
    if any(not 0 < axis < rank or value.shape[axis - 1] != 1 for axis in axes):
        raise NetworkError("squeezes the batch axis, or one longer than 1")
    return Applied((value,), (ops.Reshape(tuple(n for i, n in enumerate(value.shape, 1) if i not in axes)),))


def _unsqueeze(call: Call) -> Reading:
    value = call.activation()
    given = _axes(call, 1)
    rank = len(value.shape) + 1 + len(given)
    axes = {axis + rank if axis < 0 else axis for axis in given}
    if len(axes) != len(given) or any(not 0 < axis < rank for axis in axes):
        raise NetworkError("adds an axis before the batch axis, or one twice")
    rest = iter(value.shape)
    return Applied((value,), (ops.Reshape(tuple(1 if i in axes else next(rest) for i in range(1, rank))),))


def _pad(call: Call) -> Reading:
    value, rank = call.activation(), len(call.activation().shape) + 1
    if call.word("mode", "constant") != "constant":
        raise NetworkError("pads with something else than a constant")
    if call.opset < 11:
        pads, fill = call.tuple_of("pads"), call.number("value", 0.0)
    else:
        pads, fill = call.integers(1), _fill(call.constant(2))
    if pads is None:
        raise NetworkError("names no pads")
    axes = call.integers(3)
    if axes is not None:
        pads = _spread(pads, axes, rank)
    if len(pads) != 2 * rank or any(not 0 <= p < 2**31 for p in pads) or pads[0] or pads[rank]:
        raise NetworkError(
            f"pads {shown(str(pads))} touch the batch axis, are negative, or do not fit {rank} axes"
        )
    return Applied((value,), (ops.Pad(pads[1:rank] + pads[rank + 1 :], fill),))


def _fill(value: Constant | None) -> float:
    if value is None:
        return 0.0
    if value.array.size != 1 or value.array.dtype != np.float32 or not np.isfinite(value.array).all():
        raise NetworkError("pads with something else than one finite float32 number")
    return float(value.array.reshape(()))


def _spread(pads: tuple[int, ...], axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Pads of some axes as pads of all."""
    places = [axis + rank if axis < 0 else axis for axis in axes]
    if len(pads) != 2 * len(axes) or len(set(places)) != len(axes) or any(not 0 <= p < rank for p in places):
        raise NetworkError(f"pads axes {shown(str(axes))}, which do not fit {rank} axes")
    full = [0] * (2 * rank)
    for index, place in enumerate(places):
        full[place], full[place + rank] = pads[index], pads[index + len(axes)]
    return tuple(full)


def _concat(call: Call) -> Reading:
    values = tuple(call.activation(index) for index in range(len(call.inputs)))
    rank, axis = len(call.activation().shape) + 1, call.integer("axis", 0)
    axis = axis + rank if axis < 0 else axis
    if not 0 < axis < rank:
        raise NetworkError("joins along the batch axis")
    return values[0] if len(values) == 1 else Applied(values, (ops.Concat(axis - 1),))


def _gather(call: Call) -> Reading:
    value, indices = call.activation(), call.constant(1)
    rank, axis = len(value.shape) + 1, call.integer("axis", 0)
    axis = axis + rank if axis < 0 else axis
    if not 0 < axis < rank or indices is None or indices.array.dtype.kind != "i":
        raise NetworkError("gathers along the batch axis, or without constant indices")
    length, flat = value.shape[axis - 1], indices.array.astype(np.int64).reshape(-1)
    if not flat.size or not ((flat >= -length) & (flat < length)).all():
        raise NetworkError(f"gathers nothing, or an index outside an axis of length {length}")
    take = ops.Take(axis - 1, np.where(flat < 0, flat + length, flat))
    if indices.array.ndim == 1:
        return Applied((value,), (take,))
    shape = (*value.shape[: axis - 1], *indices.array.shape, *value.shape[axis:])
    return Applied((value,), (take, ops.Reshape(shape)))


def _slice(call: Call) -> Reading:
    value = call.activation()
    rank = len(value.shape) + 1
    starts, ends, axes, steps = slice_bounds(call)
    takes: list[ops.Op] = []
    for start, end, axis, step in zip(
        starts, ends, (a + rank if a < 0 else a for a in axes), steps, strict=True
    ):
        if axis == 0 and start == 0 and step == 1 and (end >= FAR or (call.fixed_batch and end >= 1)):
            continue
        if not 0 < axis < rank:
            raise NetworkError(f"slices the batch axis or axis {axis}, which does not exist")
        picked = range(value.shape[axis - 1])[start:end:step]
        if not 0 < len(picked) <= MAX_FOLDED:
            raise NetworkError(
                f"keeps {len(picked)} entries of axis {axis}; between 1 and {MAX_FOLDED} are supported"
            )
        if len(picked) < value.shape[axis - 1] or step < 0:
            takes.append(ops.Take(axis - 1, np.array(picked, dtype=np.int64)))
    return Applied((value,), tuple(takes)) if takes else value


def slice_bounds(call: Call) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Starts, ends, axes and steps of a Slice: of one length, axes distinct."""
    if call.opset < 10:
        starts, ends, axes, steps = (*(call.tuple_of(name) for name in ("starts", "ends", "axes")), None)
    else:
        starts, ends, axes, steps = (call.integers(index) for index in (1, 2, 3, 4))
    if starts is None or ends is None:
        raise NetworkError("slices without starts and ends")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(set(axes)) != len(axes) or 0 in steps:
        raise NetworkError("has starts, ends, axes and steps that do not fit each other")
    return starts, ends, axes, steps


LAYOUT = {
    "Cast": (_cast, ("to", "saturate", "round_mode")),
    "Concat": (_concat, ("axis",)),
    "Dropout": (_dropout, ("ratio", "seed")),
    "Flatten": (_flatten, ("axis",)),
    "Gather": (_gather, ("axis",)),
    "Identity": (_same, ()),
    "Pad": (_pad, ("mode", "pads", "value")),
    "Reshape": (_reshape, ("allowzero",)),
    "Slice": (_slice, ("axes", "ends", "starts")),
    "Squeeze": (_squeeze, ("axes",)),
    "Transpose": (_transpose, ("perm",)),
    "Unsqueeze": (_unsqueeze, ("axes",)),
}
"""op_type -> its reader, and the attributes it knows (any other is refused)."""
