"""An ONNX file as plain data: checked for everything but the meaning of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sutura.errors import NetworkError
from sutura.network.budget import MAX_FIELDS, MAX_GATED_FIELDS, MAX_NODES, affordable, listed, shown
from sutura.network.onnx_tensor import Unreadable, read_tensor
from sutura.network.onnx_wire import check_wire

if TYPE_CHECKING:
    import onnx

PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How zip files (those of torch.save among them) and pickles begin; no ONNX file does."""

OLDEST_OPSET, NEWEST_OPSET = 7, 25
FLOAT32 = 1


Attribute = (
    int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | np.ndarray | Unreadable
)


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One node of the file; `name` is never empty, absent optional inputs and outputs are empty strings."""

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def __str__(self) -> str:
        return f"{shown(self.name)} ({shown(self.operator)[1:-1]})"


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """A graph with one float32 input and one output; every name is defined once and before its use.

    `sample` is the input shape without the batch axis. Where not `batched`, the file has no batch axis: all
    of its axes belong to the one sample that it takes. `input_dims` and `output_dims` are the declared ones,
    None where the file does not say; the latter are None where it says nothing.
    """

    opset: int
    input: str
    batched: bool
    fixed_batch: bool
    sample: tuple[int, ...]
    input_dims: tuple[int | None, ...]
    output: str
    output_dims: tuple[int | None, ...] | None
    constants: Mapping[str, np.ndarray | Unreadable]
    statements: tuple[Statement, ...]


def open_file(data: bytes, *, gated: bool = False) -> OnnxFile:
    """Parse and check the envelope of an ONNX file.

    A first axis of length 1 or of any length is taken for the batch axis; where every length is fixed and the
    first is another, there is none. Raises NetworkError in one line for anything malformed, oversized,
    external, or not a graph with one float32 input and one output. Runs no operator and allocates in
    proportion to `data`. `gated` allows for the trees of a repaired file.
    """
    model = parse_model(data, gated=gated)
    _check_text(model)
    return _checked(model)


def parse_model(data: bytes, *, gated: bool = False) -> onnx.ModelProto:
    """The protobuf message in the bytes of an ONNX file, which are walked first; see `check_wire`."""
    if data.startswith(PICKLES):
        raise NetworkError(
            "this is a PyTorch file or another pickle, which can run any code and is never opened: export "
            "with torch.onnx.export(model.eval(), example, 'network.onnx')"
        )
    check_wire(data, MAX_GATED_FIELDS if gated else MAX_FIELDS)
    return _parse(data)


def _parse(data: bytes) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise NetworkError(f"not an ONNX file ({shown(str(error))}); export the network again") from None


def _check_text(model: onnx.ModelProto) -> None:
    """Names must be text: protobuf hands out those that are not UTF-8 as bytes, or fails, by version."""
    graph = model.graph
    try:
        names: list[object] = [tensor.name for tensor in graph.initializer]
        names += [value.name for value in (*graph.input, *graph.output)]
        for node in graph.node:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
            names += [attribute.name for attribute in node.attribute]
    except UnicodeDecodeError:
        names = [b""]
    if not all(isinstance(name, str) and "\0" not in name for name in names):
        raise NetworkError("a name holds a null character or is not UTF-8 text; export the network again")


def _checked(model: onnx.ModelProto) -> OnnxFile:
    graph = model.graph
    opset = _opset(model)
    if len(model.functions) or len(model.training_info) or len(graph.sparse_initializer):
        raise NetworkError(
            "the file holds local functions, training graphs or sparse weights; export plain inference"
        )
    if not 0 < len(graph.node) <= MAX_NODES:
        raise NetworkError(f"the graph has {len(graph.node)} nodes; between 1 and {MAX_NODES} are supported")
    constants = _constants(graph.initializer)
    inputs = [value for value in graph.input if value.name not in constants]
    _single(inputs, "input")
    _single(graph.output, "output")
    statements = tuple(_statement(node, index) for index, node in enumerate(graph.node))
    _check_names(
        inputs[0].name, [value.name for value in graph.input], constants, statements, graph.output[0].name
    )
    dims = _input_dims(inputs[0])
    batched = len(dims) > 1 and dims[0] in (None, 1)
    return OnnxFile(
        opset=opset,
        input=inputs[0].name,
        batched=batched,
        fixed_batch=batched and dims[:1] == (1,),
        sample=_affordable(inputs[0].name, tuple(n for n in dims[int(batched) :] if n is not None)),
        input_dims=dims,
        output=graph.output[0].name,
        output_dims=_dims(graph.output[0]),
        constants=constants,
        statements=statements,
    )


def whole(file: OnnxFile) -> OnnxFile:
    """The same file read as one that has no batch axis; its batch axis must be of length 1."""
    return replace(file, batched=False, fixed_batch=False, sample=(1, *file.sample))


def _opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise NetworkError(
            f"the file names {len(versions)} versions of the ai.onnx operators; it must name one"
        )
    if not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
        raise NetworkError(
            f"opset {versions[0]} is not supported; export with opset {OLDEST_OPSET} to {NEWEST_OPSET}"
        )
    return versions[0]


def _single(values: Sequence[onnx.ValueInfoProto], role: str) -> None:
    if len(values) != 1:
        names = listed([shown(value.name) for value in values]) or "none"
        raise NetworkError(
            f"the network must have one {role} and has {len(values)}: {names}; export it with one"
        )


def _constants(tensors: Sequence[onnx.TensorProto]) -> Mapping[str, np.ndarray | Unreadable]:
    found: dict[str, np.ndarray | Unreadable] = {}
    for tensor in tensors:
        if not tensor.name or tensor.name in found:
            raise NetworkError(f"two initializers are called {shown(tensor.name)}; export the network again")
        found[tensor.name] = read_tensor(tensor, tensor.name)
    return found


def _check_names(
    source: str,
    declared: Sequence[str],
    constants: Mapping[str, np.ndarray | Unreadable],
    statements: Sequence[Statement],
    output: str,
) -> None:
    """Every value is defined once, before it is read."""
    if len(set(declared)) != len(declared) or not source:
        raise NetworkError("two inputs have one name, or one has none; export the network again")
    defined = {source, *constants}
    for statement in statements:
        for name in statement.inputs:
            if name and name not in defined:
                raise NetworkError(
                    f"node {statement} reads {shown(name)}, which nothing before it defines: "
                    "the graph has a cycle, is unsorted, or was cut; export it again"
                )
        for name in filter(None, statement.outputs):
            if name in defined:
                raise NetworkError(
                    f"node {statement} defines {shown(name)} a second time; export the network again"
                )
            defined.add(name)
    if output not in defined:
        raise NetworkError(f"no node defines the output {shown(output)}; export the network again")


def _statement(node: onnx.NodeProto, index: int) -> Statement:
    name = node.name or f"{node.op_type}_{index}"
    attributes: dict[str, Attribute] = {}
    for entry in node.attribute:
        if entry.name in attributes:
            raise NetworkError(
                f"node {shown(name)} has attribute {shown(entry.name)} twice; export the network again"
            )
        attributes[entry.name] = _attribute(entry, name)
    domain = "" if node.domain == "ai.onnx" else node.domain
    return Statement(name, node.op_type, domain, tuple(node.input), tuple(node.output), attributes)


def _attribute(entry: onnx.AttributeProto, node: str) -> Attribute:
    """The value by AttributeProto.type: float, int, string, tensor, floats, ints, strings."""
    kind = 0 if entry.ref_attr_name else entry.type
    match kind:
        case 1:
            return entry.f
        case 2:
            return entry.i
        case 3:
            return entry.s.decode("utf-8", "replace")
        case 4:
            return read_tensor(entry.t, f"{node}.{entry.name}")
        case 6:
            return tuple(float(v) for v in entry.floats)
        case 7:
            return tuple(int(v) for v in entry.ints)
        case 8:
            return tuple(v.decode("utf-8", "replace") for v in entry.strings)
        case _:
            return Unreadable(f"attribute {shown(entry.name)} is of a kind that is not supported")


def _input_dims(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Lengths of the axes, of which only a batch axis may be None."""
    name = shown(value.name)
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type" or value.type.tensor_type.elem_type != FLOAT32:
        raise NetworkError(f"input {name} is not a float32 tensor; export the network in float32")
    dims = _dims(value)
    if dims == ():
        raise NetworkError(f"input {name} is a single number without axes; export with shape 1x1")
    if dims is None or None in dims[1:] or dims == (None,):
        raise NetworkError(
            f"input {name} has an axis of unknown length; export with every axis but the batch fixed"
        )
    return dims


def _affordable(name: str, sample: tuple[int, ...]) -> tuple[int, ...]:
    try:
        affordable(sample)
    except NetworkError as error:
        raise NetworkError(f"input {shown(name)} {error}") from None
    return sample


def _dims(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Declared dims of a tensor, None for those that are symbols or not positive."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in kind.shape.dim)


def _dim(dim: Any) -> int | None:
    return int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
