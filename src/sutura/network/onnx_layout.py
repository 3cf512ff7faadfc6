"""Readers of the ONNX operators that only move numbers: a table op_type -> reader."""

from __future__ import annotations

import math

import numpy as np

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import MAX_FOLDED, shown, shown_shape
from sutura.network.graph import Shape
from sutura.network.onnx_value import (
    BATCH,
    Activation,
    Applied,
    Call,
    Constant,
    Parts,
    Reading,
    finite_weight,
)

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
    rank = len(value.shape) + call.lead
    axis = axis + rank if axis < 0 else axis
    if not call.batched and 0 <= axis <= rank:
        return Applied(
            (value,), (ops.Reshape((math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))),)
        )
    if not 1 <= axis <= rank or math.prod(value.shape[: axis - 1]) != 1:
        raise NetworkError(f"flattens at axis {axis}, which would mix the batch axis with others")
    return Applied((value,), (ops.Reshape((math.prod(value.shape),)),))


def _reshape(call: Call) -> Reading:
    value, target = call.activation(), call.integers(1)
    if not target or (call.integer("allowzero", 0) and 0 in target):
        raise NetworkError("needs a constant shape of at least one axis, none of length zero")
    if not call.batched:
        # As with a batch axis before it, kept: a zero then copies the same axis of the sample.
        target = (BATCH, *target)
    elif target[0] == 1 and not call.fixed_batch:
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
    rank = len(value.shape) + call.lead
    order = call.tuple_of("perm") or tuple(range(rank))[::-1]
    if sorted(order) != list(range(rank)) or order[: call.lead] != (0,) * call.lead:
        raise NetworkError(f"permutes axes as {shown(str(order))}; the batch axis must stay first")
    return Applied((value,), (ops.Transpose(tuple(axis - call.lead for axis in order[call.lead :])),))


def _axes(call: Call, index: int) -> tuple[int, ...]:
    axes = call.tuple_of("axes") if call.opset < 13 else call.integers(index)
    if not axes:
        raise NetworkError("names no axes; without them the batch axis might go")
    return axes


def _squeeze(call: Call) -> Reading:
    value = call.activation()
    rank = len(value.shape) + call.lead
    axes = {call.axis(axis, rank) for axis in _axes(call, 1)}
    if any(value.shape[axis] != 1 for axis in axes):
        raise NetworkError("squeezes an axis longer than 1")
    return Applied((value,), (ops.Reshape(tuple(n for i, n in enumerate(value.shape) if i not in axes)),))


def _unsqueeze(call: Call) -> Reading:
    value = call.activation()
    given = _axes(call, 1)
    rank = len(value.shape) + call.lead + len(given)
    axes = {call.axis(axis, rank) for axis in given}
    if len(axes) != len(given):
        raise NetworkError("adds an axis twice")
    rest, count = iter(value.shape), len(value.shape) + len(given)
    return Applied((value,), (ops.Reshape(tuple(1 if i in axes else next(rest) for i in range(count))),))


def _pad(call: Call) -> Reading:
    value, lead = call.activation(), call.lead
    rank = len(value.shape) + lead
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
    short = len(pads) != 2 * rank
    if short or any(not 0 <= p < 2**31 for p in pads) or any(pads[:lead] + pads[rank : rank + lead]):
        raise NetworkError(
            f"pads {shown(str(pads))} touch the batch axis, are negative, or do not fit {rank} axes"
        )
    return Applied((value,), (ops.Pad(pads[lead:rank] + pads[rank + lead :], fill),))


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
    values = tuple(value for value in call.inputs if isinstance(value, Activation))
    shape = values[0].shape
    axis = call.axis(call.integer("axis", 0), len(shape) + call.lead)
    if len(values) < len(call.inputs):
        return _with_constants(call, values, axis)
    return values[0] if len(values) == 1 else Applied(values, (ops.Concat(axis),))


def _with_constants(call: Call, values: tuple[Activation, ...], axis: int) -> Reading:
    """Room for the constants at the end of the activations, brought in order; the constants added to it."""
    if call.batched and not call.fixed_batch:
        raise NetworkError("joins a constant to batches of any length; export with batch axis 1")
    shape, start, room = values[0].shape, 0, sum(value.shape[axis] for value in values)
    order: list[int] = []
    parts: list[np.ndarray] = []
    for value in call.inputs:
        if isinstance(value, Activation):
            order += range(start, start + value.shape[axis])
            start += value.shape[axis]
            parts.append(np.zeros(value.shape, np.float32))
        elif value is not None:
            part = _part(value, shape, axis, call.lead)
            order += range(room, room + part.shape[axis])
            room += part.shape[axis]
            parts.append(part)
    wider = [room - start if i == axis else 0 for i in range(len(shape))]
    joined = (ops.Concat(axis),) if len(values) > 1 else ()
    padded = ops.Pad((*(0 for _ in shape), *wider))
    turned = () if order == sorted(order) else (ops.Take(axis, np.array(order, dtype=np.int64)),)
    return Applied(values, (*joined, padded, *turned, ops.AddConstant(np.concatenate(parts, axis=axis))))


def _part(value: Constant, shape: Shape, axis: int, lead: int) -> np.ndarray:
    """A constant that is joined to samples of `shape`, without its batch axis."""
    array = finite_weight(value)
    fits = array.ndim == len(shape) + lead and array.shape[:lead] == (1,) * lead
    part = array.reshape(array.shape[lead:])
    if not fits or any(n != m for i, (n, m) in enumerate(zip(part.shape, shape, strict=True)) if i != axis):
        raise NetworkError(
            f"joins a constant of {shown_shape(array.shape)} to samples of {shown_shape(shape)}"
        )
    return part


def _split(call: Call) -> Reading:
    value = call.activation()
    axis = call.axis(call.integer("axis", 0), len(value.shape) + call.lead)
    length, count = value.shape[axis], call.listed
    sizes = call.tuple_of("split") if call.opset < 13 else call.integers(1)
    if sizes is None:
        if call.integer("num_outputs", count) != count:
            raise NetworkError(f"says num_outputs and lists {count}")
        step = -(-length // count)
        sizes = tuple(min(step, length - i * step) for i in range(count))
    if len(sizes) != count or sum(sizes) != length or min(sizes) < 1:
        raise NetworkError(f"splits an axis of length {length} into {shown(str(sizes))} for {count} outputs")
    ends = [sum(sizes[: i + 1]) for i in range(count)]
    cuts = [np.arange(end - size, end, dtype=np.int64) for end, size in zip(ends, sizes, strict=True)]
    return Parts(tuple(Applied((value,), (ops.Take(axis, cut),)) for cut in cuts))


def _expand(call: Call) -> Reading:
    value, target = call.activation(), call.integers(1)
    if target is None or BATCH in target[1:] or min(target, default=1) in range(-(2**31), 1):
        raise NetworkError("needs a constant shape of positive lengths")
    if call.batched:
        if len(target) > len(value.shape) + 1:
            raise NetworkError("adds an axis before the batch axis")
        if len(target) == len(value.shape) + 1:
            if target[0] not in (1, BATCH):
                raise NetworkError("repeats along the batch axis")
            target = target[1:]
    padded = (1,) * (len(target) - len(value.shape)) + value.shape
    target = (1,) * (len(padded) - len(target)) + target
    if BATCH in target or any(n != m and 1 not in (n, m) for n, m in zip(padded, target, strict=True)):
        raise NetworkError(f"cannot expand samples of {shown_shape(value.shape)} to {shown_shape(target)}")
    grown = [
        ops.Take(i, np.zeros(m, np.int64))
        for i, (n, m) in enumerate(zip(padded, target, strict=True))
        if n < m
    ]
    for n, m in zip(padded, target, strict=True):
        if max(n, m) > MAX_FOLDED:
            raise NetworkError(f"expands an axis to {m} entries; at most {MAX_FOLDED} are supported")
    first = () if padded == value.shape else (ops.Reshape(padded),)
    return Applied((value,), (*first, *grown)) if first or grown else value


def _gather(call: Call) -> Reading:
    value, indices = call.activation(), call.constant(1)
    axis = call.axis(call.integer("axis", 0), len(value.shape) + call.lead)
    if indices is None or indices.array.dtype.kind != "i":
        raise NetworkError("gathers without constant indices")
    length, flat = value.shape[axis], indices.array.astype(np.int64).reshape(-1)
    if not flat.size or not ((flat >= -length) & (flat < length)).all():
        raise NetworkError(f"gathers nothing, or an index outside an axis of length {length}")
    take = ops.Take(axis, np.where(flat < 0, flat + length, flat))
    if indices.array.ndim == 1:
        return Applied((value,), (take,))
    shape = (*value.shape[:axis], *indices.array.shape, *value.shape[axis + 1 :])
    return Applied((value,), (take, ops.Reshape(shape)))


def _slice(call: Call) -> Reading:
    value = call.activation()
    rank = len(value.shape) + call.lead
    starts, ends, axes, steps = slice_bounds(call)
    takes: list[ops.Op] = []
    for start, end, number, step in zip(starts, ends, axes, steps, strict=True):
        batch = call.batched and number in (0, -rank)
        if batch and start == 0 and step == 1 and (end >= FAR or (call.fixed_batch and end >= 1)):
            continue
        axis = call.axis(number, rank)
        picked = range(value.shape[axis])[start:end:step]
        if not 0 < len(picked) <= MAX_FOLDED:
            raise NetworkError(
                f"keeps {len(picked)} entries of axis {axis}; between 1 and {MAX_FOLDED} are supported"
            )
        if len(picked) < value.shape[axis] or step < 0:
            takes.append(ops.Take(axis, np.array(picked, dtype=np.int64)))
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
    "Expand": (_expand, ()),
    "Flatten": (_flatten, ("axis",)),
    "Gather": (_gather, ("axis",)),
    "Identity": (_same, ()),
    "Pad": (_pad, ("mode", "pads", "value")),
    "Reshape": (_reshape, ("allowzero",)),
    "Slice": (_slice, ("axes", "ends", "starts")),
    "Split": (_split, ("axis", "num_outputs", "split")),
    "Squeeze": (_squeeze, ("axes",)),
    "Transpose": (_transpose, ("perm",)),
    "Unsqueeze": (_unsqueeze, ("axes",)),
}
"""op_type -> its reader, and the attributes it knows (any other is refused)."""
