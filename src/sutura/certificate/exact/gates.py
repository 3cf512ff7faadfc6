"""Gates: the template that a gated network must match exactly, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from .graph import FLOAT, INT64, Graph, Node, Tensor
from .ticks import ONE, Ints, want

Literal = tuple[Any, ...]
Tree = Sequence[tuple[int, int, int, int]]


class Gates(NamedTuple):
    """`tree` lists (dimension or -1, threshold, left or number of the leaf, right): here rows are numbers.

    With an output gate: the trees and columns of its guard, its clauses, and by row which are active, the
    constant, and the ends of the box outside of which it does nothing (if rows have any). Literals are
    ("order", i, j, strict) for z[i] > z[j], ("Greater" or "Less", i, t) for z[i], t.
    """

    raw: str
    row: str
    rows: int
    tree: Tree = ((-1, 0, 0, 0),)
    guard: Sequence[Tree] = ()
    columns: Sequence[Ints] = ()
    knows_row: bool = False
    clauses: Sequence[Sequence[Literal]] = ()
    active: Sequence[Ints] = ()
    constant: Sequence[Ints] = ()
    box: tuple[Sequence[Ints], ...] = ()


def match(g: Graph, value: str, pattern: Any, found: dict[str, str]) -> bool:
    """Whether a value is made as a pattern says: (operator, inputs..., attributes), or a name for `found`.

    A name that is found already must stand for the same value.
    """
    if isinstance(pattern, str):
        return found.setdefault(pattern, value) == value
    op, *inputs, asked = pattern if isinstance(pattern[-1], dict) else (*pattern, {})
    node, usual = g.makers.get(value, Node("", "", (), (), {})), DEFAULTS.get(op, {})
    fits = (node.op, node.domain, node.outputs, len(node.inputs)) == (op, "", (value,), len(inputs))
    fits = fits and usual | dict(node.attributes) == usual | asked
    return fits and all(match(g, name, part, found) for name, part in zip(node.inputs, inputs, strict=True))


def must(g: Graph, value: str, pattern: Any, known: Mapping[str, str]) -> dict[str, str]:
    """What `match` finds besides what is known; refused where it does not match."""
    found = dict(known)
    want(match(g, value, pattern, found), f"{value!r} is not made by {pattern[0]} as the template has it")
    return found


def constant(g: Graph, name: str, kind: int, *shape: int | None) -> Tensor:
    """A constant of this type and shape (None: any size)."""
    found = g.constants.get(name, Tensor(0, (), ()))
    fits = found.kind == kind and len(found.shape) == len(shape)
    fits = fits and all(a in {None, b} for a, b in zip(shape, found.shape, strict=True))
    want(fits, f"{name!r} is no constant of the type and shape that it must have")
    return found


def is_whole(g: Graph, name: str, axes: int, number: int) -> bool:
    """Whether a constant is this one int64 number, with so many axes."""
    return g.constants.get(name) == Tensor(INT64, (1,) * axes, (number,))


def read_gates(g: Graph) -> Gates:
    """The gates of a network; refused where they are not exactly of the template."""
    trees = [node for node in g.nodes if node.op == "TreeEnsembleRegressor"]
    if not trees:
        want(not g.switches, "the network has a gate but no dispatch tree")
        return Gates(g.output, "", 1)
    flat = {g.input} if len(g.sample) == 1 else set[str]()
    flat |= {value for value in g.makers if match(g, value, ("Flatten", "x", AXIS1), {"x": g.input})}
    reads = [node for node in trees if node.inputs[0] in flat]
    want(len(reads) == 1, "no tree, or more than one, reads the input")
    (leaf,), row = reads[0].outputs, ""
    for value in g.makers:
        if match(g, value, ROW, found := {"leaf": leaf}) and is_whole(g, found["shape"], 1, -1):
            row = value
    if g.switches:
        gates = output_gate(g, {"leaf": leaf, "x": reads[0].inputs[0]}, row)
    else:
        tables = [node.inputs[0] for node in g.nodes if node.op == "Gather" and node.inputs[1:] == (row,)]
        want(tables, "the network has a dispatch tree but no gate")
        gates = Gates(g.output, row, (*g.constants[tables[0]].shape, 0)[0])
    return gates._replace(tree=read_trees(reads[0], prod(g.sample), gates.rows)[0])


def output_gate(g: Graph, known: Mapping[str, str], row: str) -> Gates:
    """If(some row x guard is not 0; ScatterND(raw, where it is not, sealed), raw).

    `sealed` is Where(test(z), z, Where(test(z'), z', ... constants)), of each sample that is mended: what it
    delivers passed the test, or is the constant of its row. Samples outside of the box of their row, if rows
    have any, keep what the network gave.
    """
    ((condition, raw),) = g.switches
    found = must(g, condition, SOME_FAIL, known)
    found = must(g, g.output, MENDED, found | {"raw": raw})
    found = must(g, found["place"], PLACE, found)
    halves = [Tensor(FLOAT, shape, (ONE >> 1,)) for shape in ((), (1,))]
    want(g.constants.get(found["half"]) in halves, "a test compares not with 0.5")
    placed = is_whole(g, found["one"], 1, 1) and is_whole(g, found["zero"], 0, 0)
    want(placed, "samples are not mended in place")
    boxed = match(g, found["sealed"], KEPT, within := dict(found))
    final, candidates = within["inner" if boxed else "sealed"], list[dict[str, str]]()
    while any(match(g, final, ("Where", test, "z", "rest"), now := dict(found)) for test in TESTS):
        candidates, final = [*candidates, now], now["rest"]
    want(0 < len(candidates) <= 8, "the output gate has no candidates, or more than 8")
    tests = [(read_clauses(g, c), c.get("inactive", ""), c.get("mended", "")) for c in candidates]
    clauses, table, mended = tests[0]
    want(all(test == tests[0] for test in tests), "candidates are not put to the same test")
    many = len(clauses)
    if table:
        found = must(g, final, ("Gather", "constants", "mended"), found | {"mended": mended})
        must(g, mended, MENDED_ROW, found)
        (rows, width), lines = constant(g, found["constants"], FLOAT, None, None)[1:]
        off = constant(g, table, FLOAT, rows, many).values
    else:
        (_, width), lines = constant(g, final, FLOAT, 1, None)[1:]
        rows, lines, off = 2, (0,) * width + lines, (ONE,) * many + (0,) * many
    want({*off} <= {0, ONE}, "the table of inactive clauses holds other numbers")
    read = [i for clause in clauses for x in clause for i in x[1 : 3 if x[0] == "order" else 2]]
    want(max(read, default=0) < width, "a literal reads beyond the outputs")
    active = [[k for k in range(many) if not off[r * many + k]] for r in range(rows)]
    want(not active[0], "row 0, whose samples are never mended, has active clauses")
    by_row = [lines[r * width : (r + 1) * width] for r in range(rows)]
    want(not boxed or (table and within["row"] == mended), "a sample is put to the box of another row")
    size = prod(g.sample)
    ends = [constant(g, within[end], FLOAT, rows, size).values for end in ("lower", "upper") if boxed]
    box = tuple([end[r * size : (r + 1) * size] for r in range(rows)] for end in ends)
    return Gates(raw, row, rows, (), *read_guard(g, found, width), clauses, active, by_row, box)


def read_guard(g: Graph, found: dict[str, str], width: int) -> tuple[Sequence[Tree], list[Ints], bool]:
    """The trees over MatMul(raw, columns), or Concat(row, MatMul(raw, columns)), whose sum is the guard."""
    node, known, compare = g.makers[found["guard"]], dict(found), ("MatMul", "raw", "columns")
    knows_row = match(g, node.inputs[0], ("Concat", "leaf", compare, AXIS1), known)
    known = known if knows_row else must(g, node.inputs[0], compare, found)
    table = constant(g, known["columns"], FLOAT, width, None)
    count = table.shape[1]
    want((node.op, node.domain) == ("TreeEnsembleRegressor", "ai.onnx.ml") and count, "the guard is no tree")
    columns: list[Ints] = [table.values[k::count] for k in range(count)]
    return read_trees(node, count + knows_row, 1 << 24), columns, knows_row


def read_trees(node: Node, features: int, rows: int) -> Sequence[Tree]:
    """The trees of a TreeEnsembleRegressor: x goes left where x[dimension] <= threshold, to a number."""
    a = {name: value for name, (_, value) in node.attributes.items()}
    lists = [a.pop(f"nodes_{name}", ()) for name in NODE_LISTS]
    targets = [*zip(*(a.pop(f"target_{name}", ()) for name in TARGET_LISTS), strict=True)]
    fixed = {"n_targets": 1, "aggregate_function": b"SUM", "post_transform": b"NONE"}
    want(a == fixed and lists[0], "a tree has other attributes than the template")
    weights = {(tree, at): weight for tree, at, target, weight in targets if target == 0}
    want(len(weights) == len(targets), "a tree has weights that are not one a leaf")
    found: list[list[tuple[int, int, int, int]]] = []
    for tree, at, mode, dim, cut, left, right in zip(*lists, strict=True):
        if tree == len(found):
            found.append([])
        want(tree == len(found) - 1 and at == len(found[-1]), "a tree has its nodes out of order")
        if mode == b"LEAF":
            number, rest = divmod(weights.pop((tree, at), -1), ONE)
            want(rest == 0 and 0 <= number < min(rows, 1 << 24), "a leaf of a tree holds an unfit number")
            found[-1].append((-1, 0, number, 0))
        else:
            sound = mode == b"BRANCH_LEQ" and 0 <= dim < features and at < min(left, right)
            want(sound, f"node {at} of a tree is malformed")
            found[-1].append((dim, cut, left, right))
    for tree in found:
        below = sorted(child for dim, _, *both in tree if dim >= 0 for child in both)
        want(not weights and below == [*range(1, len(tree))], "a tree is no single tree")
    return found


def reached(tree: Tree, lower: Ints, upper: Ints) -> list[int]:
    """The rows that points of a closed box can reach."""
    found, waiting = set[int](), [0]
    while waiting:
        dim, cut, left, right = tree[waiting.pop()]
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
    table, most = (found["clauses"], None) if "clauses" in found else (found["clause"], 1)
    members = constant(g, table, FLOAT, len(literals), most)
    width = members.shape[1]
    want(width and {*members.values} <= {0, ONE}, "the table of clauses holds other numbers than 0 and 1")
    columns = (zip(literals, members.values[k::width], strict=True) for k in range(width))
    return [[literal for literal, used in column if used] for column in columns]


def read_literals(g: Graph, block: str, z: str) -> list[Literal]:
    """The literals of a block: comparisons of entries of z with each other, or with constants."""
    op, pair = g.makers[block].op if block in g.makers else "", {"z": z}
    both = match(g, block, (op, *TAKEN), pair)
    known = op in {"Greater", "GreaterOrEqual" if both else "Less"}
    want(known, f"{block!r} holds literals that have no rule in the exact checker")
    found = pair if both else must(g, block, (op, TAKEN[0], "t"), {"z": z})
    i = constant(g, found["i"], INT64, None).values
    other = constant(g, found["j"], INT64, len(i)) if both else constant(g, found["t"], FLOAT, len(i))
    want(min(i + other.values if both else i) >= 0, "a literal reads from the end")
    entries = zip(i, other.values, strict=True)
    return [("order", *entry, op == "Greater") if both else (op, *entry) for entry in entries]


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
PLACE = ("Gather", ("NonZero", ("Mul", "leaf", "guard")), "zero")
MENDED = ("ScatterND", "raw", ("Unsqueeze", "place", "one"), "sealed")
COUNT, ONE_CLAUSE = (("MatMul", ("Cast", "literals", TO_FLOAT), name) for name in ("clauses", "clause"))
LEAST, OFF = {"axes": ("ints", (1,))}, ("Gather", "inactive", "mended")
TESTS = (
    ("Greater", ("ReduceMin", ("Add", COUNT, OFF), LEAST), "half"),
    ("Greater", ("ReduceMin", COUNT, LEAST), "half"),
    ("Greater", ("Add", ONE_CLAUSE, OFF), "half"),
    ("Greater", ONE_CLAUSE, "half"),
)
LOW = ("GreaterOrEqual", ("Gather", "x", "place"), ("Gather", "lower", "row"))
HIGH = ("LessOrEqual", ("Gather", "x", "place"), ("Gather", "upper", "row"))
INSIDE = ("Greater", ("ReduceMin", ("Cast", ("And", LOW, HIGH), TO_FLOAT), LEAST), "half")
KEPT = ("Where", INSIDE, "inner", ("Gather", "raw", "place"))
TAKEN = ("Gather", "z", "i", AXIS1), ("Gather", "z", "j", AXIS1)
NODE_LISTS = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
TARGET_LISTS = ("treeids", "nodeids", "ids", "weights")
