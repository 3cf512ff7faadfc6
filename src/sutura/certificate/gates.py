"""The gates of an exported network, found by following names from the output; and the rules they must keep.

A dispatch tree gives every sample a row; row 0 is that of no gate. A guard, an ensemble of trees over exact
comparisons of outputs (and the row), gives 0 to a sample that may leave as it is. Where row times guard is
not zero for some sample of the batch, those samples, and no others, are replaced by the first z of a list of
candidates that passes the test of the row, or by the constant of the row where none does. A test is an AND
of clauses; a row switches off those that it does not need. The checker need not know how a candidate is
computed: it is delivered only if the very vector delivered passed the test.

A neuron gate replaces chosen entries of a value by constants, in chosen rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sutura.certificate.clauses import Above, Below, Clause, Linear, Literal, Order, excludes
from sutura.certificate.dispatch import MAX_ROWS, SINGLE_ROW, Dispatch, read_trees
from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.guard import Guard
from sutura.certificate.model import Exported, Switch, attributes, where
from sutura.certificate.vnnlib import Case
from sutura.certificate.wire import Array, Node


@dataclass(frozen=True, slots=True, eq=False)
class OutputGate:
    """The guard; all clauses of the test; by row, which are active, and the constant delivered where no
    candidate passes.
    """

    guard: Guard
    clauses: tuple[Clause, ...]
    active: Array
    constant: Array


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """`raw`: the value that samples without mending deliver; `row`: the value that holds the row of every
    sample, None where nothing reads it.
    """

    raw: str
    rows: int
    row: str | None
    dispatch: Dispatch
    output: OutputGate | None


@dataclass(frozen=True, slots=True)
class _Test:
    clauses: tuple[Clause, ...]
    inactive: str | None


def read_gates(exported: Exported) -> Gates:
    """The gates of a network; CertificateError where they are not exactly of the template."""
    trees = [node for node in exported.nodes if node.op == "TreeEnsembleRegressor"]
    if not trees:
        names = (*exported.producer, *exported.constants, *(node.name for node in exported.nodes))
        if any(name.startswith(PREFIX) for name in names):
            raise CertificateError(f"the network has names that begin with {PREFIX!r} but no dispatch tree")
        if exported.switches:
            raise CertificateError("the output comes from an If, but the network has no gates")
        return Gates(exported.output, 1, None, SINGLE_ROW, None)
    tree = _dispatch_tree(exported, trees)
    row = _row_value(exported, tree)
    if not exported.switches:
        _expect_no_output_gate(exported, trees)
        if row is None:
            raise CertificateError(f"{where(tree)}: nothing reads its row")
        raw, gate, rows = exported.output, None, _rows_of_neuron_gates(exported, row)
    else:
        raw, gate = _output_gate(exported, tree)
        rows = len(gate.active)
    (dispatch,) = read_trees(tree, exported.inputs, rows, most=1)
    return Gates(raw, rows, row, dispatch, gate)


def neuron_gate(exported: Exported, gates: Gates, node: Node) -> tuple[str, Array, Array]:
    """A neuron gate's ungated value, and by row (rows, then sample axes) its mask and its values."""
    if len(node.inputs) != 3:
        raise CertificateError(f"{where(node)} has {len(node.inputs)} inputs, not 3")
    tables = [_row_of(exported, name, gates.row) for name in node.inputs[:2]]
    mask, value = (exported.constants[name] for name in tables)
    if mask.dtype != np.bool_ or value.dtype != np.float32 or mask.shape != value.shape or mask.ndim < 2:
        raise CertificateError(f"{where(node)}: mask and value must be bool and float32, [rows, ...sample]")
    if len(mask) != gates.rows or not np.isfinite(value).all():
        raise CertificateError(f"{where(node)}: its tables do not hold {gates.rows} rows of finite numbers")
    return node.inputs[2], mask, value


def needs_bound(gates: Gates, row: int, case: Case) -> bool:
    """Whether a row leaves it to the network to be safe in a case; False where its gate makes it safe.

    Raises CertificateError where the row has active clauses that do not make every delivered output safe.
    """
    gate = gates.output
    if gate is None or not gate.active[row].any():
        return True
    active = [gate.clauses[k] for k in np.flatnonzero(gate.active[row])]
    for number, conjunction in enumerate(case.unsafe):
        if not any(excludes(clause, conjunction) for clause in active):
            raise CertificateError(f"row {row}: no active clause excludes unsafe conjunction {number}")
        if not gate.guard.excludes(row, conjunction):
            raise CertificateError(f"row {row}: the guard lets unsafe conjunction {number} through")
    constant = [float(value) for value in gate.constant[row]]
    if any(all(inequality.holds(constant) for inequality in conjunction) for conjunction in case.unsafe):
        raise CertificateError(f"row {row}: its constant output is unsafe")
    return False


def _dispatch_tree(exported: Exported, trees: Sequence[Node]) -> Node:
    """The one tree that reads the input, flattened where that has more than one axis."""
    reading = [tree for tree in trees if _reads_input(exported, tree)]
    if len(reading) != 1 or len(trees) > 2:
        raise CertificateError(
            f"the network has {len(trees)} tree nodes, {len(reading)} over its input; want 1 or 2, and 1"
        )
    return reading[0]


def _reads_input(exported: Exported, tree: Node) -> bool:
    (flat,) = _inputs(tree, 1)
    if flat == exported.input:
        if len(exported.sample) != 1:
            raise CertificateError(
                f"{where(tree)} reads an input of rank {len(exported.sample) + 1}; flatten it"
            )
        return True
    if not _is_made_by(exported, flat, "Flatten"):
        return False
    flatten = exported.producer[flat]
    return attributes(flatten, axis=1) == (1,) and flatten.inputs == (exported.input,)


def _row_value(exported: Exported, tree: Node) -> str | None:
    """The value that holds the row as an integer: Cast(Reshape(tree(flat input), [-1])); None without one."""
    found = [name for name, node in exported.producer.items() if _is_row(exported, node, tree)]
    if len(found) > 1:
        raise CertificateError(f"{where(tree)}: its row is cast to an integer {len(found)} times; want once")
    return found[0] if found else None


def _is_row(exported: Exported, node: Node, tree: Node) -> bool:
    if node.op != "Cast" or node.domain or dict(node.attributes) != {"to": INT64} or len(node.inputs) != 1:
        return False
    reshape = exported.producer.get(node.inputs[0])
    if reshape is None or reshape.op != "Reshape" or reshape.domain or len(reshape.inputs) != 2:
        return False
    shape = exported.constants.get(reshape.inputs[1])
    if shape is None or shape.shape != (1,) or shape.dtype != np.int64 or int(shape[0]) != -1:
        return False
    return attributes(reshape, allowzero=0) == (0,) and (reshape.inputs[0],) == tree.outputs


def _expect_no_output_gate(exported: Exported, trees: Sequence[Node]) -> None:
    if len(trees) > 1 or any(name.startswith(RESERVED_BY_GATE) for name in exported.constants):
        raise CertificateError(f"the output {brief(exported.output)} does not come from its output gate")


def _output_gate(exported: Exported, tree: Node) -> tuple[str, OutputGate]:
    """The value that untouched samples deliver, and the gate.

    If(guard of the batch; ScatterND(y, places of the failing samples, sealed), Identity(raw)); with an output
    of more than one axis, y is Flatten(raw), and Reshape(ScatterND(...), Shape(raw)) is delivered.
    """
    if len(exported.switches) != 1:
        raise CertificateError(f"the output comes from {len(exported.switches)} nested Ifs; want 1")
    (switch,) = exported.switches
    raw, y, node = switch.otherwise, switch.otherwise, exported.producer[exported.output]
    if node.op == "Reshape":
        fixed, shape = _inputs(node, 2)
        attributes(node, allowzero=0)
        shape_of = _produced(exported, shape, "Shape")
        attributes(shape_of, start=0)
        node = _produced(exported, fixed, "ScatterND")
        y = _inputs(node, 3)[0]
        flatten = _produced(exported, y, "Flatten")
        if attributes(flatten, axis=1) != (1,) or flatten.inputs != (raw,) or shape_of.inputs != (raw,):
            raise CertificateError("the output gate mends another value than the one that it hands over")
    scattered, index, sealed = _inputs(_produced(exported, node.outputs[0], "ScatterND"), 3)
    if scattered != y or attributes(node, reduction=b"none") != (b"none",):
        raise CertificateError("the output gate mends another value than the one that it hands over")
    guard, failing = _guard(exported, switch, tree, y)
    place = _place(exported, index, (tree.outputs[0], failing))
    row = _mended_row(exported, sealed, (tree.outputs[0], place))
    tests, constant = _candidates(exported, sealed, row)
    if any(test != tests[0] for test in tests):
        raise CertificateError("the candidates of the output gate are not put to the same test")
    gate = _gate(exported, tests[0], constant, guard)
    if gate.active[0].any():
        raise CertificateError("row 0, whose samples are never mended, has active clauses")
    if guard.columns.shape[0] != gate.constant.shape[1]:
        raise CertificateError("the guard compares another number of outputs than the gate has")
    return raw, gate


def _guard(exported: Exported, switch: Switch, tree: Node, y: str) -> tuple[Guard, str]:
    """The guard, and the value that it gives: Greater(Gemm(row, value, transposed), 0.5) switches the gate.

    The value is an ensemble of trees over MatMul(y, columns), or over Concat(row, MatMul(y, columns)). Rows
    and the numbers at its leaves are whole and not negative, so the sum of their products over the batch is
    above 0.5 just where one of them is not zero.
    """
    total, half = _inputs(_produced(exported, switch.condition, "Greater"), 2)
    if not _is_half(exported.constants.get(half)):
        raise CertificateError(f"{brief(switch.condition)} does not compare with 0.5")
    gemm = _produced(exported, total, "Gemm")
    row, value = _inputs(gemm, 2)
    if attributes(gemm, transA=0, transB=0, alpha=1.0, beta=1.0) != (1, 0, 1.0, 1.0):
        raise CertificateError(f"{where(gemm)} does not add up row times guard over the batch")
    ensemble = exported.producer.get(value)
    if row != tree.outputs[0] or ensemble is None or ensemble.op != tree.op or ensemble is tree:
        raise CertificateError(f"{where(gemm)} does not add up row times guard over the batch")
    (features,) = _inputs(ensemble, 1)
    knows_row = _is_made_by(exported, features, "Concat")
    if knows_row:
        concat = exported.producer[features]
        first, features = _inputs(concat, 2)
        if first != row or attributes(concat, axis=0) != (1,):
            raise CertificateError(f"{where(concat)} does not put the row before the comparisons")
    compared, columns = _inputs(_produced(exported, features, "MatMul"), 2)
    if compared != y:
        raise CertificateError("the guard compares another value than the one that it lets through")
    table = _constant(exported, columns, (None, None))
    if table.size > MAX_ENTRIES or not table.size:
        raise CertificateError(f"the guard's columns hold {table.size} numbers; 1 to {MAX_ENTRIES} are read")
    trees = read_trees(ensemble, table.shape[1] + knows_row, MAX_ROWS, most=MAX_TREES)
    return Guard(trees, table, knows_row), value


def _place(exported: Exported, index: str, needing: tuple[str, str]) -> str:
    """Unsqueeze(place, 1) of place = Gather(NonZero(Mul(row, guard)), 0): the samples that are mended."""
    place, axes = _inputs(_produced(exported, index, "Unsqueeze"), 2)
    if not _is_scalar(exported.constants.get(axes), 1):
        raise CertificateError(f"{brief(index)} is no column of sample numbers")
    gather = _produced(exported, place, "Gather")
    places, first = _inputs(gather, 2)
    if attributes(gather, axis=0) != (0,) or not _is_zero(exported.constants.get(first)):
        raise CertificateError(f"{where(gather)} does not take the numbers of samples")
    found = _inputs(_produced(exported, places, "NonZero"), 1)[0]
    if _inputs(_produced(exported, found, "Mul"), 2) != needing:
        raise CertificateError(f"{brief(found)} is not row times guard")
    return place


def _mended_row(exported: Exported, sealed: str, taken: tuple[str, str]) -> str | None:
    """Cast(Gather(Gather(row of every sample, place, axis 0), 0, axis 1)): the rows of the samples mended.

    It is found from what the sealed value ends in: a row of the table of constants, or, where no sample that
    is mended can have another row than 1, the constant of that row itself; then None.
    """
    rest = sealed
    for _ in range(MAX_CANDIDATES + 1):
        if rest in exported.constants:
            return None
        if _is_made_by(exported, rest, "Gather"):
            break
        rest = _inputs(_produced(exported, rest, "Where"), 3)[2]
    row = _inputs(_produced(exported, rest, "Gather"), 2)[1]
    cast = _produced(exported, row, "Cast")
    if dict(cast.attributes) != {"to": INT64}:
        raise CertificateError(f"{where(cast)} does not give the row as a whole number")
    gather = _produced(exported, _inputs(cast, 1)[0], "Gather")
    rows, first = _inputs(gather, 2)
    outer = _produced(exported, rows, "Gather")
    if attributes(gather, axis=0) != (1,) or not _is_zero(exported.constants.get(first)):
        raise CertificateError(f"{where(gather)} does not take the row of each sample")
    if attributes(outer, axis=0) != (0,) or _inputs(outer, 2) != taken:
        raise CertificateError(f"{where(outer)} does not take the rows of the samples that are mended")
    return row


def _candidates(exported: Exported, final: str, row: str | None) -> tuple[list[_Test], Array]:
    """Follows Where(test(z), z, rest) to its end: all tests, and the constants."""
    tests: list[_Test] = []
    rest = final
    while not (rest in exported.constants if row is None else _is_made_by(exported, rest, "Gather")):
        passed, z, rest = _inputs(_produced(exported, rest, "Where"), 3)
        tests.append(_test(exported, passed, z, row))
        if len(tests) > MAX_CANDIDATES:
            raise CertificateError(f"the output gate has more than {MAX_CANDIDATES} candidates")
    if not tests:
        raise CertificateError("the output gate delivers nothing but a constant")
    table = exported.constants[rest if row is None else _row_of(exported, rest, row)]
    return tests, _table(table, np.float32, (None, None), "the table of constants")


def _gate(exported: Exported, test: _Test, constant: Array, guard: Guard) -> OutputGate:
    if test.inactive is None:
        if len(constant) != 1:
            raise CertificateError("a gate without a table of rows has one constant")
        constant = np.concatenate([np.zeros_like(constant), constant])
        inactive = np.repeat(np.array([[1], [0]], dtype=np.float32), len(test.clauses), axis=1)
    else:
        shape = (len(constant), len(test.clauses))
        inactive = exported.constants[test.inactive]
        inactive = _table(inactive, np.float32, shape, "the table of inactive clauses")
    if not np.isin(inactive, (0, 1)).all():
        raise CertificateError("the table of inactive clauses holds numbers that are not 0 or 1")
    if not np.isfinite(constant).all():
        raise CertificateError("the table of constants holds numbers that are not finite")
    width = constant.shape[1]
    for literal in (literal for clause in test.clauses for literal in clause):
        if not _reads_below(literal, width):
            raise CertificateError(f"a literal of the output gate reads beyond the {width} outputs")
    return OutputGate(guard, test.clauses, inactive == 0, constant)


def _reads_below(literal: Literal, width: int) -> bool:
    match literal:
        case Order(high, low):
            return max(high, low) < width
        case Above(index) | Below(index):
            return index < width
        case Linear(weight):
            return len(weight) == width


def _test(exported: Exported, passed: str, z: str, row: str | None) -> _Test:
    """Greater(ReduceMin(MatMul(Cast(literals), clauses) + inactive[row]), 0.5): clauses hold or are off; all
    must hold where nothing is added.
    """
    low, half = _inputs(_produced(exported, passed, "Greater"), 2)
    if not _is_half(exported.constants.get(half)):
        raise CertificateError(f"the test that gives {brief(passed)} does not compare with 0.5")
    reduce = _produced(exported, low, "ReduceMin")
    if attributes(reduce, axes=(), keepdims=1) != ((1,), 1):
        raise CertificateError(f"{where(reduce)} does not reduce axis 1 and keep it")
    count, off = _inputs(reduce, 1)[0], None
    if row is not None:
        count, inactive = _inputs(_produced(exported, count, "Add"), 2)
        off = _row_of(exported, inactive, row)
    literals, table = _inputs(_produced(exported, count, "MatMul"), 2)
    cast = _produced(exported, literals, "Cast")
    if dict(cast.attributes) != {"to": FLOAT}:
        raise CertificateError(f"{where(cast)} does not cast to float32")
    found = _literals(exported, _inputs(cast, 1)[0], z)
    clauses = exported.constants.get(table)
    if clauses is None:
        raise CertificateError(f"the clauses {brief(table)} are no constant")
    clauses = _table(clauses, np.float32, (len(found), None), "the table of clauses")
    if not np.isin(clauses, (0, 1)).all() or clauses.shape[1] == 0 or clauses.size > MAX_ENTRIES:
        raise CertificateError("the table of clauses holds numbers that are not 0 or 1, or none, or too many")
    joined = tuple(tuple(found[i] for i in np.flatnonzero(column)) for column in clauses.T)
    return _Test(joined, off)


def _is_half(value: Array | None) -> bool:
    return (
        value is not None and value.dtype == np.float32 and value.shape in {(), (1,)} and value.item() == 0.5
    )


def _is_zero(value: Array | None) -> bool:
    return value is not None and value.dtype == np.int64 and value.shape == () and value.item() == 0


def _is_scalar(value: Array | None, wanted: int) -> bool:
    return value is not None and value.dtype == np.int64 and value.shape == (1,) and value.item() == wanted


def _literals(exported: Exported, value: str, z: str) -> list[Literal]:
    blocks = [value]
    if _is_made_by(exported, value, "Concat"):
        concat = exported.producer[value]
        if attributes(concat, axis=0) != (1,):
            raise CertificateError(f"{where(concat)} does not join along axis 1")
        blocks = list(concat.inputs)
    found: list[Literal] = []
    for block in blocks:
        found += _block(exported, block, z)
    return found


def _block(exported: Exported, value: str, z: str) -> Sequence[Literal]:
    node = exported.producer.get(value)
    if node is None or node.domain or node.op not in {"Greater", "GreaterOrEqual", "Less"}:
        raise CertificateError(f"{brief(value)} is no block of literals")
    left, right = _inputs(node, 2)
    if _is_made_by(exported, left, "MatMul") and node.op == "Greater":
        return _linear_block(exported, left, right, z)
    at = _gathered(exported, left, z)
    if _is_made_by(exported, right, "Gather") and node.op != "Less":
        other = _gathered(exported, right, z)
        if len(other) != len(at):
            raise CertificateError(f"{where(node)} compares {len(at)} numbers with {len(other)}")
        return [Order(i, j, node.op == "Greater") for i, j in zip(at, other, strict=True)]
    than = _constant(exported, right, (len(at),))
    if node.op == "GreaterOrEqual":
        raise CertificateError(f"{where(node)} compares with constants; only Greater and Less may")
    kind = Above if node.op == "Greater" else Below
    return [kind(i, float(t)) for i, t in zip(at, than, strict=True)]


def _linear_block(exported: Exported, left: str, right: str, z: str) -> list[Literal]:
    read, weights = _inputs(_produced(exported, left, "MatMul"), 2)
    slack, threshold = _inputs(_produced(exported, right, "Add"), 2)
    absolute, slacks = _inputs(_produced(exported, slack, "MatMul"), 2)
    if read != z or _inputs(_produced(exported, absolute, "Abs"), 1) != (z,):
        raise CertificateError("a linear literal reads another value than the one it lets through")
    P = _constant(exported, weights, (None, None))
    Q = _constant(exported, slacks, P.shape)
    r = _constant(exported, threshold, (P.shape[1],))
    if P.size > MAX_ENTRIES or not len(P):
        raise CertificateError(f"the linear literals hold {P.size} numbers; 1 to {MAX_ENTRIES} are read")
    columns = zip(P.T.tolist(), Q.T.tolist(), r.tolist(), strict=True)
    return [Linear(tuple(p), tuple(q), t) for p, q, t in columns]


def _gathered(exported: Exported, value: str, z: str) -> list[int]:
    node = _produced(exported, value, "Gather")
    read, index = _inputs(node, 2)
    if read != z or attributes(node, axis=0) != (1,):
        raise CertificateError(f"{where(node)} reads another value than the one that the test lets through")
    found = exported.constants.get(index)
    if found is None or found.dtype.kind != "i" or found.ndim != 1 or (found < 0).any():
        raise CertificateError(f"{where(node)}: its indices are no constant list of whole numbers, 0 or more")
    return [int(i) for i in found]


def _constant(exported: Exported, name: str, shape: tuple[int | None, ...]) -> Array:
    value = exported.constants.get(name)
    if value is None:
        raise CertificateError(f"{brief(name)} is no constant")
    value = _table(value, np.float32, shape, brief(name))
    if not np.isfinite(value).all():
        raise CertificateError(f"{brief(name)} holds numbers that are not finite")
    return value


def _table(value: Array, dtype: Any, shape: tuple[int | None, ...], name: str) -> Array:
    fits = len(shape) == value.ndim and all(
        want in {None, got} for want, got in zip(shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        raise CertificateError(f"{name} has shape {value.shape}, or is not float32")
    return value


def _row_of(exported: Exported, value: str, row: str | None) -> str:
    """The name of the constant table whose row Gather(table, row) takes."""
    node = _produced(exported, value, "Gather")
    table, index = _inputs(node, 2)
    if attributes(node, axis=0) != (0,) or index != row or table not in exported.constants:
        raise CertificateError(
            f"{where(node)} does not take the row of the dispatch tree from a constant table"
        )
    return table


def _rows_of_neuron_gates(exported: Exported, row: str) -> int:
    for node in exported.nodes:
        if node.op == "Gather" and node.inputs[1:] == (row,) and node.inputs[0] in exported.constants:
            return (
                exported.constants[node.inputs[0]].shape[0] if exported.constants[node.inputs[0]].ndim else 0
            )
    raise CertificateError("the network has a dispatch tree but no gate that reads its row")


def _is_made_by(exported: Exported, value: str, op: str) -> bool:
    node = exported.producer.get(value)
    return node is not None and node.op == op and not node.domain


def _produced(exported: Exported, value: str, op: str) -> Node:
    node = exported.producer.get(value)
    if node is None or node.op != op or node.domain or node.outputs != (value,):
        found = where(node) if node else "no node"
        raise CertificateError(f"{brief(value)} must come from {op}, but comes from {found}")
    return node


def _inputs(node: Node, count: int) -> tuple[str, ...]:
    if len(node.inputs) != count or not all(node.inputs):
        raise CertificateError(f"{where(node)} has {len(node.inputs)} inputs, not {count}")
    return node.inputs


PREFIX = "sutura."
RESERVED_BY_GATE = ("sutura.inactive", "sutura.clauses", "sutura.constant")
FLOAT, INT64 = 1, 7
MAX_CANDIDATES = 8
MAX_ENTRIES = 1 << 22
MAX_TREES = 1 << 16
