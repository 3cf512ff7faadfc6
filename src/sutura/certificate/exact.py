"""The exact checker of repair certificates: this one file, Python's standard library, whole numbers only.

    python exact.py fixed.onnx prop.vnnlib [...] fixed.cert.json [--sample=K] [--workers=N] [--json]

It re-proves a certificate (docs/certificate.md) for every IEEE 754 binary32 execution of a network: any order
of summation, fused or not, subnormals kept or flushed. Every finite float32 number is a whole number of
ticks of 2^-149, so weights, boxes and thresholds enter exactly. Coefficients of a backward bound are whole
numbers at a power-of-two scale, and what a shift drops is charged to the bound. No floating-point number is
ever made. What has no rule here (Sigmoid and Tanh, for example) is refused where a leaf needs a bound.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
from functools import lru_cache, partial
from itertools import product
from math import lcm, prod
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

Ints = Sequence[int]
Literal = tuple[Any, ...]
Tree = Sequence[tuple[int, int, int, int]]
Shape = tuple[int, ...]


class RefusedError(Exception):
    """What cannot be believed, in one line."""


def want(holds: object, text: str) -> None:
    """Refuses unless something holds."""
    if not holds:
        raise RefusedError(" ".join(text.split())[:400])


# ---- float32 numbers as ticks of 2^-149 --------------------------------------------------------------------


def ticks(bits: int) -> int:
    """The value of a binary32 bit pattern; infinities and not-a-number are refused."""
    exponent, mantissa = bits >> 23 & 255, bits & 0x7FFFFF
    want(exponent < 255, "a file holds a number that is not finite")
    size = mantissa if exponent == 0 else (mantissa | 1 << 23) << exponent - 1
    return -size if bits >> 31 else size


def next_above(t: int) -> int:
    """The next float32 number up."""
    return t + (1 << max(0, (t if t >= 0 else -t - 1).bit_length() - 24))


def round_down(value: Fraction) -> int:
    """The largest float32 number that is not above a rational number."""
    t = (value.numerator << 149) // value.denominator
    shift = max(0, abs(t).bit_length() - 24)
    want(abs(t) <= LARGEST, "a number of the property is beyond the float32 range")
    return t >> shift << shift


def midpoint(low: int, high: int) -> int:
    """float32(float64(low + high) / 2), ties to even, kept below `high`."""

    def rounded(t: int, shift: int) -> int:
        return (t + (1 << shift >> 1) - (shift > 0 and not t >> shift & 1)) >> shift

    shift = max(0, abs(low + high).bit_length() - 53)
    total = rounded(low + high, shift) << shift
    shift = max(1, abs(total).bit_length() - 24)
    middle = rounded(total, shift) << shift - 1
    return low if middle >= high else middle


# ---- the network file: protobuf to plain data --------------------------------------------------------------


class Tensor(NamedTuple):
    """A constant: its ONNX element type, its shape and its numbers (float32 in ticks), row-major."""

    kind: int
    shape: Shape
    values: Shape


class Node(NamedTuple):
    """An operator; attributes are (field, value) by name, the value of a branch being (nodes, output)."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, tuple[str, Any]]


def message(data: bytes, kind: str) -> dict[str, list[Any]]:
    """The fields of a message by name; one that FIELDS does not list, or that stands twice, is refused."""
    found: dict[str, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        name, wire, many = FIELDS[kind].get(tag >> 3, ("", -1, False))
        want(wire == tag & 7, f"the network file: field {tag >> 3} of a {kind} is not one that is read here")
        size = 4
        if wire != 5:
            size, at = varint(data, at)
        value: Any = size
        if wire:
            want(size <= len(data) - at, f"the network file: a {kind} is cut off")
            value, at = data[at : at + size], at + size
        want(many or name not in found, f"the network file: {kind}.{name} is given twice")
        found.setdefault(name, []).append(str(value, "utf-8") if name in NAMES else value)
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


def one(found: Mapping[str, list[Any]], name: str) -> Any:
    """A number, name or part of a message; zero or empty where it is not given."""
    return found.get(name, [0 if name in NUMBERS else "" if name in NAMES else b""])[0]


def signed(value: int) -> int:
    """A protobuf integer as int64."""
    return value - (1 << 64) if value >> 63 else value


def tensor(data: bytes) -> tuple[str, Tensor]:
    """A named constant; its bytes are exactly as many as its type and shape say."""
    m = message(data, "tensor")
    kind, shape, raw = one(m, "data_type"), tuple(map(signed, m.get("dims", ()))), one(m, "raw_data")
    want(
        kind in KINDS and len(shape) <= 8 and min((0, *shape)) == 0, "a tensor is not float32, int64 or bool"
    )
    want(len(raw) == prod(shape) * KINDS[kind][0], "the network file: a tensor has the wrong size")
    values = struct.unpack(f"<{prod(shape)}{KINDS[kind][1]}", raw)
    want(kind != BOOL or max(values, default=0) <= 1, "the network file: a truth value is not 0 or 1")
    return one(m, "name"), Tensor(kind, shape, tuple(map(ticks, values)) if kind == FLOAT else values)


def read_node(data: bytes, nesting: int = 0) -> Node:
    """An operator and its attributes."""
    m, attributes = message(data, "node"), dict[str, tuple[str, Any]]()
    for entry in (message(part, "attribute") for part in m.get("attribute", ())):
        name, kind = one(entry, "name"), ATTRIBUTES.get(one(entry, "type"), "")
        values = entry.get(kind, [])
        want(kind and set(entry) <= {"name", "type", kind}, f"attribute {name!r} is not of a type read here")
        want(
            name not in attributes and (len(kind) > 1 or len(values) == 1), f"attribute {name!r} is malformed"
        )
        plain = [branch(v, nesting) if kind == "g" else SCALARS[kind[0]](v) for v in values]
        attributes[name] = kind, tuple(plain) if len(kind) > 1 else plain[0]
    inputs, outputs = (tuple(str(part, "utf-8") for part in m.get(key, ())) for key in ("input", "output"))
    return Node(one(m, "op_type"), one(m, "domain"), inputs, outputs, attributes)


def branch(data: bytes, nesting: int) -> tuple[tuple[Node, ...], str]:
    """The nodes and the output of a branch of If."""
    graph = message(data, "graph")
    plain = not {"initializer", "input"} & set(graph) and len(graph.get("output", ())) == 1
    want(plain and nesting < 4, "a branch has inputs or constants, or nests too deep")
    nodes = tuple(read_node(part, nesting + 1) for part in graph.get("node", ()))
    return nodes, one(message(graph["output"][0], "value"), "name")


# ---- the graph: every name defined once, before its use ----------------------------------------------------


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


def read_graph(data: bytes) -> Graph:
    """The graph in the bytes of an ONNX file."""
    model = message(data, "model")
    graph = message(one(model, "graph"), "graph")
    imports = [message(part, "opset") for part in model.get("opset_import", ())]
    opsets = {one(entry, "domain"): one(entry, "version") for entry in imports}
    ml = opsets.get("ai.onnx.ml", 3)
    known = len(opsets) == len(imports) and {*opsets, "ai.onnx.ml"} == {"", "ai.onnx.ml"}
    want(known and opsets[""] == 17 and ml in {1, 2, 3}, "the operator sets are not ai.onnx 17, ai.onnx.ml 3")
    want(4 <= one(model, "ir_version") <= 10, "the IR version is not 4 to 10")
    named = [tensor(part) for part in graph.get("initializer", ())]
    constants = dict(named)
    want(len(constants) == len(named) and "" not in constants, "a constant has no name, or is given twice")
    (start, kind, (batch, *sample)), (output, result, _) = (port(graph, key) for key in ("input", "output"))
    want(kind == result == FLOAT and sample, "input and output must be float32 with a batch axis and more")
    want(batch < 2 and min(sample) > 0 and prod(sample) < 1 << 24, "the input has no known shape")
    want(start not in constants, "the input is a constant too")
    nodes = tuple(read_node(part) for part in graph.get("node", ()))
    define(nodes, {start, *constants}, set(), set(opsets))
    switches: list[tuple[str, str]] = []
    while (last := makers(nodes).get(output)) is not None and last.op == "If":
        want(set(last.attributes) == {"then_branch", "else_branch"}, "an If does not have two branches")
        (then, inner), (other, _) = last.attributes["then_branch"][1], last.attributes["else_branch"][1]
        shapes = [(node.op, node.domain, len(node.inputs), len(node.outputs)) for node in (last, *other)]
        want(
            shapes == [("If", "", 1, 1), ("Identity", "", 1, 1)],
            "an If does not hand over one value untouched",
        )
        switches.append((last.inputs[0], other[0].inputs[0]))
        at = next(number for number, node in enumerate(nodes) if node is last)
        nodes, output = (*nodes[:at], *then, *nodes[at + 1 :]), inner
    return Graph(start, tuple(sample), output, nodes, constants, makers(nodes), switches)


def makers(nodes: Sequence[Node]) -> dict[str, Node]:
    """Which node makes a value."""
    return {name: node for node in nodes for name in node.outputs}


def port(graph: Mapping[str, list[Any]], key: str) -> tuple[str, int, Shape]:
    """Name, element type and shape (0 for an axis of any length) of the one input or output."""
    want(len(graph.get(key, ())) == 1, f"the network must have one {key}")
    value = message(graph[key][0], "value")
    kind = message(one(message(one(value, "type"), "type"), "tensor_type"), "tensor_type")
    dims = message(one(kind, "shape"), "shape").get("dim", ())
    return (
        one(value, "name"),
        one(kind, "elem_type"),
        tuple(one(message(d, "dim"), "dim_value") for d in dims),
    )


def define(nodes: Sequence[Node], known: set[str], gone: set[str], domains: set[str]) -> None:
    """No name stands for two values, not even in different branches; none is read before it is defined."""
    for node in nodes:
        want(node.domain in domains, f"{node.op} is of an operator set that is not imported")
        want({*node.inputs} <= known | {""}, f"{node.op} reads what nothing before it defines")
        for _, value in (entry for entry in node.attributes.values() if entry[0] == "g"):
            inner = {name for part in value[0] for name in part.outputs}
            want(
                (node.op, node.domain) == ("If", "") and value[1] in inner,
                f"{node.op} has a branch that is unfit",
            )
            define(value[0], known, gone, domains)
            known -= inner
            gone |= inner
        for name in node.outputs:
            want(name and name not in known | gone, f"{name!r} is defined twice, or has no name")
            known.add(name)


# ---- gates: which row serves an input, and what a row asks of the output -----------------------------------


class Gates(NamedTuple):
    """`tree` lists (dimension or -1, threshold, left or number of the leaf, right): here rows are numbers.

    With an output gate: the trees and columns of its guard, its clauses, and by row which are active and the
    constant. Literals are ("order", i, j, strict) for z[i] > z[j], ("Greater" or "Less", i, t) for z[i], t.
    """

    raw: str
    row: str
    rows: int
    tree: Tree
    guard: Sequence[Tree] = ()
    columns: Sequence[Ints] = ()
    knows_row: bool = False
    clauses: Sequence[Sequence[Literal]] = ()
    active: Sequence[Ints] = ()
    constant: Sequence[Ints] = ()


def match(g: Graph, value: str, pattern: Any, found: dict[str, str]) -> bool:
    """Whether a value is made as a pattern says: (operator, inputs..., attributes), or a name for `found`.

    A name that is found already must stand for the same value.
    """
    if isinstance(pattern, str):
        return found.setdefault(pattern, value) == value
    op, *inputs, asked = pattern if isinstance(pattern[-1], dict) else (*pattern, {})
    node = g.makers.get(value, Node("", "", (), (), {}))
    usual = DEFAULTS.get(op, {})
    fits = (node.op, node.domain, node.outputs, len(node.inputs)) == (op, "", (value,), len(inputs))
    fits = fits and usual | dict(node.attributes) == usual | asked
    return fits and all(match(g, name, part, found) for name, part in zip(node.inputs, inputs, strict=True))


def must(g: Graph, value: str, pattern: Any, found: dict[str, str]) -> dict[str, str]:
    """What `match` finds; refused where it does not match."""
    want(match(g, value, pattern, found), f"{value!r} is not made by {pattern[0]} as the template has it")
    return found


def constant(g: Graph, name: str, kind: int, *shape: int | None) -> Tensor:
    """A constant of this type and shape (None: any size)."""
    found = g.constants.get(name, Tensor(0, (), ()))
    fits = found.kind == kind and len(found.shape) == len(shape)
    fits = fits and all(a in {None, b} for a, b in zip(shape, found.shape, strict=True))
    want(fits, f"{name!r} is no constant of the type and shape that it must have")
    return found


def read_gates(g: Graph) -> Gates:
    """The gates of a network; refused where they are not exactly of the template."""
    trees = [node for node in g.nodes if node.op == "TreeEnsembleRegressor"]
    if not trees:
        ours = any(name.startswith("sutura.") for name in (*g.makers, *g.constants))
        want(not ours and not g.switches, "the network has gates but no dispatch tree")
        return Gates(g.output, "", 1, ((-1, 0, 0, 0),))
    want(
        all(len(node.inputs) == len(node.outputs) == 1 for node in trees), "a tree reads more than one value"
    )
    reads = [node for node in trees if reads_input(g, node.inputs[0])]
    want(
        len(reads) == 1 and len(trees) == 1 + len(g.switches) <= 2,
        "there must be one dispatch tree and one gate",
    )
    leaf = reads[0].outputs[0]
    casts = [
        v
        for v in g.makers
        if match(g, v, ROW, found := {"leaf": leaf}) and is_whole(g, found["shape"], 1, -1)
    ]
    row = casts[0] if len(casts) == 1 else ""
    if g.switches:
        gates = output_gate(g, leaf, row)
    else:
        tables = [n.inputs[0] for n in g.nodes if n.op == "Gather" and n.inputs[1:] == (row,)]
        want(tables and "sutura.constant" not in g.constants, "the output bypasses its gate")
        gates = Gates(g.output, row, (*g.constants[tables[0]].shape, 0)[0], ())
    (tree,) = read_trees(reads[0], prod(g.sample), gates.rows)
    return gates._replace(tree=tree)


def reads_input(g: Graph, value: str) -> bool:
    """Whether a value is the input of the network, as one axis."""
    return match(g, value, ("Flatten", "x", AXIS1), {"x": g.input}) or (
        value == g.input and len(g.sample) == 1
    )


def is_whole(g: Graph, name: str, axes: int, number: int) -> bool:
    """Whether a constant is this one int64 number, with so many axes."""
    return g.constants.get(name) == Tensor(INT64, (1,) * axes, (number,))


def output_gate(g: Graph, leaf: str, row: str) -> Gates:
    """If(some row x guard is not 0; ScatterND(raw, where it is not, sealed), raw).

    `sealed` is Where(test(z), z, Where(test(z'), z', ... constants)), of each sample that is mended: what it
    delivers passed the test, or is the constant of its row.
    """
    ((condition, raw),) = g.switches
    found = must(g, condition, SOME_FAIL, {"leaf": leaf})
    found = must(
        g, g.output, ("ScatterND", "raw", ("Unsqueeze", "place", "one"), "sealed"), found | {"raw": raw}
    )
    must(g, found["place"], ("Gather", ("NonZero", ("Mul", "leaf", "guard")), "zero"), found)
    half = g.constants.get(found["half"])
    want(
        half in {Tensor(FLOAT, (), (ONE >> 1,)), Tensor(FLOAT, (1,), (ONE >> 1,))},
        "a test compares not with 0.5",
    )
    want(
        is_whole(g, found["one"], 1, 1) and is_whole(g, found["zero"], 0, 0),
        "samples are not mended in place",
    )
    final, candidates = found["sealed"], list[dict[str, str]]()
    while any(match(g, final, ("Where", test, "z", "rest"), now := dict(found)) for test in TESTS):
        candidates, final = [*candidates, now], now["rest"]
    want(0 < len(candidates) <= 8, "the output gate has no candidates, or more than 8")
    clauses, table = read_clauses(g, candidates[0]), candidates[0].get("inactive", "")
    same = all((read_clauses(g, c), c.get("inactive", "")) == (clauses, table) for c in candidates)
    rows_used = {c.get("mended", "") for c in candidates}
    want(same and len(rows_used) == 1, "candidates are not put to the same test")
    if table:
        found = must(g, final, ("Gather", "constants", "mended"), found | {"mended": rows_used.pop()})
        must(g, found["mended"], MENDED_ROW, found)
        final = found["constants"]
    values = constant(g, final, FLOAT, None, None)
    rows, width = values.shape if table else (2, values.shape[1])
    lines = [values.values[r * width : (r + 1) * width] for r in range(values.shape[0])]
    off = constant(g, table, FLOAT, rows, len(clauses)).values if table else (ONE, 0)
    want(
        {*off} <= {0, ONE} and (table or len(lines) == 1), "the table of inactive clauses holds other numbers"
    )
    read = [i for clause in clauses for x in clause for i in x[1 : 3 if x[0] == "order" else 2]]
    want(max(read, default=0) < width, "a literal reads beyond the outputs")
    each = len(clauses) if table else 1
    active = [
        [k for k in range(len(clauses)) if not off[r * each + (k if table else 0)]] for r in range(rows)
    ]
    want(not active[0], "row 0, whose samples are never mended, has active clauses")
    guard, columns, knows_row = read_guard(g, found, width)
    by_row = lines if table else [[0] * width, *lines]
    return Gates(raw, row, rows, (), guard, columns, knows_row, clauses, active, by_row)


def read_guard(g: Graph, found: Mapping[str, str], width: int) -> tuple[Sequence[Tree], list[Ints], bool]:
    """The trees over MatMul(raw, columns), or Concat(row, MatMul(raw, columns)), whose sum is the guard."""
    compare = ("MatMul", "raw", "columns")
    known, node = dict(found), g.makers[found["guard"]]
    knows_row = match(g, node.inputs[0], ("Concat", "leaf", compare, AXIS1), known)
    want(
        knows_row or match(g, node.inputs[0], compare, known := dict(found)), "the guard reads something else"
    )
    table = constant(g, known["columns"], FLOAT, width, None)
    count = table.shape[1]
    want((node.op, node.domain) == ("TreeEnsembleRegressor", "ai.onnx.ml") and count, "the guard is no tree")
    columns: list[Ints] = [table.values[k::count] for k in range(count)]
    return read_trees(node, count + knows_row, 1 << 24), columns, knows_row


def read_trees(node: Node, features: int, rows: int) -> Sequence[Tree]:
    """The trees of a TreeEnsembleRegressor: x goes left where x[dimension] <= threshold, to a number."""
    a = {name: value for name, (_, value) in node.attributes.items()}
    fixed = {"n_targets": 1, "aggregate_function": b"SUM", "post_transform": b"NONE"}
    lists = [a.pop(f"nodes_{name}", ()) for name in ("treeids", "nodeids", "modes", *NODE_LISTS)]
    targets = [
        *zip(*(a.pop(f"target_{name}", ()) for name in ("treeids", "nodeids", "ids", "weights")), strict=True)
    ]
    want(a == fixed and lists[0], "a tree has other attributes than the template")
    weights = {(tree, at): weight for tree, at, target, weight in targets if target == 0}
    want(len(weights) == len(targets), "a tree has weights that are not one a leaf")
    found: list[list[tuple[int, int, int, int]]] = []
    children: list[list[int]] = []
    for tree, at, mode, dim, cut, left, right in zip(*lists, strict=True):
        if tree == len(found):
            found.append([])
            children.append([0])
        want(tree == len(found) - 1 and at == len(found[-1]), "a tree has its nodes out of order")
        if mode == b"LEAF":
            number, rest = divmod(weights.pop((tree, at), -1), ONE)
            want(
                rest == 0 and 0 <= number < min(rows, 1 << 24), "a leaf of a tree holds no number that it may"
            )
            found[-1].append((-1, 0, number, 0))
        else:
            sound = mode == b"BRANCH_LEQ" and 0 <= dim < features and at < min(left, right)
            want(sound, f"node {at} of a tree is malformed")
            found[-1].append((dim, cut, left, right))
            children[-1] += [left, right]
    whole = all(sorted(part) == [*range(len(tree))] for part, tree in zip(children, found, strict=True))
    want(not weights and whole, "a tree is no single tree")
    return found


def reached(gates: Gates, lower: Ints, upper: Ints) -> list[int]:
    """The rows that points of a closed box can reach."""
    found, waiting = set[int](), [0]
    while waiting:
        dim, cut, left, right = gates.tree[waiting.pop()]
        if dim < 0:
            found.add(left)
        else:
            waiting += [left] * (lower[dim] <= cut) + [right] * (upper[dim] > cut)
    return sorted(found)


def read_clauses(g: Graph, found: Mapping[str, str]) -> list[list[Literal]]:
    """The clauses of a test, each a list of literals of which one must be true."""
    joined = found["literals"]
    blocks = g.makers[joined].inputs if joined in g.makers else ()
    if not match(g, joined, ("Concat", *blocks, AXIS1), {}):
        blocks = (joined,)
    literals = [literal for block in blocks for literal in read_literals(g, block, found["z"])]
    members = constant(g, found["clauses"], FLOAT, len(literals), None)
    width = members.shape[1]
    want(width and {*members.values} <= {0, ONE}, "the table of clauses holds other numbers than 0 and 1")
    columns = (zip(literals, members.values[k::width], strict=True) for k in range(width))
    return [[literal for literal, used in column if used] for column in columns]


def read_literals(g: Graph, block: str, z: str) -> list[Literal]:
    """The literals of a block: comparisons of entries of z with each other, or with constants."""
    op, taken = g.makers[block].op if block in g.makers else "", ("Gather", "z", "i", AXIS1)
    pair, other = {"z": z}, ("Gather", "z", "j", AXIS1)
    if op in {"Greater", "GreaterOrEqual"} and match(g, block, (op, taken, other), pair):
        i, j = (constant(g, pair[key], INT64, None).values for key in "ij")
        want(min(*i, *j) >= 0, "a literal reads from the end")
        return [("order", *indices, op == "Greater") for indices in zip(i, j, strict=True)]
    want(op in {"Greater", "Less"}, f"{block!r} holds literals that have no rule in the exact checker")
    found = must(g, block, (op, taken, "t"), {"z": z})
    i = constant(g, found["i"], INT64, None).values
    want(min(i) >= 0, "a literal reads from the end")
    return [(op, *entry) for entry in zip(i, constant(g, found["t"], FLOAT, len(i)).values, strict=True)]


def settled_by_gate(gates: Gates, row: int, unsafe: Sequence[Sequence[Inequality]]) -> bool:
    """Whether a row's gate makes its outputs safe, rather than the network; refused where neither can."""
    active = [gates.clauses[k] for k in gates.active[row]] if gates.active else []
    ways = [[*passing(gates, tree, row)] for tree in gates.guard] if active else []
    for conjunction in unsafe if active else ():

        def excluded(literals: Sequence[Literal], by: Sequence[Inequality] = conjunction) -> bool:
            return any(contradicts(literal, inequality) for literal in literals for inequality in by)

        safe = any(clause and all(excluded([literal]) for literal in clause) for clause in active)
        want(safe, f"row {row}: no active clause excludes an unsafe conjunction")
        guarded = any(all(excluded(literals) for literals in known) for known in ways)
        want(guarded, f"row {row}: the guard lets an unsafe conjunction through")
        held = all(satisfies(gates.constant[row], inequality) for inequality in conjunction)
        want(not held, f"row {row}: its constant output is unsafe")
    return bool(active)


def passing(gates: Gates, tree: Tree, row: int) -> Iterator[list[Literal]]:
    """What is known of outputs on each way through a tree of the guard that ends in 0, which lets them pass.

    y . column <= t is exact where the column takes one number, or the difference of two, but for flushing;
    that it is not so teaches nothing, as a number that is not finite makes it so.
    """
    waiting: list[tuple[int, list[Literal]]] = [(0, [])]
    while waiting:
        at, known = waiting.pop()
        dim, cut, left, right = tree[at]
        if dim < 0 and left == 0:
            yield known
        elif gates.knows_row and dim == 0:
            waiting.append((left if row * ONE <= cut else right, known))
        elif dim >= 0:
            column = gates.columns[dim - gates.knows_row]
            waiting += [(left, known + learned(column, cut)), (right, known)]


def learned(column: Ints, cut: int) -> list[Literal]:
    """What y . column <= cut says of y in every execution; nothing where arithmetic might blur it."""
    used = sorted((sign, i) for i, sign in enumerate(column) if sign)
    signs = [sign for sign, _ in used]
    if signs == [-ONE, ONE] and cut <= -NORMAL:
        return [("order", used[0][1], used[1][1], True)]
    if len(signs) != 1 or abs(signs[0]) != ONE or abs(cut) < NORMAL:
        return []
    up = signs[0] > 0
    return [("Less" if up else "Greater", used[0][1], next_above(cut) if up else -next_above(cut))]


def satisfies(outputs: Ints, inequality: Inequality) -> bool:
    """Whether outputs in ticks satisfy an unsafe inequality."""
    terms, bound, strict = inequality
    total = sum((factor * outputs[index] for index, factor in terms), Fraction(0))
    return total < bound * ONE if strict else total <= bound * ONE


def contradicts(literal: tuple[Any, ...], inequality: Inequality) -> bool:
    """Whether every float32 vector for which the literal is true makes the inequality false."""
    (terms, bound, strict), (kind, i, *rest) = inequality, literal
    factors = dict(terms)
    if kind == "order":
        pair = len(terms) == 2 and factors.get(i, 0) > 0 and factors[i] == -factors.get(rest[0], 0)
        return pair and (bound <= 0 if strict or rest[1] else bound < 0)
    sign = 1 if kind == "Greater" else -1
    extreme = sign * next_above(sign * rest[0])  # the first number that the literal lets through
    if set(factors) != {i} or factors[i] * sign < 0:
        return False
    total = factors[i] * extreme
    return abs(extreme) > LARGEST or total > bound * ONE or (strict and total == bound * ONE)


# ---- properties: VNN-LIB 1.0 in exact rationals ------------------------------------------------------------

Inequality = tuple[tuple[tuple[int, Fraction], ...], Fraction, bool]  # sum of c Y_i <= bound, or < where True


class Case(NamedTuple):
    """A box of inputs in ticks, and the conjunctions of inequalities that are unsafe in it."""

    lower: Ints
    upper: Ints
    unsafe: Sequence[Sequence[Inequality]]


def read_property(data: bytes) -> tuple[int, int, list[Case]]:
    """Numbers of inputs and outputs, and the cases."""
    counts, choices = {"X": 0, "Y": 0}, list[list[tuple[Any, ...]]]()
    for word, *rest in parse(str(data, "utf-8")):
        if word in {"declare-const", "declare-fun"}:
            name = VARIABLE.fullmatch(rest[0]) or ["", "X", "-1"]
            want(int(name[2]) == counts[name[1]], f"{rest[0]!r} is no variable, or declared out of order")
            counts[name[1]] += 1
        elif word == "assert" and len(rest) == 1:
            choices.append(disjuncts(rest[0], counts))
        else:
            want(word in {"set-logic", "set-info", "check-sat"}, f"unknown command {word!r}")
    want(min(counts.values()) > 0, "the property declares no input or no output")
    boxes: dict[Any, list[list[Inequality]]] = {}
    for conjunction in multiplied(choices):
        bounds = tuple(atom for kind, atom in conjunction if kind == "X")
        boxes.setdefault(bounds, []).append([atom for kind, atom in conjunction if kind == "Y"])
    cases = [case for bounds, unsafe in boxes.items() for case in cases_of(counts["X"], bounds, unsafe)]
    want(cases, "every input box of the property is empty")
    return counts["X"], counts["Y"], cases


def parse(source: str) -> Iterator[list[Any]]:
    """The top-level lists of the text."""
    stack: list[list[Any]] = [[]]
    for word in TOKEN.findall(source):
        if word == "(":
            stack.append([])
            want(len(stack) <= 64, "the property nests too deep")
        elif word[0] != ";":
            want(len(stack) > 1, f"{word!r} stands outside of parentheses")
            done: Any = stack.pop() if word == ")" else word
            stack[-1].append(done)
    want(len(stack) == 1, "a parenthesis of the property is never closed")
    return iter(stack[0])


def disjuncts(formula: Any, counts: Mapping[str, int]) -> list[tuple[Any, ...]]:
    """A formula as an OR of ANDs of ("X" or "Y", inequality)."""
    word, *parts = formula
    if word in {"and", "or"} and parts:
        options = [disjuncts(part, counts) for part in parts]
        return multiplied(options) if word == "and" else [one for option in options for one in option]
    want(word in {"<=", ">=", "<", ">"} and len(parts) == 2, f"{word!r} is no formula known here")
    left, right = (linear(part, counts) for part in (parts if word[0] == "<" else parts[::-1]))
    total = plus(left, right, -1)
    bound = -total.pop(("", 0), Fraction(0))
    terms = sorted((key, factor) for key, factor in total.items() if factor)
    kinds = [kind for (kind, _), _ in terms]
    want(kinds == ["X"] or {*kinds} == {"Y"}, "an inequality must bound one input, or outputs")
    return [((kinds[0], (tuple((index, factor) for (_, index), factor in terms), bound, len(word) == 1)),)]


def multiplied(choices: Sequence[Sequence[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """An AND of ORs of ANDs, multiplied out."""
    want(
        prod(map(len, choices)) <= 100_000, "the property has more than 100,000 disjuncts when multiplied out"
    )
    found: list[tuple[Any, ...]] = [()]
    for options in choices:
        found = [left + right for left in found for right in options]
    return found


def linear(term: Any, counts: Mapping[str, int]) -> dict[tuple[str, int], Fraction]:
    """A linear term as coefficients of variables, and of ("", 0) for the constant."""
    if isinstance(term, str):
        name = VARIABLE.fullmatch(term)
        want(
            NUMBER.fullmatch(term) or (name and int(name[2]) < counts[name[1]]),
            f"{term!r} is no number or variable",
        )
        return {(name[1], int(name[2])): Fraction(1)} if name else {("", 0): Fraction(term)}
    word, *parts = (term[0], *(linear(part, counts) for part in term[1:]))
    want(word in {"+", "-", "*"} and parts, f"{word!r} makes no linear term")
    total = parts[0] if len(parts) > 1 or word != "-" else plus({}, parts[0], -1)
    for part in parts[1:]:
        scalar = part if set(part) == {("", 0)} else total
        want(word != "*" or set(scalar) == {("", 0)}, "the property multiplies variables")
        if word == "*":
            total = plus({}, total if scalar is part else part, scalar["", 0])
        else:
            total = plus(total, part, 1 if word == "+" else -1)
    return total


def plus(a: Mapping[Any, Fraction], b: Mapping[Any, Fraction], factor: Fraction | int) -> dict[Any, Fraction]:
    """a + factor b."""
    return {**a, **{key: a.get(key, Fraction(0)) + factor * value for key, value in b.items()}}


def cases_of(inputs: int, bounds: Sequence[Inequality], unsafe: list[list[Inequality]]) -> list[Case]:
    """The box that bounds leave, rounded outward to float32; none where it holds no point at all."""
    sides: list[list[list[Fraction]]] = [[[], []] for _ in range(inputs)]
    for ((index, factor),), bound, _ in bounds:
        sides[index][factor > 0].append(bound / factor)
    want(all(low and high for low, high in sides), "an input has no bound on one side")
    if any(max(low) > min(high) for low, high in sides):
        return []
    lower, upper = ([max(low) for low, _ in sides], [min(high) for _, high in sides])
    return [Case([round_down(v) for v in lower], [-round_down(-v) for v in upper], unsafe)]


# ---- the network as layers ---------------------------------------------------------------------------------


class Linear(NamedTuple):
    """y = 2^-q W x + bias (ticks) over the sources joined, each term rounded `roundings` times at most.

    A row is (the inputs that count, or None for all; their weights). With 0 roundings a runtime may fold the
    layer into the sums before it. `packed` holds each whole row as one number, `limb` bytes a weight.
    """

    sources: Shape
    rows: Sequence[tuple[Shape | None, Ints]]
    q: int
    bias: Ints
    roundings: int
    packed: Ints
    limb: int


class Bend(NamedTuple):
    """y = f(x), elementwise: f is monotone, and linear with one of the `slopes` (2^-32) between `kinks`.

    `leak`: f rounds. By row of the gates, `pins` hold entries at a value where that is not None.
    """

    sources: Shape
    f: Callable[[int], int]
    kinks: Ints
    slopes: Ints
    leak: bool = False
    pins: Sequence[Sequence[int | None]] = ()


class Draft(NamedTuple):
    """A network under construction: values 0 (the input) and on; `values` maps names to (number, shape)."""

    g: Graph
    gates: Gates
    reads: Sequence[str]
    values: dict[str, tuple[int, Shape]]
    layers: list[Linear | Bend]

    def define(self, node: Node, layer: Linear | Bend, shape: Shape) -> None:
        """Appends a layer whose result is what the node makes."""
        self.layers.append(layer)
        self.values[node.outputs[0]] = len(self.layers), shape

    def operand(self, node: Node, at: int) -> Tensor:
        """A float32 constant that a node reads."""
        found = self.g.constants.get(node.inputs[at], Tensor(0, (), ()))
        want(found.kind == FLOAT, f"operand {at} of {node.op} is no float32 constant")
        return found


def compile_network(g: Graph, gates: Gates) -> tuple[Sequence[Linear | Bend], int]:
    """The layers and the value that holds the raw output; refused where a node has no rule."""
    wanted, needed = {gates.raw}, list[Node]()
    for node in reversed(g.nodes):
        if not wanted.isdisjoint(node.outputs):
            needed.append(node)
            wanted.update(node.inputs[2:] if node.op == "Where" else node.inputs)
    reads = [name for node in needed for name in node.inputs] + [gates.raw]
    draft = Draft(g, gates, reads, {g.input: (0, g.sample)}, [])
    for node in reversed(needed):
        want(
            node.op in RULES and not node.domain,
            f"{node.op} has no rule in the exact checker, but a leaf needs one",
        )
        RULES[node.op](draft, node)
    return draft.layers, draft.values[gates.raw][0]


def linear_layer(
    sources: Shape, rows: Sequence[tuple[Shape | None, Ints]], bias: Ints, roundings: int
) -> Linear:
    """A linear layer of weights in ticks, brought to their smallest common scale."""
    joined = 0
    for _, weights in rows:
        for weight in weights:
            joined |= weight
    q = max(0, (joined & -joined).bit_length() - 1)
    found = [(index, tuple(v >> q for v in weights)) for index, weights in rows]
    largest = max((abs(v) for _, weights in found for v in weights), default=0)
    limb = (COEFFICIENT + largest.bit_length() + len(rows).bit_length() + 9) // 8
    whole = all(index is None for index, _ in found)
    packed = (
        [sum(v << 8 * limb * at for at, v in enumerate(weights)) for _, weights in found] if whole else []
    )
    return Linear(sources, found, 149 - q, bias, roundings, packed, limb)


def settings(node: Node, **defaults: tuple[str, Any]) -> list[Any]:
    """The attributes of a node in the order of the defaults; any other is refused."""
    found = defaults | dict(node.attributes)
    same = len(found) == len(defaults) and all(found[key][0] == kind for key, (kind, _) in defaults.items())
    want(same, f"{node.op} has an attribute that has no rule here")
    return [found[key][1] for key in defaults]


def on_matmul(draft: Draft, node: Node) -> None:
    """MatMul(x, W), and Gemm(x, W, b) with W transposed or not."""
    (source, shape), weight = draft.values[node.inputs[0]], draft.operand(node, 1)
    *rest, turned = (
        settings(node, **DEFAULTS["Gemm"]) if node.op == "Gemm" else (*settings(node), ONE, ONE, 0, 0)
    )
    want(
        rest == [ONE, ONE, 0] and len(shape) == 1 and len(weight.shape) == 2,
        f"{node.op} has a form without a rule",
    )
    n, outputs = weight.shape[::-1] if turned else weight.shape
    want(n == shape[0], f"{node.op} has a weight of {n} rows for {shape[0]} inputs")
    v = weight.values
    rows = [(None, v[i * n : (i + 1) * n] if turned else v[i::outputs]) for i in range(outputs)]
    bias = spread(draft.operand(node, 2), (outputs,)) if len(node.inputs) > 2 else [0] * outputs
    draft.define(node, linear_layer((source,), rows, bias, n + 1), (outputs,))


def on_convolution(draft: Draft, node: Node) -> None:
    """Conv of one group with explicit padding, as a sparse matrix."""
    (source, shape), weight = draft.values[node.inputs[0]], draft.operand(node, 1)
    outputs, *kernel = weight.shape
    ones = (1,) * (len(shape) - 1)
    usual = {
        "auto_pad": ("s", b"NOTSET"),
        "group": ("i", 1),
        "strides": ("ints", ones),
        "dilations": ("ints", ones),
    }
    usual |= {"pads": ("ints", (0,) * 2 * len(ones)), "kernel_shape": ("ints", tuple(kernel[1:]))}
    auto, group, strides, steps, pads, size = settings(node, **usual)
    want(
        (auto, group, size) == (b"NOTSET", 1, tuple(kernel[1:])) and kernel[0] == shape[0],
        "Conv is not plain",
    )
    want(
        min(*pads, *strides, *steps, 0) == 0 and len(pads) == 2 * len(ones), "Conv has windows that are unfit"
    )
    first = pads[: len(ones)]
    axes = list(zip(shape[1:], kernel[1:], strides, steps, first, pads[len(ones) :], strict=True))
    space = [(n + b + e - (k - 1) * d - 1) // s + 1 for n, k, s, d, b, e in axes]
    want(min(space) > 0 and prod((outputs, *space, *kernel)) <= 1 << 23, "Conv is too large for this checker")
    rows: list[tuple[Shape | None, Ints]] = []
    for o, place in product(range(outputs), product(*map(range, space))):
        taps: dict[int, int] = {}
        for number, (flat, *tap) in enumerate(product(*map(range, kernel))):
            at = [p * s - b + t * d for p, t, (_, _, s, d, b, _) in zip(place, tap, axes, strict=True)]
            if all(0 <= x < n for x, n in zip(at, shape[1:], strict=True)):
                for x, n in zip(at, shape[1:], strict=True):
                    flat = flat * n + x
                taps[flat] = weight.values[o * prod(kernel) + number]
        rows.append((tuple(taps), tuple(taps.values())))
    values = spread(draft.operand(node, 2), (outputs,)) if len(node.inputs) > 2 else [0] * outputs
    bias = [b for b in values for _ in range(prod(space))]
    draft.define(node, linear_layer((source,), rows, bias, prod(kernel) + 1), (outputs, *space))


def spread(value: Tensor, shape: Shape) -> Ints:
    """A constant stretched to a sample shape."""
    full, sizes = (1, *shape), (1,) * (len(shape) + 1 - len(value.shape)) + value.shape
    fits = len(sizes) == len(full) and all(a in {1, b} for a, b in zip(sizes, full, strict=True))
    want(fits, f"a constant of shape {value.shape} does not fit a value of shape {shape}")
    places = [0]
    for size, many in zip(sizes, full, strict=True):
        places = [at * size + (i if size > 1 else 0) for at in places for i in range(many)]
    return [value.values[at] for at in places]


def on_arithmetic(draft: Draft, node: Node) -> None:
    """Add, Sub and Mul with a constant; Add and Sub of two values. A bias joins the product before it."""
    want(len(node.inputs) == 2 and not node.attributes, f"{node.op} is not that of two values")
    fixed = [name in draft.g.constants for name in node.inputs]
    at, sign = int(fixed[1]), -1 if node.op == "Sub" else 1
    source, shape = draft.values[node.inputs[1 - at if any(fixed) else 0]]
    size = prod(shape)
    if not any(fixed):
        right, other = draft.values[node.inputs[1]]
        want(shape == other and node.op != "Mul", f"{node.op} of two values has no rule here")
        pairs = [((i, i + size), (ONE, sign * ONE)) for i in range(size)]
        draft.define(node, linear_layer((source, right), pairs, [0] * size, 0), shape)
        return
    value = spread(draft.operand(node, at), shape)
    factor = value if node.op == "Mul" else [ONE if at else sign * ONE] * size
    shift = [0] * size if node.op == "Mul" else [sign * v if at else v for v in value]
    last = draft.layers[-1] if source == len(draft.layers) > 0 else None
    alone = draft.reads.count(node.inputs[1 - at]) == 1 and {*factor} == {ONE}
    if isinstance(last, Linear) and alone and last.roundings and not any(last.bias):
        draft.layers.pop()
        draft.define(node, last._replace(bias=shift), shape)
    else:
        draft.define(
            node, linear_layer((source,), [((i,), (v,)) for i, v in enumerate(factor)], shift, 0), shape
        )


def on_shape(draft: Draft, node: Node) -> None:
    """Flatten, and Reshape that keeps the batch axis: another shape of the same value."""
    number, shape = draft.values[node.inputs[0]]
    batch, target = 0, [prod(shape)]
    if node.op == "Flatten":
        want(settings(node, axis=("i", 1)) == [1], "Flatten joins the batch axis too")
    else:
        want(settings(node, allowzero=("i", 0)) == [0], "Reshape is not plain")
        batch, *target = constant(draft.g, node.inputs[1], INT64, None).values
        target = [shape[i] if size == 0 else size for i, size in enumerate(target)]
    if target.count(-1) == 1:
        target[target.index(-1)] = prod(shape) // max(1, -prod(target))
    want(batch in {-1, 0, 1} and min(target) > 0 and prod(target) == prod(shape), "Reshape does not fit")
    draft.values[node.outputs[0]] = number, tuple(target)


def on_bend(draft: Draft, node: Node) -> None:
    """Relu, LeakyRelu and Clip."""
    source, shape = draft.values[node.inputs[0]]
    if node.op == "LeakyRelu":
        (slope,) = settings(node, alpha=("f", ticks(0x3C23D70A)))
        want(0 <= slope <= ONE, "LeakyRelu has a slope that has no rule here")
        bend = Bend((source,), leaky(slope), (0,), (slope >> 117, 1 << 32), True)
    else:
        want(not node.attributes and len(node.inputs) <= 3, f"{node.op} has a form without a rule")
        ends = {1: 0 if node.op == "Relu" else -ENDLESS, 2: ENDLESS}
        for at in range(1, len(node.inputs)):
            if node.inputs[at]:
                (ends[at],) = draft.operand(node, at).values
        low, high = ends.values()
        want(low <= high, "Clip has its ends crossed")
        bend = Bend((source,), clamp(low, high), (low, high), (0, 1 << 32))
    draft.define(node, bend, shape)


def leaky(slope: int) -> Callable[[int], int]:
    """x, or slope x (rounded down) where x is negative."""
    return lambda x: x if x > 0 else x * slope >> 149


def clamp(low: int, high: int) -> Callable[[int], int]:
    """min(max(x, low), high)."""
    return lambda x: min(max(x, low), high)


def on_pin(draft: Draft, node: Node) -> None:
    """A neuron gate: Where(mask[row], value[row], x)."""
    pattern = ("Where", ("Gather", "mask", "row"), ("Gather", "value", "row"), "x")
    found = must(draft.g, node.outputs[0], pattern, {"row": draft.gates.row})
    source, shape = draft.values[found["x"]]
    rows, size = draft.gates.rows, prod(shape)
    used = constant(draft.g, found["mask"], BOOL, rows, *shape).values
    held = constant(draft.g, found["value"], FLOAT, rows, *shape).values
    pins = [v if u else None for u, v in zip(used, held, strict=True)]
    by_row = [pins[r * size : (r + 1) * size] for r in range(rows)]
    draft.define(node, Bend((source,), clamp(-ENDLESS, ENDLESS), (), (1 << 32,), False, by_row), shape)


# ---- bounds for every float32 execution --------------------------------------------------------------------


class Bounds(NamedTuple):
    """By value, in ticks: an enclosure, its largest size, and the absolute parts a fused runtime may add up.

    `noise` is, by value, how far an execution may stray from its layer; `lines` enclose activations: slope
    (2^-32) and intercept (2^-181), below and above.
    """

    lower: list[Ints]
    upper: list[Ints]
    size: list[Ints]
    mass: list[Ints]
    roundings: list[int]
    noise: list[Ints]
    lines: list[Sequence[tuple[int, int, int, int]]]


After = tuple[Ints, Ints, Ints, Ints, int, Sequence[tuple[int, int, int, int]]]  # see Bounds


def lost(count: int, total: int) -> int:
    """gamma(count) total, rounded up: what so many roundings may lose of a sum."""
    want(count < 1 << 20, "a sum is too long for the error bound")
    return -(-count * total // ((1 << 24) - count))


def bound(layers: Sequence[Linear | Bend], row: int, lower: Ints, upper: Ints) -> Bounds | None:
    """Bounds of every value over a box in a row of the gates; None where an execution may overflow."""
    size = [max(-low, high) for low, high in zip(lower, upper, strict=True)]
    b = Bounds([lower], [upper], [size], [size], [0], [()], [()])
    for layer in layers:
        if isinstance(layer, Bend):
            tighten(b, layers, layer)
            if any(x > y for x, y in zip(b.lower[layer.sources[0]], b.upper[layer.sources[0]], strict=True)):
                return None
        after = after_bend(b, layer, row) if isinstance(layer, Bend) else after_linear(b, layer)
        low, high, noise, mass, roundings, lines = after
        b.lower.append([0 if 0 < x < NORMAL else x for x in low])
        b.upper.append([0 if -NORMAL < x < 0 else x for x in high])
        b.size.append([max(-x, y) for x, y in zip(b.lower[-1], b.upper[-1], strict=True)])
        b.noise.append(noise)
        b.mass.append(mass or b.size[-1])
        b.roundings.append(roundings)
        b.lines.append(lines)
        largest = max(map(sum, zip(b.mass[-1], noise, strict=True)), default=0)
        if largest >= OVERFLOW or any(x > y for x, y in zip(low, high, strict=True)):
            return None
    return b


def after_linear(b: Bounds, layer: Linear) -> After:
    """|fl(y) - y| <= gamma(roundings) (|W| size + |bias|) + underflow; more where folded."""
    lower, upper, size, mass = (
        [x for at in layer.sources for x in v[at]] for v in (b.lower, b.upper, b.size, b.mass)
    )
    joined = [
        [low + high, high - low, m, v] for low, high, m, v in zip(lower, upper, size, mass, strict=True)
    ]
    columns = [*zip(*joined, strict=True)]
    count = layer.roundings or sum(b.roundings[at] for at in layer.sources) + FUSED
    found: list[tuple[int, int, int, int]] = []
    for (index, weights), bias in zip(layer.rows, layer.bias, strict=True):
        middle, width, m, v = columns if index is None else zip(*(joined[j] for j in index), strict=True)
        sizes = [*map(abs, weights)]
        parts = [
            -(-sum(map(mul, sizes, x)) >> layer.q) + abs(bias) + 1
            for x in ((m, m) if layer.roundings else (m, v))
        ]
        tiny = (4 * len(m) + 4) * (ONE + (max(sizes) << 149 >> layer.q) + max(m)) >> 126
        noise = lost(count, parts[0]) + (0 if layer.roundings else lost(FUSED, parts[1])) + tiny + 1
        centre, reach = sum(map(mul, weights, middle)), sum(map(mul, sizes, width))
        low, high = (centre - reach >> layer.q + 1) + bias, -(-centre - reach >> layer.q + 1) + bias
        found.append((low - noise, high + noise, noise, parts[1]))
    low, high, noise, mass = zip(*found, strict=True)
    return low, high, noise, mass, count, ()


def after_bend(b: Bounds, layer: Bend, row: int) -> After:
    """The image of an enclosure, and the lines around the activation."""
    (at,) = layer.sources
    pins = layer.pins[row] if layer.pins else [None] * len(b.lower[at])
    leaks = [lost(2, m) + 1 if layer.leak else 0 for m in b.size[at]]
    found = [
        (layer.f(low) - e, layer.f(high) + e, e + 2 * NORMAL, around(layer, low, high, e + 2 * NORMAL))
        if pin is None
        else (pin, pin, 0, (0, pin << 32, 0, pin << 32))
        for low, high, e, pin in zip(b.lower[at], b.upper[at], leaks, pins, strict=True)
    ]
    low, high, noise, lines = zip(*found, strict=True)
    return low, high, noise, (), 0, lines


def around(layer: Bend, low: int, high: int, noise: int) -> tuple[int, int, int, int]:
    """Any slope gives a line, its intercept taken at the ends and kinks: the best at the middle wins."""
    ends = [(x, layer.f(x) << 32) for x in (low, *(kink for kink in layer.kinks if low < kink < high), high)]
    chord = (ends[-1][1] - ends[0][1]) // (high - low) if high > low else 0
    slopes = (chord,) if len(ends) == 2 and chord in layer.slopes else (chord, *layer.slopes)
    below, s0 = max(
        ((min(y - s * x for x, y in ends), s) for s in slopes), key=lambda t: 2 * t[0] + t[1] * (low + high)
    )
    above, s1 = min(
        ((max(y - s * x for x, y in ends), s) for s in slopes), key=lambda t: 2 * t[0] + t[1] * (low + high)
    )
    return s0, below - (noise << 32), s1, above + (noise << 32)


def tighten(b: Bounds, layers: Sequence[Linear | Bend], layer: Bend) -> None:
    """Backward bounds for the neurons that an activation bends, where an interval is not the best already."""
    (at,) = layer.sources
    if at == 0 or layers[at - 1].sources == (0,):
        return
    low, high = [*b.lower[at]], [*b.upper[at]]
    for i, (x, y) in enumerate(zip(b.lower[at], b.upper[at], strict=True)):
        if any(x < kink < y for kink in layer.kinks):
            unit = [int(j == i) for j in range(len(low))]
            low[i] = max(x, lowest(b, layers, at, unit)[0] >> 64)
            high[i] = min(y, -(lowest(b, layers, at, [-v for v in unit])[0] >> 64))
    b.lower[at], b.upper[at] = low, high


def lowest(b: Bounds, layers: Sequence[Linear | Bend], start: int, row: Ints) -> tuple[int, list[int]]:
    """A lower bound (2^-213) of a combination of value `start`, and |A| times the widths of the inputs."""
    constant, waiting = 0, {start: (row, 0)}
    for at in range(start, 0, -1):
        coefficients, scale = waiting.pop(at, ((), 0))
        layer, first = layers[at - 1], 0
        if not any(coefficients):
            continue
        if isinstance(layer, Bend):
            pieces = [
                (a * s, a * t) if a > 0 else (a * u, a * v)
                for a, (s, t, u, v) in zip(coefficients, b.lines[at], strict=True)
            ]
            constant += scaled(sum(t for _, t in pieces), scale + 32)
            passed, fine = [s for s, _ in pieces], scale + 32
        else:
            shift = max(0, max(map(abs, coefficients)).bit_length() - COEFFICIENT)
            if shift:
                coefficients, scale = [a >> shift for a in coefficients], scale - shift
                constant += scaled(-sum(b.size[at]), scale)
            total = sum(map(mul, coefficients, layer.bias)) - sum(
                map(mul, map(abs, coefficients), b.noise[at])
            )
            constant += scaled(total, scale)
            passed, fine = (
                times(layer, coefficients, sum(len(b.size[s]) for s in layer.sources)),
                scale + layer.q,
            )
        for source in layer.sources:
            old, before = waiting.get(source, ([0] * len(b.size[source]), fine))
            new, finest = passed[first : first + len(old)], max(fine, before)
            both = zip(new, old, strict=True)
            summed = (
                [(x << finest - fine) + (y << finest - before) for x, y in both] if source in waiting else new
            )
            waiting[source] = summed, finest
            first += len(old)
    coefficients, scale = waiting.get(0, ([0] * len(b.size[0]), 0))
    ends = list(zip(coefficients, b.lower[0], b.upper[0], strict=True))
    total = sum(a * (low if a > 0 else high) for a, low, high in ends)
    return constant + scaled(total, scale), [abs(a) * (high - low) for a, low, high in ends]


def scaled(total: int, scale: int) -> int:
    """A product of a coefficient at 2^-scale and ticks, rounded down to 2^-213."""
    return total << 64 - scale if scale <= 64 else total >> scale - 64


def times(layer: Linear, A: Ints, inputs: int) -> list[int]:
    """A W, exactly; where rows are packed, by one multiplication of a long number for each neuron."""
    width, found = layer.limb, [0] * inputs
    if layer.packed:
        half = 1 << 8 * width - 1
        total = sum(map(mul, A, layer.packed)) + half * (
            ((1 << 8 * width * inputs) - 1) // ((1 << 8 * width) - 1)
        )
        raw = total.to_bytes(width * inputs, "little")
        return [
            int.from_bytes(raw[at : at + width], "little") - half for at in range(0, width * inputs, width)
        ]
    for a, (index, weights) in zip(A, layer.rows, strict=True):
        for j, w in zip(range(inputs) if index is None else index, weights, strict=True):
            found[j] += a * w
    return found


# ---- the proof ---------------------------------------------------------------------------------------------

Goal = tuple[Ints, int, bool]  # an unsafe inequality is refuted where row . y > bound, or also = where True


class Task(NamedTuple):
    """A box of a leaf in which the outputs of a row must be safe in a case."""

    leaf: int
    case: int
    row: int
    lower: Ints
    upper: Ints


def goals_of(case: Case, outputs: int) -> list[list[Goal]]:
    """By conjunction, its inequalities with whole coefficients and a bound in ticks."""
    found: list[list[Goal]] = []
    for conjunction in case.unsafe:
        found.append([])
        for terms, limit, strict in conjunction:
            factor, factors = lcm(limit.denominator, *(c.denominator for _, c in terms)), dict(terms)
            row = [int(factors.get(index, 0) * factor) for index in range(outputs)]
            found[-1].append((row, int(limit * factor) << 149, strict))
    return found


def proved(
    net: tuple[Sequence[Linear | Bend], int], goals: Sequence[Sequence[Goal]], task: Task, halvings: int
) -> bool:
    """Whether no execution on the box is unsafe; an open box is cut in two, `halvings` times deep."""
    (layers, output), (_, _, row, lower, upper) = net, task
    b = bound(layers, row, lower, upper)
    if b is None:
        return False
    want(len(b.size[output]) == len(goals[0][0][0]), "the network and the property differ in their outputs")
    for conjunction in goals:
        weights = [refuted(b, layers, output, goal) for goal in conjunction]
        if all(weights):
            cuttable = [
                w if high > low else -1 for w, low, high in zip(weights[0], lower, upper, strict=True)
            ]
            dim = cuttable.index(max(cuttable))
            if halvings == 0 or lower[dim] == upper[dim]:
                return False
            cut = midpoint(lower[dim], upper[dim])
            left = task._replace(upper=[*upper[:dim], cut, *upper[dim + 1 :]])
            right = task._replace(lower=[*lower[:dim], next_above(cut), *lower[dim + 1 :]])
            return proved(net, goals, left, halvings - 1) and proved(net, goals, right, halvings - 1)
    return True


def refuted(b: Bounds, layers: Sequence[Linear | Bend], output: int, goal: Goal) -> list[int]:
    """Nothing where the inequality never holds; else what each input weighs in it."""
    row, limit, tie = goal
    ends = zip(row, b.lower[output], b.upper[output], strict=True)
    interval = sum(c * (low if c > 0 else high) for c, low, high in ends)
    low, effect = lowest(b, layers, output, row)
    return [] if max(low, interval << 64) >= (limit << 64) + (not tie) else effect


def leaves(tree: bytes, inputs: int, cases: Sequence[Case], gates: Gates) -> Iterator[list[Task]]:
    """By leaf of the proof tree, the boxes and rows that it must make safe."""
    stack = [([-ENDLESS] * inputs, [ENDLESS] * inputs, [*range(len(cases))])]
    at = leaf = 0
    while stack:
        start = at
        code, at = varint(tree, at)
        want(
            at - start <= 5 and (tree[at - 1] or at == start + 1),
            "the proof tree has a number in a longer form",
        )
        lower, upper, live = stack.pop()
        if code == 0:
            boxes = [
                (k, [*map(max, lower, cases[k].lower)], [*map(min, upper, cases[k].upper)]) for k in live
            ]
            yield [
                Task(leaf, k, row, low, high) for k, low, high in boxes for row in reached(gates, low, high)
            ]
            leaf += 1
            continue
        dim = code - 1 >> 1
        want(
            dim < inputs and len(stack) * inputs < 1 << 24,
            "the proof tree splits what is no input, or too deep",
        )
        low, high = lower[dim], upper[dim]
        if code % 2:
            want(max(-low, high) < ENDLESS, "the proof tree halves a side that has no end")
            cut = midpoint(low, high)
        else:
            want(at + 4 <= len(tree), "the proof tree is cut off")
            cut, at = ticks(int.from_bytes(tree[at : at + 4], "little")), at + 4
        want(low <= cut < high, f"the proof tree splits input {dim} outside of its cell")
        above = next_above(cut)
        right = [k for k in live if cases[k].upper[dim] >= above]
        left = [k for k in live if cases[k].lower[dim] <= cut]
        stack.append(([*lower[:dim], above, *lower[dim + 1 :]], upper, right))
        stack.append((lower, [*upper[:dim], cut, *upper[dim + 1 :]], left))
    want(at == len(tree), "the proof tree is complete, but more bytes follow")


def read_certificate(data: bytes, network: bytes, properties: Sequence[bytes]) -> dict[str, Any]:
    """The certificate: canonical JSON, bound to the bytes of these files."""

    def canonical(document: Any) -> bytes:
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")

    def digest(part: bytes) -> str:
        return hashlib.sha256(part).hexdigest()

    claim = json.loads(data.decode("ascii"), parse_float=str, parse_constant=str)
    want(set(claim) == KEYS and canonical(claim) == data, "the certificate is not in canonical form")
    rest = {key: value for key, value in claim.items() if key != "digest"}
    want(claim["digest"] == digest(canonical(rest)), "the certificate was changed: its digest does not match")
    kind = [claim["format"], claim["version"], claim["profile"]]
    want(canonical(kind) == KIND, f"the certificate is {kind}; that is not read here")
    want(
        claim["network"] == {"sha256": digest(network)},
        "the network is not the one certified (SHA-256 differs)",
    )
    names = [entry["name"] for entry in claim["properties"]]
    bound = [{"name": name, "sha256": digest(p)} for name, p in zip(names, properties, strict=True)]
    want(bound and claim["properties"] == bound, "a property is not the one certified (SHA-256 differs)")
    plain = all(type(t) is str and 0 < len(t) < 256 and t.isprintable() for t in (claim["tool"], *names))
    origin = re.fullmatch(rb'{"sha256":"[0-9a-f]{64}"}', canonical(claim["original"]))
    want(plain and origin, "the certificate has a name or a digest that is malformed")
    return claim


@lru_cache(1)
def open_proof(files: tuple[bytes, ...]) -> tuple[Graph, Gates, list[Case], int, list[Task], str]:
    """Checks all but the bounds of (network, properties..., certificate); gives what there is to bound."""
    network, *properties, certificate = files
    claim = read_certificate(certificate, network, properties)
    graph, read = read_graph(network), [read_property(data) for data in properties]
    gates, (inputs, outputs, _) = read_gates(graph), read[0]
    want(
        {found[:2] for found in read} == {(prod(graph.sample), outputs)},
        "a property does not fit the network",
    )
    want(all(len(values) == outputs for values in gates.constant), "a property does not fit the output gate")
    curves = [word for word, ops in CURVES.items() if ops & {node.op for node in graph.nodes}]
    want(claim["assumes"] == ASSUMES + curves, "the certificate does not name what it assumes")
    cases = [case for found in read for case in found[2]]
    counts = {"gated": 0, "leaves": 0, "outside": 0, "proved": 0, "rows": gates.rows}
    tasks, settled = list[Task](), dict[tuple[int, int], bool]()
    for found in leaves(base64.b64decode(claim["tree"], validate=True), inputs, cases, gates):
        for pair in {(task.row, task.case) for task in found} - set(settled):
            settled[pair] = settled_by_gate(gates, pair[0], cases[pair[1]].unsafe)
        bounded = [task for task in found if not settled[task.row, task.case]]
        tasks += bounded
        counts["leaves"] += 1
        counts["proved" if bounded else "gated" if found else "outside"] += 1
    want(str(claim["counts"]) == str(counts), f"the certificate counts {claim['counts']}, not {counts}")
    return graph, gates, cases, outputs, tasks, ", ".join(f"{number} {key}" for key, number in counts.items())


@lru_cache(1)
def compiled(files: tuple[bytes, ...]) -> tuple[tuple[Sequence[Linear | Bend], int], list[list[list[Goal]]]]:
    """The network's layers and the goals of every case."""
    graph, gates, cases, outputs, *_ = open_proof(files)
    return compile_network(graph, gates), [goals_of(case, outputs) for case in cases]


def work(files: tuple[bytes, ...], tasks: Sequence[Task]) -> Task | None:
    """The first of some tasks that is not proved."""
    net, goals = compiled(files)
    return next((task for task in tasks if not proved(net, goals[task.case], task, HALVINGS)), None)


def settle(
    files: tuple[bytes, ...], sample: int | None, workers: int, progress: Callable[[int, int], None]
) -> str:
    """Bounds the tasks, or a sample drawn by the certificate's SHA-256; the account in one line."""
    *_, tasks, account = open_proof(files)
    drawn = [
        hashlib.sha256(DRAW + hashlib.sha256(files[-1]).digest() + b"%d" % at).digest()
        for at in range(len(tasks))
    ]
    order = sorted(range(len(tasks)), key=drawn.__getitem__)[: len(tasks) if sample is None else sample]
    chunks = [[tasks[at] for at in order[first : first + CHUNK]] for first in range(0, len(order), CHUNK)]
    done = 0
    with ProcessPoolExecutor(workers) as pool:
        each = map if workers == 1 else pool.map
        for chunk, bad in zip(chunks, each(partial(work, files), chunks), strict=True):
            if bad is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                want(False, f"leaf {bad.leaf}, row {bad.row}: no bound shows it safe over its box")
            done += len(chunk)
            progress(done, len(order))
    return f"{account}; {len(order)} of {len(tasks)} boxes bounded exactly"


def check(
    files: Sequence[bytes],
    *,
    sample: int | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[bool, str]:
    """Whether (network, properties..., certificate) are accepted, and why in one line; never raises for them.

    `sample`: bounds so many of the boxes that need a bound (None: all); everything else is always checked.
    """
    try:
        return True, settle(tuple(files), sample, workers, progress)
    except RefusedError as error:
        return False, str(error)
    except BrokenProcessPool:
        return False, "a process of the checker died, so nothing is claimed"
    except MALFORMED as error:
        return False, f"the files are malformed ({type(error).__name__}: {str(error)[:100]})"


def main(arguments: Sequence[str]) -> int:
    """The command line: 0 accepted, 1 refused, 2 files unreadable or wrong usage."""
    flags = [part[2:].partition("=") for part in arguments if part.startswith("--")]
    options = {name: value for name, _, value in flags}
    places = [Path(part) for part in arguments if not part.startswith("--")]
    if len(places) < 3 or not set(options) <= {"sample", "workers", "json"}:
        sys.stderr.write(f"{(__doc__ or '').splitlines()[2].strip()}\n")
        return 2
    try:
        files = [place.read_bytes() for place in places]
        files = [zlib.decompressobj(31).decompress(data, 1 << 25) if place.suffix == ".gz" else data
                 for place, data in zip(places, files, strict=True)]  # fmt: skip
        sample, workers = (int(options[key]) if key in options else None for key in ("sample", "workers"))
    except (OSError, ValueError, zlib.error) as error:
        sys.stderr.write(f"unreadable: {error}\n")
        return 2

    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done:,} of {total:,} boxes" + "\n" * (done == total))

    accepted, reason = check(files, sample=sample, workers=workers or os.cpu_count() or 1, progress=tell)
    said = f"{'accepted' if accepted else 'refused'}: {reason}"
    sys.stdout.write(json.dumps({"accepted": accepted, "reason": reason}) if "json" in options else said)
    sys.stdout.write("\n")
    return 0 if accepted else 1


ONE = 1 << 149
NORMAL = 1 << 23  # the smallest normal number, 2^-126
LARGEST = ((1 << 24) - 1) << 253
OVERFLOW = 1 << 275  # 2^126: below it no partial sum can overflow
ENDLESS = 1 << 300
FUSED = 12  # roundings that an operation may add when a runtime folds it into its neighbour
COEFFICIENT = 57  # bits of a coefficient before it is multiplied by weights
HALVINGS = 6
KIND = b'["sutura-certificate",2,"float32-any-order"]'
CURVES = {"curves-within-4e-7": {"Sigmoid", "Tanh"}, "exp-within-2^-21": {"Exp", "Softmax"}}
ASSUMES = ["file-as-hashed", "float32-inputs", "exact-comparisons", "binary32-nearest"]
CHUNK = 8
DRAW = b"sutura exact sample\0"
MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    struct.error,
    TypeError,
    ValueError,
)
FLOAT, INT64, BOOL = 1, 7, 9
KINDS = {FLOAT: (4, "I"), INT64: (8, "q"), BOOL: (1, "B")}
ATTRIBUTES = {1: "f", 2: "i", 3: "s", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
SCALARS: dict[str, Callable[[Any], Any]] = {
    "f": lambda raw: ticks(int.from_bytes(raw, "little")),
    "i": signed,
    "s": bytes,
}
NUMBERS = {"data_type", "version", "ir_version", "elem_type", "dim_value"}
NAMES = {"name", "domain", "op_type"}
KEYS = {
    "assumes", "counts", "digest", "format", "network", "original", "profile", "properties", "tool", "tree",
    "version",
}  # fmt: skip
VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,7})")
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?")
TOKEN = re.compile(r"[()]|;[^\n]*|[^\s();]+")
AXIS1 = {"axis": ("i", 1)}
DEFAULTS: dict[str, dict[str, tuple[str, Any]]] = {
    "Flatten": AXIS1,
    "Gather": {"axis": ("i", 0)},
    "Reshape": {"allowzero": ("i", 0)},
    "ReduceMin": {"keepdims": ("i", 1)},
    "ScatterND": {"reduction": ("s", b"none")},
    "Gemm": {"alpha": ("f", ONE), "beta": ("f", ONE), "transA": ("i", 0), "transB": ("i", 0)},
}
TO_FLOAT, TO_INT64 = {"to": ("i", FLOAT)}, {"to": ("i", INT64)}
ROW = ("Cast", ("Reshape", "leaf", "shape"), TO_INT64)
MENDED_ROW = ("Cast", ("Gather", ("Gather", "leaf", "place"), "zero", AXIS1), TO_INT64)
SOME_FAIL = ("Greater", ("Gemm", "leaf", "guard", {"transA": ("i", 1)}), "half")
COUNT = ("MatMul", ("Cast", "literals", TO_FLOAT), "clauses")
LEAST = {"axes": ("ints", (1,))}
TESTS = (
    ("Greater", ("ReduceMin", ("Add", COUNT, ("Gather", "inactive", "mended")), LEAST), "half"),
    ("Greater", ("ReduceMin", COUNT, LEAST), "half"),
)
NODE_LISTS = ("featureids", "values", "truenodeids", "falsenodeids")
RULES: dict[str, Callable[[Draft, Node], None]] = {
    **dict.fromkeys(("MatMul", "Gemm"), on_matmul),
    **dict.fromkeys(("Add", "Sub", "Mul"), on_arithmetic),
    **dict.fromkeys(("Flatten", "Reshape"), on_shape),
    **dict.fromkeys(("Relu", "LeakyRelu", "Clip"), on_bend),
    "Conv": on_convolution,
    "Where": on_pin,
}
# message -> field number -> (name, wire type, whether it may repeat)
FIELDS = {
    kind: {
        int(n): (name, int(w), bool(many))
        for name, n, w, many in re.findall(r"(\w+)=(\d+):(\d)(\*?)", listed)
    }
    for kind, listed in {
        "model": "ir_version=1:0 producer_name=2:2 producer_version=3:2 model_domain=4:2 model_version=5:0"
        " doc=6:2 graph=7:2 opset_import=8:2*",
        "opset": "domain=1:2 version=2:0",
        "graph": "node=1:2* title=2:2 initializer=5:2* doc=10:2 input=11:2* output=12:2* value_info=13:2*",
        "node": "input=1:2* output=2:2* name=3:2 op_type=4:2 attribute=5:2* doc=6:2 domain=7:2",
        "attribute": "name=1:2 f=2:5 i=3:0 s=4:2 g=6:2 floats=7:5* ints=8:0* strings=9:2* type=20:0",
        "tensor": "dims=1:0* data_type=2:0 name=8:2 raw_data=9:2",
        "value": "name=1:2 type=2:2 doc=3:2",
        "type": "tensor_type=1:2",
        "tensor_type": "elem_type=1:0 shape=2:2",
        "shape": "dim=1:2*",
        "dim": "dim_value=1:0 dim_param=2:2",
    }.items()
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
