"""A bounded reader of the part of ONNX that an exported network needs: protobuf bytes to plain data.

Stricter than protobuf on purpose. A field that is unknown, or that stands twice where one is meant, is
refused (protobuf readers merge or skip, and two readers may then see two models); so are external data,
functions and sparse tensors, and all subgraphs but the plain branches of If. Sizes are compared with the
bytes at hand before anything is built from them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sutura.certificate.errors import CertificateError, brief

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch of If: nodes that may read what was defined before, the one value that they give, and
    constants that they alone read."""

    nodes: tuple[Node, ...]
    output: str
    constants: Mapping[str, Array]


Attribute = float | int | bytes | Array | tuple[Any, ...] | Branch


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of the file: `domain` is "" for ai.onnx; an input "" is an operand left out."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the graph: its name, element type and shape (None for an axis of any length)."""

    name: str
    kind: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """The file: operator sets in use, nodes in file order, constants by name, inputs and outputs."""

    ir_version: int
    opsets: Mapping[str, int]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read_model(data: bytes) -> Model:
    """The model in the bytes of an ONNX file; CertificateError for all that is outside the subset."""
    if len(data) > MAX_BYTES:
        raise CertificateError(f"the network file has {len(data)} bytes; at most {MAX_BYTES} are read")
    budget = _Budget(MAX_FIELDS)
    model = _message(memoryview(data), "model", budget)
    if "graph" not in model:
        raise CertificateError("the network file holds no graph: is it an ONNX file?")
    graph = _message(model["graph"], "graph", budget)
    opsets: dict[str, int] = {}
    for view in model.get("opset_import", []):
        entry = _message(view, "opset", budget)
        domain = _domain(entry.get("domain", b""))
        if domain in opsets:
            raise CertificateError(f"the network file imports operator set {brief(domain)} twice")
        opsets[domain] = _signed(entry.get("version", 0))
    return Model(
        ir_version=_signed(model.get("ir_version", 0)),
        opsets=opsets,
        nodes=tuple(_node(view, budget) for view in graph.get("node", [])),
        constants=_constants(graph.get("initializer", []), budget),
        inputs=tuple(_port(view, budget) for view in graph.get("input", [])),
        outputs=tuple(_port(view, budget) for view in graph.get("output", [])),
    )


@dataclass(slots=True)
class _Budget:
    fields: int
    nesting: int = 0


def _message(view: memoryview, kind: str, budget: _Budget) -> dict[str, Any]:
    """The fields of one message by name: a value, or a list of them where the field repeats."""
    table = FIELDS[kind]
    found: dict[str, Any] = {}
    for number, wire, value in _fields(view, kind, budget):
        if number not in table:
            raise CertificateError(
                f"the network file: field {number} of a {kind} is not in the subset read here"
            )
        name, expected, repeats = table[number]
        if wire != expected and not (repeats and wire == 2):
            raise CertificateError(f"the network file: {kind}.{name} has wire type {wire}, not {expected}")
        if not repeats and name in found:
            raise CertificateError(f"the network file: {kind}.{name} is given twice")
        if not repeats:
            found[name] = value
        elif wire == expected:
            group = found.setdefault(name, [])
            group.append(value)
            if kind in CROWDED and len(group) > MAX_PARTS:
                raise CertificateError(f"the network file: a {kind} has more than {MAX_PARTS} of {name}")
        else:
            found.setdefault(name, []).extend(_packed(value, expected, budget))
    return found


def _fields(view: memoryview, kind: str, budget: _Budget) -> Iterator[tuple[int, int, Any]]:
    at, end = 0, len(view)
    while at < end:
        budget.fields -= 1
        if budget.fields < 0:
            raise CertificateError(f"the network file has more than {MAX_FIELDS} fields")
        tag = view[at]
        at += 1
        if tag >= 128:
            tag, at = _varint(view, at - 1, end)
        wire = tag & 7
        if wire == 0:
            value, at = (view[at], at + 1) if at < end and view[at] < 128 else _varint(view, at, end)
        elif wire in WIDTH or wire == 2:
            size, at = _varint(view, at, end) if wire == 2 else (WIDTH[wire], at)
            if size > end - at:
                raise CertificateError(f"the network file ends inside a {kind} ({size} bytes wanted)")
            value = view[at : at + size]
            at += size
        else:
            raise CertificateError(f"the network file: wire type {wire} in a {kind} is not ONNX")
        yield tag >> 3, wire, value


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                break
            return value, at
        shift += 7
    raise CertificateError("the network file is cut off or corrupt inside a number")


def _packed(view: memoryview, wire: int, budget: _Budget) -> list[Any]:
    if wire in WIDTH:
        width = WIDTH[wire]
        if len(view) % width:
            raise CertificateError("the network file: a packed list is cut off inside a number")
        budget.fields -= len(view) // width
        if budget.fields < 0:
            raise CertificateError(f"the network file has more than {MAX_FIELDS} fields")
        return [view[at : at + width] for at in range(0, len(view), width)]
    values: list[int] = []
    at = 0
    while at < len(view):
        budget.fields -= 1
        if budget.fields < 0:
            raise CertificateError(f"the network file has more than {MAX_FIELDS} fields")
        value, at = _varint(view, at, len(view))
        values.append(value)
    return values


def _node(view: memoryview, budget: _Budget) -> Node:
    found = _message(view, "node", budget)
    if found.get("overload"):
        raise CertificateError(
            "the network file: a node calls an overloaded function; functions are not read"
        )
    attributes: dict[str, Attribute] = {}
    for entry in found.get("attribute", []):
        name, value = _attribute(entry, budget)
        if name in attributes:
            raise CertificateError(f"the network file: a node gives its attribute {brief(name)} twice")
        attributes[name] = value
    return Node(
        name=_text(found.get("name", b"")),
        op=_text(found.get("op_type", b"")),
        domain=_domain(found.get("domain", b"")),
        inputs=tuple(_text(name) for name in found.get("input", [])),
        outputs=tuple(_text(name) for name in found.get("output", [])),
        attributes=attributes,
    )


def _attribute(view: memoryview, budget: _Budget) -> tuple[str, Attribute]:
    found = _message(view, "attribute", budget)
    name = _text(found.get("name", b""))
    kind = found.get("type", 0)
    if kind not in ATTRIBUTES:
        raise CertificateError(
            f"the network file: attribute {brief(name)} has type {kind}; it is not read here"
        )
    field = ATTRIBUTES[kind]
    if any(other in found for other in ATTRIBUTES.values() if other != field):
        raise CertificateError(f"the network file: attribute {brief(name)} holds more than its type says")
    if field in {"f", "i", "s", "t", "g"} and field not in found:
        raise CertificateError(f"the network file: attribute {brief(name)} has no value")
    return name, _attribute_value(field, found.get(field, []), budget)


def _attribute_value(field: str, value: Any, budget: _Budget) -> Attribute:
    match field:
        case "f":
            return _float(value)
        case "i":
            return _signed(value)
        case "s":
            return bytes(value)
        case "t":
            return _tensor(value, budget)[1]
        case "g":
            return _branch(value, budget)
        case "floats":
            return tuple(_float(entry) for entry in value)
        case "ints":
            return tuple(_signed(entry) for entry in value)
        case _:
            return tuple(bytes(entry) for entry in value)


def _branch(view: memoryview, budget: _Budget) -> Branch:
    if budget.nesting >= MAX_NESTING:
        raise CertificateError(f"the network file nests branches more than {MAX_NESTING} deep")
    budget.nesting += 1
    graph = _message(view, "graph", budget)
    if "input" in graph or len(graph.get("output", [])) != 1:
        raise CertificateError("the network file has a branch with inputs or several outputs")
    constants = _constants(graph.get("initializer", []), budget)
    nodes = tuple(_node(entry, budget) for entry in graph.get("node", []))
    budget.nesting -= 1
    return Branch(nodes, _text(_message(graph["output"][0], "value", budget).get("name", b"")), constants)


def _constants(views: list[memoryview], budget: _Budget) -> dict[str, Array]:
    constants: dict[str, Array] = {}
    for view in views:
        name, value = _tensor(view, budget)
        if not name or name in constants:
            raise CertificateError(
                f"the network file: initializer name {brief(name)} is empty or given twice"
            )
        constants[name] = value
    return constants


def _tensor(view: memoryview, budget: _Budget) -> tuple[str, Array]:
    """A constant. Its bytes must be exactly as many as its type and shape say: nothing is made up."""
    found = _message(view, "tensor", budget)
    name = _text(found.get("name", b""))
    kind = found.get("data_type", 0)
    if kind not in DTYPES:
        raise CertificateError(
            f"the network file: tensor {brief(name)} has element type {kind}; not read here"
        )
    if found.get("data_location", 0):
        raise CertificateError(f"the network file: tensor {brief(name)} lies in another file; save one file")
    shape = tuple(_signed(size) for size in found.get("dims", []))
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise CertificateError(f"the network file: tensor {brief(name)} has shape {brief(shape)}")
    raw = _tensor_bytes(found, kind, name)
    if math.prod(shape) * DTYPES[kind].itemsize != len(raw):
        raise CertificateError(
            f"the network file: tensor {brief(name)} of shape {brief(shape)} holds {len(raw)} bytes"
        )
    if kind == BOOL and any(byte > 1 for byte in set(raw)):
        raise CertificateError(
            f"the network file: tensor {brief(name)} holds truth values that are not 0 or 1"
        )
    return name, np.frombuffer(raw, dtype=DTYPES[kind]).reshape(shape)


def _tensor_bytes(found: dict[str, Any], kind: int, name: str) -> bytes | memoryview:
    lists = [field for field in TYPED if found.get(field)]
    if len(lists) + ("raw_data" in found) > 1:
        raise CertificateError(f"the network file: tensor {brief(name)} holds its numbers twice")
    if not lists:
        return found.get("raw_data", b"")
    if TYPED[lists[0]] != kind:
        raise CertificateError(f"the network file: tensor {brief(name)} keeps its numbers in {lists[0]}")
    if lists[0] == "float_data":
        return b"".join(found["float_data"])
    return b"".join(struct.pack("<Q", value) for value in found["int64_data"])


def _port(view: memoryview, budget: _Budget) -> Port:
    found = _message(view, "value", budget)
    name = _text(found.get("name", b""))
    kind = _message(found.get("type", memoryview(b"")), "type", budget)
    tensor = _message(kind.get("tensor_type", memoryview(b"")), "tensor_type", budget)
    if "shape" not in tensor:
        raise CertificateError(f"the network file: {brief(name)} is no tensor of a stated shape")
    shape: list[int | None] = []
    for entry in _message(tensor["shape"], "shape", budget).get("dim", []):
        dim = _message(entry, "dim", budget)
        shape.append(_signed(dim["dim_value"]) if "dim_value" in dim else None)
    return Port(name, tensor.get("elem_type", 0), tuple(shape))


def _text(value: memoryview | bytes) -> str:
    if len(value) > MAX_NAME:
        raise CertificateError(f"the network file: a name of {len(value)} bytes; at most {MAX_NAME} are read")
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise CertificateError("the network file: a name is no UTF-8 text") from None


def _domain(value: memoryview | bytes) -> str:
    text = _text(value)
    return "" if text == "ai.onnx" else text


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _float(value: memoryview) -> float:
    return float(struct.unpack("<f", value)[0])


MAX_BYTES = 1 << 28
MAX_FIELDS = 4_800_000
MAX_PARTS = 50_000
MAX_NAME = 1024
MAX_NESTING = 4
MAX_RANK = 8
WIDTH = {1: 8, 5: 4}
FLOAT, INT32, INT64, BOOL = 1, 6, 7, 9
DTYPES = {
    FLOAT: np.dtype("<f4"),
    INT32: np.dtype("<i4"),
    INT64: np.dtype("<i8"),
    BOOL: np.dtype("?"),
}
TYPED = {"float_data": FLOAT, "int64_data": INT64}
ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
CROWDED = {"model", "graph", "node", "shape"}  # messages whose repeated fields are messages or names
# message kind -> field number -> (name, wire type of one element, whether it repeats)
FIELDS: dict[str, dict[int, tuple[str, int, bool]]] = {
    "model": {
        1: ("ir_version", 0, False),
        2: ("producer_name", 2, False),
        3: ("producer_version", 2, False),
        4: ("domain", 2, False),
        5: ("model_version", 0, False),
        6: ("doc_string", 2, False),
        7: ("graph", 2, False),
        8: ("opset_import", 2, True),
        14: ("metadata_props", 2, True),
    },
    "opset": {1: ("domain", 2, False), 2: ("version", 0, False)},
    "graph": {
        1: ("node", 2, True),
        2: ("name", 2, False),
        5: ("initializer", 2, True),
        10: ("doc_string", 2, False),
        11: ("input", 2, True),
        12: ("output", 2, True),
        13: ("value_info", 2, True),
    },
    "node": {
        1: ("input", 2, True),
        2: ("output", 2, True),
        3: ("name", 2, False),
        4: ("op_type", 2, False),
        5: ("attribute", 2, True),
        6: ("doc_string", 2, False),
        7: ("domain", 2, False),
        8: ("overload", 2, False),
    },
    "attribute": {
        1: ("name", 2, False),
        2: ("f", 5, False),
        3: ("i", 0, False),
        4: ("s", 2, False),
        5: ("t", 2, False),
        6: ("g", 2, False),
        7: ("floats", 5, True),
        8: ("ints", 0, True),
        9: ("strings", 2, True),
        13: ("doc_string", 2, False),
        20: ("type", 0, False),
    },
    "tensor": {
        1: ("dims", 0, True),
        2: ("data_type", 0, False),
        4: ("float_data", 5, True),
        7: ("int64_data", 0, True),
        8: ("name", 2, False),
        9: ("raw_data", 2, False),
        12: ("doc_string", 2, False),
        14: ("data_location", 0, False),
    },
    "value": {1: ("name", 2, False), 2: ("type", 2, False), 3: ("doc_string", 2, False)},
    "type": {1: ("tensor_type", 2, False), 6: ("denotation", 2, False)},
    "tensor_type": {1: ("elem_type", 0, False), 2: ("shape", 2, False)},
    "shape": {1: ("dim", 2, True)},
    "dim": {1: ("dim_value", 0, False), 2: ("dim_param", 2, False), 3: ("denotation", 2, False)},
}
