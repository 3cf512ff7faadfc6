"""ONNX nodes to layers: one rule an operator, in the table at the foot; no rule, no bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.gates import Gates, neuron_gate
from sutura.certificate.layers import (
    Clamp,
    Dense,
    Float,
    Layer,
    Leaky,
    Peak,
    Pin,
    Program,
    Scale,
    Select,
    Squash,
    Sum,
)
from sutura.certificate.model import Exported, attributes, where
from sutura.certificate.windows import MAX_ENTRIES, averaging, blocks, convolution, positions
from sutura.certificate.wire import Array, Node

Shape = tuple[int, ...]


@dataclass(slots=True)
class Draft:
    """A program under construction; `values` maps names to (value number, sample shape)."""

    exported: Exported
    gates: Gates
    readers: dict[str, int]
    values: dict[str, tuple[int, Shape]]
    layers: list[Layer] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    entries: int = 0

    def define(self, name: str, layer: Layer, shape: Shape) -> None:
        """Appends a layer whose result is the named value."""
        if math.prod(shape) > MAX_VALUE:
            raise CertificateError(f"value {brief(name)} of shape {shape} is too large to bound")
        if isinstance(layer, Dense):
            self.entries += layer.weight.size
            if self.entries > MAX_ENTRIES:
                raise CertificateError(
                    f"the network needs matrices of more than {MAX_ENTRIES} numbers in all"
                )
        self.layers.append(layer)
        self.sizes.append(math.prod(shape))
        self.values[name] = (len(self.layers), shape)

    def value(self, node: Node, at: int = 0) -> tuple[int, Shape]:
        """The number and sample shape of an operand that depends on the input."""
        if at >= len(node.inputs) or node.inputs[at] not in self.values:
            raise CertificateError(f"{where(node)}: operand {at} is no value of the network")
        return self.values[node.inputs[at]]

    def constant(self, node: Node, at: int) -> Float:
        """A finite float32 constant operand, as float64."""
        found = self.fixed(node, at)
        if found.dtype != np.float32 or not np.isfinite(found).all():
            raise CertificateError(f"{where(node)}: constant {brief(node.inputs[at])} is not finite float32")
        return found.astype(np.float64)

    def integers(self, node: Node, at: int) -> Shape:
        """A constant operand that is a list of int64 numbers."""
        found = self.fixed(node, at)
        if found.dtype != np.int64 or found.ndim != 1:
            raise CertificateError(f"{where(node)}: constant {brief(node.inputs[at])} is no list of int64")
        return tuple(int(value) for value in found)

    def given(self, node: Node, at: int) -> bool:
        """Whether an optional operand is there."""
        return at < len(node.inputs) and node.inputs[at] != ""

    def fixed(self, node: Node, at: int) -> Array:
        """A constant operand as the file has it."""
        if not self.given(node, at) or node.inputs[at] not in self.exported.constants:
            raise CertificateError(f"{where(node)}: operand {at} must be a constant")
        return self.exported.constants[node.inputs[at]]


def compile_network(exported: Exported, gates: Gates) -> Program:
    """The layers that compute the raw output; CertificateError where a node has no rule or breaks one."""
    needed = _needed(exported, gates.raw)
    readers: dict[str, int] = {}
    for node in needed:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    readers[gates.raw] = readers.get(gates.raw, 0) + 1
    draft = Draft(exported, gates, readers, {exported.input: (0, exported.sample)}, sizes=[exported.inputs])
    for node in needed:
        rule = RULES.get(node.op) if not node.domain else None
        if rule is None or len(node.outputs) != 1:
            raise CertificateError(f"{where(node)}: no rule bounds this operator, but a leaf needs a bound")
        rule(draft, node)
    return Program(tuple(draft.layers), tuple(draft.sizes), draft.values[gates.raw][0])


def _needed(exported: Exported, output: str) -> list[Node]:
    """The nodes that the output depends on, in file order; tables and rows of neuron gates are left aside."""
    wanted = {output}
    found: list[Node] = []
    for node in reversed(exported.nodes):
        if wanted.isdisjoint(node.outputs):
            continue
        found.append(node)
        wanted.update(node.inputs[2:] if node.op == "Where" else node.inputs)
    return found[::-1]


def _matmul(draft: Draft, node: Node) -> None:
    attributes(node)
    source, shape = draft.value(node)
    weight = draft.constant(node, 1)
    if weight.ndim != 2 or shape[-1] != weight.shape[0]:
        raise CertificateError(f"{where(node)}: weight {weight.shape} does not fit a value of shape {shape}")
    matrix = blocks(weight.T, math.prod(shape[:-1]))
    bias = np.zeros(len(matrix))
    draft.define(
        node.outputs[0], _dense(source, matrix, bias, len(weight) + 1), (*shape[:-1], weight.shape[1])
    )


def _gemm(draft: Draft, node: Node) -> None:
    alpha, beta, transposed_a, transposed = attributes(node, alpha=1.0, beta=1.0, transA=0, transB=0)
    source, shape = draft.value(node)
    weight = draft.constant(node, 1)
    matrix = weight if transposed else weight.T
    if transposed_a or weight.ndim != 2 or len(shape) != 1 or matrix.shape[1] != shape[0]:
        raise CertificateError(f"{where(node)}: weight {weight.shape} does not fit a value of shape {shape}")
    bias = np.zeros((1, len(matrix)))
    if draft.given(node, 2):
        bias = _spread(node, draft.constant(node, 2), (len(matrix),)) * cast(float, beta)
    extra = 1 if alpha == beta == 1.0 else 4
    matrix = np.ascontiguousarray(matrix * cast(float, alpha))
    draft.define(node.outputs[0], _dense(source, matrix, bias.reshape(-1), shape[0] + extra), (len(matrix),))


def _dense(source: int, matrix: Float, bias: Float, roundings: int) -> Dense:
    if not (np.isfinite(matrix).all() and np.isfinite(bias).all()):
        raise CertificateError("a layer has weights that are not finite")
    return Dense(source, matrix, np.abs(matrix), bias, roundings)


def _spread(node: Node, value: Float, shape: Shape) -> Float:
    """A constant stretched to a sample shape with a batch axis of one; it may not stretch the sample."""
    try:
        return np.broadcast_to(value, (1, *shape))
    except ValueError:
        raise CertificateError(
            f"{where(node)}: constant of shape {value.shape} does not fit {shape}"
        ) from None


def _add(draft: Draft, node: Node) -> None:
    attributes(node)
    if len(node.inputs) != 2:
        raise CertificateError(f"{where(node)} has {len(node.inputs)} inputs, not 2")
    sign = 1.0 if node.op == "Add" else -1.0
    fixed = [name in draft.exported.constants for name in node.inputs]
    if fixed == [False, False]:
        (left, shape), (right, other) = draft.value(node), draft.value(node, 1)
        if shape != other:
            raise CertificateError(f"{where(node)}: adds values of shapes {shape} and {other}")
        draft.define(node.outputs[0], Sum(left, right, sign), shape)
        return
    at = fixed.index(True)
    _, shape = draft.value(node, 1 - at)
    shift = _spread(node, draft.constant(node, at), shape).reshape(-1)
    if at == 0:
        _scale(draft, node, 1, np.full(len(shift), sign), shift)
    else:
        _scale(draft, node, 0, np.ones(len(shift)), sign * shift)


def _multiply(draft: Draft, node: Node) -> None:
    attributes(node)
    if len(node.inputs) != 2:
        raise CertificateError(f"{where(node)} has {len(node.inputs)} inputs, not 2")
    at = int(node.inputs[-1] in draft.exported.constants)
    if node.op == "Div" and at == 0:
        raise CertificateError(f"{where(node)}: no rule for a division by a value of the network")
    _, shape = draft.value(node, 1 - at)
    factor = _spread(node, draft.constant(node, at), shape).reshape(-1)
    if node.op == "Div":
        if not factor.all():
            raise CertificateError(f"{where(node)}: divides by zero")
        factor = 1.0 / factor
    _scale(draft, node, 1 - at, factor, np.zeros(len(factor)))


def _scale(draft: Draft, node: Node, at: int, factor: Float, shift: Float) -> None:
    """Adds y = factor x + shift; a bias added to a matrix product that nothing else reads joins its layer."""
    source, shape = draft.value(node, at)
    before = draft.layers[source - 1] if source else None
    alone = draft.readers[node.inputs[at]] == 1 and source == len(draft.layers)
    if isinstance(before, Dense) and alone and (factor == 1.0).all() and not before.bias.any():
        draft.layers[-1] = Dense(before.source, before.weight, before.absolute, shift, before.roundings)
        draft.values[node.outputs[0]] = (source, shape)
    else:
        draft.define(node.outputs[0], Scale(source, factor, shift, np.abs(shift)), shape)


def _batch_normalization(draft: Draft, node: Node) -> None:
    epsilon, _, training = attributes(node, epsilon=float(np.float32(1e-5)), momentum=0.9, training_mode=0)
    source, shape = draft.value(node)
    scale, bias, mean, variance = (draft.constant(node, at) for at in range(1, 5))
    if training or any(value.shape != shape[:1] for value in (scale, bias, mean, variance)):
        raise CertificateError(f"{where(node)}: its constants do not fit a value of shape {shape}")
    spread = variance + cast(float, epsilon)
    if not (spread > 0).all():
        raise CertificateError(f"{where(node)}: variance + epsilon is not positive")
    factor = scale / np.sqrt(spread)
    parts = (factor, bias - mean * factor, np.abs(bias) + np.abs(mean * factor))
    factor, shift, mass = (np.repeat(part, math.prod(shape[1:])) for part in parts)
    draft.define(node.outputs[0], Scale(source, factor, shift, mass), shape)


def _window(draft: Draft, node: Node, kernel: Shape, found: dict[str, Any]) -> tuple[Shape, Array]:
    """Output space and positions of a convolution or pool with the attributes found (empty means default)."""
    space = draft.value(node)[1][1:]
    rank = len(space)
    if found["auto_pad"] != b"NOTSET" or found.get("ceil_mode") or found.get("storage_order"):
        raise CertificateError(f"{where(node)}: padding must be explicit and sizes rounded down")
    return positions(
        space,
        kernel,
        found["strides"] or (1,) * rank,
        found["pads"] or (0,) * (2 * rank),
        found.get("dilations") or (1,) * rank,
    )


def _convolution(draft: Draft, node: Node) -> None:
    names: dict[str, Any] = {"auto_pad": b"NOTSET", "strides": (), "pads": (), "dilations": ()}
    values = attributes(node, **names, group=1, kernel_shape=())
    found: dict[str, Any] = dict(zip(names, values[:4], strict=True))
    group, kernel = cast(int, values[4]), values[5]
    source, shape = draft.value(node)
    weight = draft.constant(node, 1)
    if weight.ndim != len(shape) + 1 or kernel not in ((), weight.shape[2:]) or group < 1:
        raise CertificateError(f"{where(node)}: weight {weight.shape} does not fit a value of shape {shape}")
    if weight.shape[1] * group != shape[0] or weight.shape[0] % group:
        raise CertificateError(f"{where(node)}: its groups do not fit {shape[0]} channels")
    space, at = _window(draft, node, weight.shape[2:], found)
    flat = weight.reshape(*weight.shape[:2], -1)
    matrix = convolution(flat, group, shape[0], math.prod(shape[1:]), at)
    bias = draft.constant(node, 2) if draft.given(node, 2) else np.zeros(len(weight))
    if bias.shape != (len(weight),):
        raise CertificateError(f"{where(node)}: its bias has shape {bias.shape}")
    roundings = flat[0].size + 1
    layer = _dense(source, matrix, np.repeat(bias, math.prod(space)), roundings)
    draft.define(node.outputs[0], layer, (len(weight), *space))


def _average_pool(draft: Draft, node: Node) -> None:
    source, shape = draft.value(node)
    if node.op == "GlobalAveragePool":
        attributes(node)
        at = np.arange(math.prod(shape[1:]))[None, :]
        space, padded = (1,) * (len(shape) - 1), False
    else:
        names: dict[str, Any] = {"auto_pad": b"NOTSET", "strides": (), "pads": (), "ceil_mode": 0}
        values = attributes(node, **names, count_include_pad=0, kernel_shape=())
        kernel = cast(Shape, values[5])
        space, at = _window(draft, node, kernel, dict(zip(names, values[:4], strict=True)))
        padded = bool(values[4])
        if not (at >= 0).any(axis=1).all():
            raise CertificateError(f"{where(node)}: a window lies in the padding alone")
    matrix = averaging(shape[0], math.prod(shape[1:]), at, padded)
    layer = _dense(source, matrix, np.zeros(len(matrix)), at.shape[1] + 4)
    draft.define(node.outputs[0], layer, (shape[0], *space))


def _max_pool(draft: Draft, node: Node) -> None:
    names: dict[str, Any] = {
        "auto_pad": b"NOTSET", "strides": (), "pads": (), "dilations": (), "ceil_mode": 0, "storage_order": 0
    }  # fmt: skip
    values = attributes(node, **names, kernel_shape=())
    source, shape = draft.value(node)
    space, at = _window(draft, node, cast(Shape, values[6]), dict(zip(names, values[:6], strict=True)))
    if not (at >= 0).any(axis=1).all():
        raise CertificateError(f"{where(node)}: a window lies in the padding alone")
    at = np.where(at >= 0, at, at.max(axis=1, keepdims=True))
    size = math.prod(shape[1:])
    windows = (np.arange(shape[0])[:, None, None] * size + at).reshape(-1, at.shape[1])
    draft.define(node.outputs[0], Peak(source, windows), (shape[0], *space))


def _reshape(draft: Draft, node: Node) -> None:
    source, shape = draft.value(node)
    if node.op == "Flatten":
        if attributes(node, axis=1) != (1,):
            raise CertificateError(f"{where(node)}: flattens the batch axis too")
        target: Shape = (math.prod(shape),)
    else:
        if attributes(node, allowzero=0) != (0,):
            raise CertificateError(f"{where(node)}: allowzero is not known here")
        target = _target(node, draft.integers(node, 1), shape)
    draft.define(node.outputs[0], Select((source,), np.arange(math.prod(shape)), 0.0), target)


def _target(node: Node, wanted: Shape, shape: Shape) -> Shape:
    """The sample shape of Reshape; the batch axis must stay first and whole."""
    if not wanted or wanted[0] not in {0, -1, 1}:
        raise CertificateError(f"{where(node)}: target {brief(wanted)} does not keep the batch axis")
    target = [shape[at] if size == 0 and at < len(shape) else size for at, size in enumerate(wanted[1:])]
    if target.count(-1) == 1 and wanted[0] != -1:
        rest = -math.prod(target)
        target[target.index(-1)] = math.prod(shape) // rest if rest > 0 else -1
    if min(target, default=1) < 1 or math.prod(target) != math.prod(shape):
        raise CertificateError(f"{where(node)}: target {brief(wanted)} does not fit a value of shape {shape}")
    return tuple(target)


def _select(draft: Draft, node: Node, picked: Array, fill: float = 0.0) -> None:
    """Defines the value whose entries are those numbered in `picked` (sample-shaped; -1 is the fill)."""
    layer = Select((draft.value(node)[0],), picked.reshape(-1), fill)
    draft.define(node.outputs[0], layer, picked.shape)


def _transpose(draft: Draft, node: Node) -> None:
    _, shape = draft.value(node)
    (order,) = attributes(node, perm=tuple(range(len(shape), -1, -1)))
    if sorted(cast(Shape, order)) != list(range(len(shape) + 1)) or cast(Shape, order)[0] != 0:
        raise CertificateError(f"{where(node)}: does not keep the batch axis first")
    _select(draft, node, _numbers(shape).transpose([axis - 1 for axis in cast(Shape, order)[1:]]))


def _pad(draft: Draft, node: Node) -> None:
    _, shape = draft.value(node)
    (mode,) = attributes(node, mode=b"constant")
    pads = draft.integers(node, 1)
    rank = len(shape) + 1
    if mode != b"constant" or len(pads) != 2 * rank or min(pads) < 0 or pads[0] or pads[rank]:
        raise CertificateError(f"{where(node)}: only constant padding of sample axes is known here")
    fill = draft.constant(node, 2) if draft.given(node, 2) else np.zeros(())
    sides = [(pads[axis], pads[rank + axis]) for axis in range(1, rank)]
    if fill.size != 1 or draft.given(node, 3):
        raise CertificateError(f"{where(node)}: its padding value is no single number")
    if math.prod(a + n + b for n, (a, b) in zip(shape, sides, strict=True)) > MAX_VALUE:
        raise CertificateError(f"{where(node)}: its padded value is too large to bound")
    _select(draft, node, np.pad(_numbers(shape), sides, constant_values=-1), float(fill.reshape(-1)[0]))


def _concat(draft: Draft, node: Node) -> None:
    parts = [draft.value(node, at) for at in range(len(node.inputs))]
    axis = _axis(node, cast(int, attributes(node, axis=0)[0]), parts[0][1])
    numbers: list[Array] = []
    offset = 0
    for _, shape in parts:
        if len(shape) != len(parts[0][1]) or any(
            a != b for at, (a, b) in enumerate(zip(shape, parts[0][1], strict=True)) if at != axis
        ):
            raise CertificateError(f"{where(node)}: joins values whose shapes do not fit")
        numbers.append(_numbers(shape) + offset)
        offset += math.prod(shape)
    joined = np.concatenate(numbers, axis=axis)
    draft.define(
        node.outputs[0], Select(tuple(number for number, _ in parts), joined.reshape(-1), 0.0), joined.shape
    )


def _gather(draft: Draft, node: Node) -> None:
    _, shape = draft.value(node)
    axis = _axis(node, cast(int, attributes(node, axis=0)[0]), shape)
    picked = [i + shape[axis] if i < 0 else i for i in draft.integers(node, 1)]
    if not picked or min(picked) < 0 or max(picked) >= shape[axis] or len(picked) > MAX_VALUE:
        raise CertificateError(f"{where(node)}: its indices lie outside of 0 to {shape[axis] - 1}")
    if math.prod(shape) // shape[axis] * len(picked) > MAX_VALUE:
        raise CertificateError(f"{where(node)}: its value is too large to bound")
    _select(draft, node, _numbers(shape).take(picked, axis=axis))


def _axis(node: Node, axis: int, shape: Shape) -> int:
    """A sample axis, given as an axis of the value with its batch axis."""
    found = axis - 1 if axis >= 0 else axis + len(shape)
    if not 0 <= found < len(shape):
        raise CertificateError(f"{where(node)}: axis {axis} is no sample axis")
    return found


def _numbers(shape: Shape) -> Array:
    return np.arange(math.prod(shape)).reshape(shape)


def _leaky(draft: Draft, node: Node) -> None:
    source, shape = draft.value(node)
    slope = 0.0
    if node.op == "LeakyRelu":
        slope = cast(float, attributes(node, alpha=float(np.float32(0.01)))[0])
    else:
        attributes(node)
    if not 0 <= slope <= 1:
        raise CertificateError(f"{where(node)}: no rule for a slope of {slope}")
    draft.define(node.outputs[0], Leaky(source, slope), shape)


def _clip(draft: Draft, node: Node) -> None:
    attributes(node)
    source, shape = draft.value(node)
    ends = [-math.inf, math.inf]
    for at in (1, 2):
        if draft.given(node, at):
            value = draft.fixed(node, at)
            if value.dtype != np.float32 or value.size != 1 or np.isnan(value).any():
                raise CertificateError(f"{where(node)}: its ends are no single float32 numbers")
            ends[at - 1] = float(value.reshape(-1)[0])
    if ends[0] > ends[1]:
        raise CertificateError(f"{where(node)}: its lower end lies above its upper end")
    draft.define(node.outputs[0], Clamp(source, *ends), shape)


def _squash(draft: Draft, node: Node) -> None:
    attributes(node)
    source, shape = draft.value(node)
    draft.define(node.outputs[0], Squash(source, node.op == "Tanh"), shape)


def _pin(draft: Draft, node: Node) -> None:
    attributes(node)
    name, mask, value = neuron_gate(draft.exported, draft.gates, node)
    source, shape = draft.values.get(name, (-1, ()))
    if source < 0 or mask.shape[1:] != shape:
        raise CertificateError(f"{where(node)}: mask of shape {mask.shape} does not fit a value of {shape}")
    flat = (len(mask), math.prod(shape))
    draft.define(
        node.outputs[0], Pin(source, mask.reshape(flat), value.astype(np.float64).reshape(flat)), shape
    )


MAX_VALUE = 1 << 20
RULES: dict[str, Callable[[Draft, Node], None]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _add,
    "Sub": _add,
    "Mul": _multiply,
    "Div": _multiply,
    "BatchNormalization": _batch_normalization,
    "Conv": _convolution,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Transpose": _transpose,
    "Pad": _pad,
    "Concat": _concat,
    "Gather": _gather,
    "Relu": _leaky,
    "LeakyRelu": _leaky,
    "Clip": _clip,
    "Sigmoid": _squash,
    "Tanh": _squash,
    "Where": _pin,
}
