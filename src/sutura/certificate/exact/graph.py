"""An ONNX file as plain data: a protobuf reader that knows the fields of FIELDS and refuses all others."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
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
    """An operator; attributes are (field, value) by name; of a branch (nodes, output, constants)."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, tuple[str, Any]]


class Graph(NamedTuple):
    """The graph as if every If that gives the output took its first branch.

    `makers` are nodes by output; `switches`, by If, its condition and what is handed over where it is false.
    """

    input: str
    sample: Shape
    output: str
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    makers: Mapping[str, Node]
    switches: list[tuple[str, str]]


def message(data: bytes, kind: str, depth: int = 0) -> dict[str, Any]:
    """The fields of a message by name; a part that is not given is 0, empty or None."""
    fields, at, given = FIELDS[kind], 0, set[str]()
    found: dict[str, Any] = {name: [] if many else ABSENT.get(what) for name, what, many in fields.values()}
    while at < len(data):
        tag, at = varint(data, at)
        name, what, many = fields.get(tag >> 3, ("", "", False))
        wire = WIRES.get(what, 2)
        want(name and wire == tag & 7, f"the network file: field {tag >> 3} of a {kind} is not read here")
        want(many or name not in given, f"the network file: {kind}.{name} is given twice")
        value: Any = 4
        if wire != 5:
            value, at = varint(data, at)
        if wire:
            fits = value <= len(data) - at and depth < 20
            want(fits, f"the network file: a {kind} is cut off, or nests too deep")
            value, at = data[at : at + value], at + value
        value = READ[what](value) if what in READ else message(value, what, depth + 1)
        given.add(name)
        if many:
            found[name].append(value)
        else:
            found[name] = value
    return found


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, and the place after it."""
    value = shift = 0
    while True:
        want(at < len(data) and shift < 70, "a file is cut off inside a number")
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            want(value < 1 << 64, "a file holds a number of more than 64 bits")
            return value, at


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


def read_node(m: Mapping[str, Any], nesting: int = 0) -> Node:
    """An operator and its attributes."""
    attributes = {a["name"]: attribute(a, nesting) for a in m["attribute"]}
    want(len(attributes) == len(m["attribute"]), f"{m['op_type']} has an attribute twice")
    return Node(m["op_type"], m["domain"], tuple(m["input"]), tuple(m["output"]), attributes)


def attribute(a: Mapping[str, Any], nesting: int) -> tuple[str, Any]:
    """The field that the type of an attribute names, and its value; nothing else may be given."""
    kind = ATTRIBUTES.get(a["type"], "")
    others = [a[name] for name in ATTRIBUTES.values() if name != kind]
    want(kind and not any(others), f"attribute {a['name']!r} is not of a type read here")
    value = branch(a["g"], nesting) if kind == "g" else a[kind]
    return kind, tuple(value) if len(kind) > 1 else value


def branch(graph: Mapping[str, Any], nesting: int) -> tuple[tuple[Node, ...], str, dict[str, Tensor]]:
    """The nodes, the output and the constants of a branch of If."""
    want(not graph["input"] and len(graph["output"]) == 1, "a branch has inputs, or several outputs")
    want(nesting < 4, "a branch nests too deep")
    nodes = tuple(read_node(part, nesting + 1) for part in graph["node"])
    return nodes, graph["output"][0]["name"], fixed(graph)


def fixed(graph: Mapping[str, Any]) -> dict[str, Tensor]:
    """The constants of a graph."""
    constants = {part["name"]: tensor(part) for part in graph["initializer"]}
    want(len(constants) == len(graph["initializer"]), "a constant is given twice")
    want("" not in constants, "a constant has no name")
    return constants


def read_graph(data: bytes) -> Graph:
    """The graph in the bytes of an ONNX file; every name is defined once, before its use."""
    model = message(data, "model")
    graph, imports = model["graph"], [(part["domain"], part["version"]) for part in model["opset_import"]]
    opsets = {"ai.onnx.ml": 3} | dict(imports)
    known = set(opsets) == {"", "ai.onnx.ml"} and opsets[""] == 17 and opsets["ai.onnx.ml"] in {1, 2, 3}
    domains = {domain for domain, _ in imports}
    want(known and len(domains) == len(imports), "the operator sets are not ai.onnx 17, ai.onnx.ml 3")
    want(4 <= model["ir_version"] <= 10, "the IR version is not 4 to 10")
    constants = fixed(graph)
    (start, kind, (batch, *sample)), (output, result, _) = port(graph["input"]), port(graph["output"])
    want(kind == result == FLOAT and sample, "input and output must be float32 with a batch axis and more")
    sized = batch in {0, 1} and min(sample) > 0 and prod(sample) < 1 << 24
    want(sized and not {start, ""} & set(constants), "the input has no known shape, or is a constant too")
    nodes = tuple(map(read_node, graph["node"]))
    define(nodes, {start, *constants}, set(), domains)
    switches: list[tuple[str, str]] = []
    while (last := makers(nodes).get(output)) is not None and last.op == "If":
        (then, inner, own), (other, _, none) = (
            last.attributes[f"{name}_branch"][1] for name in ("then", "else")
        )
        shapes = [(node.op, node.domain, len(node.inputs), len(node.outputs)) for node in (last, *other)]
        plain = shapes == [("If", "", 1, 1), ("Identity", "", 1, 1)] and len(last.attributes) == 2
        want(plain and not none, "an If does not hand over one value untouched")
        switches.append((last.inputs[0], other[0].inputs[0]))
        at = next(number for number, node in enumerate(nodes) if node is last)
        nodes, output, constants = (*nodes[:at], *then, *nodes[at + 1 :]), inner, constants | own
    return Graph(start, tuple(sample), output, nodes, constants, makers(nodes), switches)


def makers(nodes: Sequence[Node]) -> dict[str, Node]:
    """Which node makes a value."""
    return {name: node for node in nodes for name in node.outputs}


def port(values: Sequence[Mapping[str, Any]]) -> tuple[str, int, Shape]:
    """Name, element type and shape (0 for an axis of any length) of the one input or output."""
    want(len(values) == 1, "the network must have one input and one output")
    kind = message(values[0]["type"], "type")["tensor_type"]
    return values[0]["name"], kind["elem_type"], tuple(axis["dim_value"] for axis in kind["shape"]["dim"])


def define(nodes: Sequence[Node], known: set[str], gone: set[str], domains: set[str]) -> None:
    """No name stands for two values, not even in different branches; none is read before it is defined."""
    for node in nodes:
        want(node.domain in domains, f"{node.op} is of an operator set that is not imported")
        want({*node.inputs} <= known | {""}, f"{node.op} reads what nothing before it defines")
        for part, output, own in (value for kind, value in node.attributes.values() if kind == "g"):
            inner = {name for made in part for name in made.outputs}
            fits = (node.op, node.domain) == ("If", "") and output in inner and not {*own} & (known | gone)
            want(fits, f"{node.op} has a branch that is unfit")
            known |= {*own}
            define(part, known, gone, domains)
            inner |= {*own}
            known -= inner
            gone |= inner
        for name in node.outputs:
            want(name and name not in known | gone, f"{name!r} is defined twice, or has no name")
            known.add(name)


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
