"""An ONNX file as plain data: a protobuf reader that knows the fields of FIELDS and refuses all others."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence, Set
from math import prod
from typing import Any, NamedTuple

from .ticks import ticks, want

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """A constant: its ONNX element type, its shape and its numbers (float32 in ticks), row-major."""

    kind: int
    shape: Shape
    values: Shape


class Node(NamedTuple):
    """An operator; attributes are (field, value) by name."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, tuple[str, Any]]


class Graph(NamedTuple):
    """The graph as if the If that gives the output, where there is one, took its first branch.

    `makers` are nodes by output; `switches` hold, of this If, its condition and what it hands over where that
    is false.
    """

    input: str
    sample: Shape
    output: str
    nodes: Sequence[Node]
    constants: Mapping[str, Tensor]
    makers: Mapping[str, Node]
    switches: Sequence[tuple[str, str]]


def message(data: bytes, kind: str, depth: int = 0) -> dict[str, Any]:
    """The fields of a message by name; a part that is not given is 0, empty or None."""
    fields, at = FIELDS[kind], 0
    found = dict[str, Any]()
    while at < len(data):
        tag, at = varint(data, at)
        name, what, many = fields.get(tag >> 3, ("", "", ""))
        wire = WIRES.get(what, 2)
        want(name and wire == tag & 7, f"the network file: field {tag >> 3} of a {kind} is not read here")
        want(many or name not in found, f"the network file: {kind}.{name} is given twice")
        value: Any
        value, at = (4, at) if wire == 5 else varint(data, at)
        if wire:
            fits = value <= len(data) - at and depth < 20
            want(fits, f"the network file: a {kind} is cut off, or nests too deep")
            value, at = data[at : at + value], at + value
        value = READ[what](value) if what in READ else message(value, what, depth + 1)
        if many:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return {name: [] if many else ABSENT.get(what) for name, what, many in fields.values()} | found


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, and the place after it."""
    end = at
    while end < len(data) and data[end] > 127:
        end += 1
    value = sum((byte & 127) << 7 * place for place, byte in enumerate(data[at : end + 1][:10]))
    want(
        end < min(len(data), at + 10) and value < 1 << 64, "a file holds a number that is cut off or too long"
    )
    return value, end + 1


def tensor(m: Mapping[str, Any]) -> Tensor:
    """A constant; its bytes are exactly as many as its type and shape say."""
    kind, shape, raw = m["data_type"], tuple(m["dims"]), m["raw_data"]
    known = kind in KINDS and len(shape) <= 8 and min((0, *shape)) == 0
    want(known, f"the constant {m['name']!r} is not float32, int64 or bool")
    size, code = KINDS[kind]
    want(len(raw) == prod(shape) * size, f"the constant {m['name']!r} has the wrong size")
    values = struct.unpack(f"<{prod(shape)}{code}", raw)
    want(kind != BOOL or max(values, default=0) <= 1, "the network file: a truth value is not 0 or 1")
    return Tensor(kind, shape, tuple(map(ticks, values)) if kind == FLOAT else values)


def read_node(m: Mapping[str, Any]) -> Node:
    """An operator and its attributes."""
    attributes = {a["name"]: attribute(a) for a in m["attribute"]}
    want(len(attributes) == len(m["attribute"]), f"{m['op_type']} has an attribute twice")
    return Node(m["op_type"], m["domain"], tuple(m["input"]), tuple(m["output"]), attributes)


def attribute(a: Mapping[str, Any]) -> tuple[str, Any]:
    """The field that the type of an attribute names, and its value; nothing else may be given."""
    kind = ATTRIBUTES.get(a["type"], "")
    others = [a[name] for name in ATTRIBUTES.values() if name != kind]
    want(kind and not any(others), f"attribute {a['name']!r} is not of a type read here")
    return kind, tuple(a[kind]) if len(kind) > 1 else a[kind]


def parts(graph: Mapping[str, Any]) -> tuple[list[Node], dict[str, Tensor]]:
    """The nodes and the constants of a graph."""
    constants = {part["name"]: tensor(part) for part in graph["initializer"]}
    want(len(constants) == len(graph["initializer"]), "a constant is given twice")
    return [read_node(part) for part in graph["node"]], constants


def read_graph(data: bytes) -> Graph:
    """The graph in the bytes of an ONNX file; every name is defined once, before its use."""
    model = message(data, "model")
    graph, imports = model["graph"], [(part["domain"], part["version"]) for part in model["opset_import"]]
    opsets = {"ai.onnx.ml": 3} | dict(imports)
    known = set(opsets) == {"", "ai.onnx.ml"} and opsets[""] == 17 and opsets["ai.onnx.ml"] in {1, 2, 3}
    domains = {domain for domain, _ in imports}
    want(known and len(domains) == len(imports), "the operator sets are not ai.onnx 17, ai.onnx.ml 3")
    want(4 <= model["ir_version"] <= 10, "the IR version is not 4 to 10")
    (start, kind, (batch, *sample)), (output, result, _) = port(graph["input"]), port(graph["output"])
    want(kind == result == FLOAT and sample, "input and output must be float32 with a batch axis and more")
    sized = start and batch in {0, 1} and min(sample) > 0 and prod(sample) < 1 << 24
    want(sized, "the input has no name, or no known shape")
    nodes, constants = parts(graph)
    last = nodes.pop() if nodes and nodes[-1].op == "If" else None
    names = define({start, ""}, constants.keys(), nodes, domains)
    switches = list[tuple[str, str]]()
    if last:
        then, other = (last.attributes[f"{name}_branch"][1] for name in ("then", "else"))
        (made, own), ((untouched,), none) = parts(then), parts(other)
        (final,), (given,) = then["output"], other["output"]
        (condition,), (handed,) = last.inputs, untouched.inputs
        plain = last[:4] == ("If", "", (condition,), (output,)) and len(last.attributes) == 2 and not none
        plain = plain and untouched == Node("Identity", "", (handed,), (given["name"],), {})
        fits = plain and not then["input"] + other["input"] and {condition, handed} <= names
        want(fits, "the If at the end does not hand over one value untouched")
        define(names, own.keys(), [*made, untouched, last._replace(attributes={})], domains)
        output, nodes = final["name"], nodes + made
        constants, switches = constants | own, [(condition, handed)]
    makers = {name: node for node in nodes for name in node.outputs}
    return Graph(start, tuple(sample), output, nodes, constants, makers, switches)


def port(values: Sequence[Mapping[str, Any]]) -> tuple[str, int, Shape]:
    """Name, element type and shape (0 for an axis of any length) of the one input or output."""
    want(len(values) == 1, "the network must have one input and one output")
    kind = message(values[0]["type"], "type")["tensor_type"]
    return values[0]["name"], kind["elem_type"], tuple(axis["dim_value"] for axis in kind["shape"]["dim"])


def define(known: Set[str], constants: Set[str], nodes: Sequence[Node], domains: Set[str]) -> set[str]:
    """The known names and those of constants and nodes: each stands for one value, made before it is read."""
    want(known.isdisjoint(constants), "a constant has no name, or that of another value")
    names = {*known, *constants}
    for node in nodes:
        plain = node.domain in domains and all(kind != "g" for kind, _ in node.attributes.values())
        want(plain, f"{node.op} is of an operator set that is not imported, or has a branch")
        want(names.issuperset(node.inputs), f"{node.op} reads what nothing before it defines")
        for name in node.outputs:
            want(name not in names, f"{name!r} is defined twice, or has no name")
            names.add(name)
    return names


FLOAT, INT64, BOOL = 1, 7, 9
KINDS = {FLOAT: (4, "I"), INT64: (8, "q"), BOOL: (1, "B")}
ATTRIBUTES = {1: "f", 2: "i", 3: "s", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
WIRES, ABSENT = {"int": 0, "float": 5}, {"int": 0, "float": 0, "text": "", "bytes": b""}
READ: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: value - (1 << 64) if value >> 63 else value,
    "float": lambda raw: ticks(int.from_bytes(raw, "little")),
    "text": lambda raw: str(raw, "utf-8"),
    "bytes": bytes,
}
# message -> field number -> (name, type, whether it may repeat)
FIELDS = {
    kind: {
        int(n): (name, what, bool(many)) for name, n, what, many in re.findall(r"(\w+)=(\d+):(\w+)(\*?)", row)
    }
    for kind, row in {
        "model": "ir_version=1:int producer=2:bytes release=3:bytes space=4:bytes version=5:int doc=6:bytes"
        " graph=7:graph opset_import=8:opset*",
        "opset": "domain=1:text version=2:int",
        "graph": "node=1:node* title=2:bytes initializer=5:tensor* doc=10:bytes input=11:value*"
        " output=12:value* value_info=13:bytes*",
        "node": "input=1:text* output=2:text* name=3:text op_type=4:text attribute=5:attribute* doc=6:bytes"
        " domain=7:text",
        "attribute": "name=1:text f=2:float i=3:int s=4:bytes g=6:graph floats=7:float* ints=8:int*"
        " strings=9:bytes* type=20:int",
        "tensor": "dims=1:int* data_type=2:int name=8:text raw_data=9:bytes",
        "value": "name=1:text type=2:bytes doc=3:bytes",
        "type": "tensor_type=1:tensor_type",
        "tensor_type": "elem_type=1:int shape=2:shape",
        "shape": "dim=1:dim*",
        "dim": "dim_value=1:int dim_param=2:bytes",
    }.items()
}
