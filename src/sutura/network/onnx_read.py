"""ONNX files to networks: every node through its row of the tables, all that is unsupported told at once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import (
    MAX_ELEMENTS,
    MAX_FILE_BYTES,
    MAX_FOLDED,
    MAX_MACS,
    affordable,
    listed,
    shown,
    shown_shape,
)
from sutura.network.cost import macs
from sutura.network.graph import Network, Node, Shape
from sutura.network.onnx_file import OnnxFile, Statement, open_file, whole
from sutura.network.onnx_fold import FOLDS, fold
from sutura.network.onnx_layers import LAYERS, TWO_ACTIVATIONS
from sutura.network.onnx_layout import LAYOUT
from sutura.network.onnx_tensor import Unreadable
from sutura.network.onnx_value import Activation, Applied, Call, Constant, Reading, Value
from sutura.network.shapes import output_shape


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What became of one node: the nodes it turned into, or why it is not supported.

    `value` is what its first output is, None where that could not be found out, and `others` what further
    outputs are; `reason` is empty where the node is supported or where nothing can be said because an input
    is unknown.
    """

    statement: Statement
    inputs: tuple[Value | None, ...]
    nodes: tuple[Node, ...]
    value: Value | None
    reason: str
    shapes: Mapping[str, Shape]
    folded: int = 0
    others: Mapping[str, Value] = field(default_factory=dict[str, Value])


def read_onnx(path: Path) -> Network:
    """Read an ONNX file from disk; see `parse_onnx`. Raises NetworkError also where it cannot be read."""
    return parse_onnx(file_bytes(path), path.name)


def file_bytes(path: Path) -> bytes:
    """The bytes of a network file of bounded size; raises NetworkError where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NetworkError(f"cannot read {shown(str(path))}: {error.strerror or 'no such file'}") from None
    except ValueError:
        raise NetworkError(f"cannot read {shown(str(path))}: the path holds a null character") from None
    if len(data) > MAX_FILE_BYTES:
        raise NetworkError(
            f"{shown(str(path))} has more than {MAX_FILE_BYTES} bytes; larger files are not supported"
        )
    return data


def parse_onnx(data: bytes, name: str) -> Network:
    """The network that the bytes of an ONNX file hold; `name` is for messages and becomes the network's name.

    The function read is that of the file on batches: weights as stored, one node a node (Identity, Dropout
    and nodes that the output does not need are dropped, constants are folded exactly). A file for one sample
    alone is read too, with all its axes where it has no batch axis or moves it; each value then gains a batch
    axis before them. Raises NetworkError, one line, with every unsupported node at once. Neither ONNX Runtime
    nor onnx.checker sees the bytes; hostile files are refused before anything of a size that they claim is
    allocated.
    """
    try:
        file = open_file(data)
        return _network(*settled(file), name, hashlib.sha256(data).hexdigest())
    except NetworkError as error:
        raise NetworkError(f"{shown(name)}: {error}") from None


def settled(file: OnnxFile) -> tuple[OnnxFile, tuple[Step, ...]]:
    """The file and its steps, read without a batch axis where it can only be read so; raises as `walk` does.

    That is tried where the first axis has length 1 and some node mixes it with others.
    """
    steps = walk(file)
    if not file.fixed_batch or _readable(file, steps):
        return file, steps
    other = whole(file)
    try:
        again = walk(other)
    except NetworkError:
        return file, steps
    return (other, again) if _readable(other, again) else (file, steps)


def _readable(file: OnnxFile, steps: Sequence[Step]) -> bool:
    last = _values(file, steps).get(file.output)
    return last is not None and not any(s.reason for s in steps) and _as_declared(file, last.shape)


def walk(file: OnnxFile) -> tuple[Step, ...]:
    """Read every node that the output needs, in order; unsupported ones become steps with a reason.

    Raises NetworkError only where the whole passes a budget.
    """
    needed = _needed(file)
    known: dict[str, Value | Unreadable | None] = {
        name: array if isinstance(array, Unreadable) else Constant(name, array)
        for name, array in file.constants.items()
    }
    known[file.input] = Activation(file.input, file.sample)
    steps: list[Step] = []
    moving = {file.input}
    folded, elements, work = 0, math.prod(file.sample), 0
    for statement in file.statements:
        if not needed.intersection(filter(None, statement.outputs)):
            continue
        step = _step(statement, file, known, needed)
        if step.value is None and not step.reason:
            step = replace(step, reason=_foreseen(statement, moving))
        if statement.operator != "Shape" and not moving.isdisjoint(statement.inputs):
            moving.update(statement.outputs)
        steps.append(step)
        for index, output in enumerate(statement.outputs):
            known[output] = step.value if index == 0 else step.others.get(output)
        folded += step.folded
        elements += sum(math.prod(shape) for shape in step.shapes.values())
        work += sum(macs(node.op, step.shapes[node.output]) for node in step.nodes)
        _check_budget(statement, folded, elements, work)
    return tuple(steps)


def _foreseen(statement: Statement, moving: Set[str]) -> str:
    """Why a node could not be supported whatever its unknown inputs were; `moving` depend on the input."""
    two = len(statement.inputs) > 1 and all(name in moving for name in statement.inputs[:2])
    return TWO_ACTIVATIONS if statement.operator == "MatMul" and two else ""


def _check_budget(statement: Statement, folded: int, elements: int, work: int) -> None:
    for amount, limit, what in (
        (folded, MAX_FOLDED, "numbers in computed constants"),
        (elements, MAX_ELEMENTS, "numbers in the values of one sample"),
        (work, MAX_MACS, "multiply-accumulate steps a sample"),
    ):
        if amount > limit:
            raise NetworkError(
                f"up to node {statement} the network needs {amount:.3g} {what}; at most {limit} fit"
            )


def _needed(file: OnnxFile) -> set[str]:
    """Names of the values that the output depends on."""
    needed = {file.output}
    for statement in reversed(file.statements):
        if needed.intersection(filter(None, statement.outputs)):
            needed.update(filter(None, statement.inputs))
    return needed


def _step(
    statement: Statement,
    file: OnnxFile,
    known: Mapping[str, Value | Unreadable | None],
    needed: Set[str],
) -> Step:
    given = [known[name] if name else None for name in statement.inputs]
    inputs = tuple(None if isinstance(value, Unreadable) else value for value in given)
    outcome = Step(statement, inputs, (), None, "", {})
    if statement.domain or statement.operator not in {*LAYERS, *LAYOUT, *FOLDS}:
        where = f" of domain {shown(statement.domain)}" if statement.domain else ""
        return replace(outcome, reason=f"operator{where} is not supported")
    poor = [value.reason for value in given if isinstance(value, Unreadable)]
    if poor:
        return replace(outcome, reason=poor[0])
    if any(value is None for name, value in zip(statement.inputs, given, strict=True) if name):
        return outcome
    outputs = max((i for i, name in enumerate(statement.outputs, 1) if name in needed), default=0)
    call = Call(
        operator=statement.operator,
        opset=file.opset,
        batched=file.batched,
        fixed_batch=file.fixed_batch,
        inputs=inputs,
        outputs=outputs,
        listed=len(statement.outputs),
        attributes=statement.attributes,
    )
    try:
        return _result(outcome, _read(call, statement), needed)
    except NetworkError as error:
        return replace(outcome, reason=str(error))


def _read(call: Call, statement: Statement) -> Reading:
    if not statement.outputs or not statement.outputs[0]:
        raise NetworkError("names no first output")
    if call.operator == "Shape" or not any(isinstance(value, Activation) for value in call.inputs):
        return Constant(statement.outputs[0], fold(call))
    if call.operator not in READERS:
        raise NetworkError("is supported on constants only, and reads an activation")
    reader, attributes = READERS[call.operator]
    unknown = sorted(set(call.attributes) - set(attributes))
    if unknown:
        raise NetworkError(f"has attribute {shown(unknown[0])}, which is not supported for this operator")
    return reader(call) if call.batched or call.operator not in NEED_BATCH else _lent_batch(call, reader)


def _lent_batch(call: Call, reader: Callable[[Call], Reading]) -> Reading:
    """A reader that knows samples behind a batch axis only, given a first axis of length 1 as that."""
    value = call.activation()
    if value.shape[:1] != (1,):
        raise NetworkError(f"needs a batch axis of length 1, and reads {shown_shape(value.shape)}")
    inner = Activation(value.name, value.shape[1:])
    reading = reader(replace(call, batched=True, fixed_batch=True, inputs=(inner, *call.inputs[1:])))
    if not isinstance(reading, Applied):
        return value
    shape = inner.shape
    for op in reading.ops:
        shape = output_shape(op, (shape,))
    return Applied((value,), (ops.Reshape(inner.shape), *reading.ops, ops.Reshape((1, *shape))))


def _result(step: Step, reading: Reading, needed: Set[str]) -> Step:
    """The step with the nodes that `reading` asks for, shapes inferred and affordable."""
    if isinstance(reading, Constant):
        return replace(step, value=reading, folded=reading.array.size)
    if isinstance(reading, Activation):
        return replace(step, value=reading)
    if isinstance(reading, Applied):
        return _applied(step, reading, step.statement.outputs[0])
    done = step
    for index, (output, part) in enumerate(zip(step.statement.outputs, reading.outputs, strict=True)):
        if output not in needed:
            continue
        one = replace(step, value=part) if isinstance(part, Activation) else _applied(step, part, output)
        assert one.value is not None
        done = replace(done, nodes=(*done.nodes, *one.nodes), shapes={**done.shapes, **one.shapes})
        done = replace(done, others={**done.others, output: one.value})
        done = replace(done, value=one.value) if index == 0 or done.value is None else done
    return done


def _applied(step: Step, reading: Applied, output: str) -> Step:
    inputs = reading.inputs
    nodes: list[Node] = []
    shapes: dict[str, Shape] = {}
    for index, op in enumerate(reading.ops, 1):
        last = index == len(reading.ops)
        # No name in a file may hold a null character, so the name between two operators is free.
        place = output if last else f"{output}\0{index}"
        shape = output_shape(op, tuple(value.shape for value in inputs))
        affordable(shape)
        name = step.statement.name if last else f"{step.statement.name}.{index}"
        nodes.append(Node(name, op, tuple(value.name for value in inputs), place))
        shapes[place] = shape
        inputs = (Activation(place, shape),)
    return replace(step, nodes=tuple(nodes), value=inputs[0], shapes=shapes)


def _values(file: OnnxFile, steps: Sequence[Step]) -> Mapping[str, Activation]:
    """Every value that depends on the input."""
    values = {file.input: Activation(file.input, file.sample)}
    for step in steps:
        found = {**step.others, step.statement.outputs[0]: step.value} if step.statement.outputs else {}
        values |= {k: v for k, v in found.items() if isinstance(v, Activation)}
    return values


def _network(file: OnnxFile, steps: tuple[Step, ...], name: str, digest: str) -> Network:
    reasons = [f"node {step.statement} {step.reason}" for step in steps if step.reason]
    if reasons:
        raise NetworkError(f"{len(reasons)} of {len(steps)} nodes not supported: {listed(reasons)}")
    values = _values(file, steps)
    if file.output not in values:
        raise NetworkError(
            f"output {shown(file.output)} does not depend on the input; export the network again"
        )
    result = values[file.output]
    _check_declared(file, result.shape)
    nodes = tuple(node for step in steps for node in step.nodes)
    shapes = {file.input: file.sample} | {k: v for step in steps for k, v in step.shapes.items()}
    if result.name == file.input:
        nodes, shapes = _identity(file)
    names = _final_names(shapes, result.name, file)
    return Network(
        name=name,
        input=file.input,
        output=file.output,
        nodes=tuple(_renamed(node, names) for node in nodes),
        shapes=MappingProxyType({names[k]: v for k, v in shapes.items()}),
        sha256=digest,
    )


def _identity(file: OnnxFile) -> tuple[tuple[Node, ...], dict[str, Shape]]:
    """A network that returns its input still has one node, so that input and output keep their names."""
    if file.output == file.input:
        raise NetworkError(f"output {shown(file.output)} is the input itself; export a network with nodes")
    node = Node("identity", ops.Reshape(file.sample), (file.input,), file.output)
    return (node,), {file.input: file.sample, file.output: file.sample}


def _as_declared(file: OnnxFile, shape: Shape) -> bool:
    computed = (1, *shape) if file.batched else shape
    declared = computed if file.output_dims is None else file.output_dims
    return len(declared) == len(computed) and all(
        d in (None, n) for d, n in zip(declared, computed, strict=True)
    )


def _check_declared(file: OnnxFile, shape: Shape) -> None:
    if not _as_declared(file, shape):
        dims = shown_shape([d or 0 for d in file.output_dims or ()])
        raise NetworkError(
            f"output {shown(file.output)} is declared as {dims}, computed as {shown_shape(shape)} a sample; "
            "export the network again with a batch axis"
        )


def _final_names(shapes: Mapping[str, Shape], result: str, file: OnnxFile) -> Mapping[str, str]:
    """Names without null characters, in which the output has the name that the file gives it."""
    taken = {*file.constants, file.input, *(name for s in file.statements for name in s.outputs)}
    names: dict[str, str] = {}
    for name in shapes:
        fresh = name.replace("\0", ".")
        while fresh != name and fresh in taken:
            fresh += "_"
        taken.add(fresh)
        names[name] = fresh
    if result != file.output and result != file.input:
        names[result] = file.output
    return names


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    return replace(node, inputs=tuple(names[name] for name in node.inputs), output=names[node.output])


NEED_BATCH = frozenset({"AveragePool", "BatchNormalization", "Conv", "Gemm", "GlobalAveragePool", "MaxPool"})
"""Operators whose first axis is the batch axis by definition."""

READERS = {**LAYERS, **LAYOUT}
"""op_type -> reader and the attributes it knows; the list of supported operators is this table."""

OPERATORS = frozenset({*READERS, *FOLDS})
"""Every op_type that some supported network may hold, on activations or on constants."""
