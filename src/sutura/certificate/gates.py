"""The gates of an exported network, found by following names from the output; and the rules they must keep.

The output gate delivers z for the first candidate z (the network's own output, then a repaired one) that
passes the test of the row, and the constant of the row where none does. A test is an AND of clauses; a row
switches off those it does not need. The checker need not know how a repaired candidate is computed: it is
delivered only if the very vector delivered passed the test. A row with all clauses off delivers the
network's own output.

A neuron gate replaces chosen entries of a value by constants, in chosen rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sutura.certificate.clauses import Above, Below, Clause, Linear, Literal, Order, excludes
from sutura.certificate.dispatch import SINGLE_ROW, Dispatch, read_dispatch
from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.model import Exported, Switch, attributes, where
from sutura.certificate.vnnlib import Case
from sutura.certificate.wire import Array, Node


@dataclass(frozen=True, slots=True, eq=False)
class OutputGate:
    """All clauses of the test; by row, which are active, and the constant delivered where no candidate
    passes.
    """

    clauses: tuple[Clause, ...]
    active: Array
    constant: Array


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """`raw`: the value that rows without active clauses deliver; `row`: the value that holds the row, or
    None.
    """

    raw: str
    rows: int
    row: str | None
    dispatch: Dispatch
    output: OutputGate | None


@dataclass(frozen=True, slots=True)
class _Test:
    clauses: tuple[Clause, ...]
    inactive: str
    row: str


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
    if len(trees) > 1:
        raise CertificateError(f"the network has {len(trees)} dispatch trees; at most 1 is known here")
    row = _row_value(exported, trees[0])
    raw, gate, passed = _output_gate(exported, row)
    for switch in exported.switches:
        _check_switch(exported, switch, trees[0], gate, passed)
    rows = len(gate.active) if gate else _rows_of_neuron_gates(exported, row)
    return Gates(raw, rows, row, read_dispatch(trees[0], exported.inputs, rows), gate)


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
    constant = [float(value) for value in gate.constant[row]]
    if any(all(inequality.holds(constant) for inequality in conjunction) for conjunction in case.unsafe):
        raise CertificateError(f"row {row}: its constant output is unsafe")
    return False


def _row_value(exported: Exported, tree: Node) -> str:
    """The value that holds the row as an integer: Cast(Reshape(tree(flat input), [-1]))."""
    (flat,) = _inputs(tree, 1)
    if flat != exported.input:
        flatten = _produced(exported, flat, "Flatten")
        if attributes(flatten, axis=1) != (1,) or flatten.inputs != (exported.input,):
            raise CertificateError(f"{where(tree)} does not read the flattened input")
    elif len(exported.sample) != 1:
        raise CertificateError(f"{where(tree)} reads an input of rank {len(exported.sample) + 1}; flatten it")
    found = [name for name, node in exported.producer.items() if _is_row(exported, node, tree)]
    if len(found) != 1:
        raise CertificateError(f"{where(tree)}: its row is cast to an integer {len(found)} times; want once")
    return found[0]


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


def _output_gate(exported: Exported, row: str) -> tuple[str, OutputGate | None, str]:
    """The value tested first, the gate, and the value that says which samples pass as they are."""
    final, shaped_as = exported.output, None
    node = exported.producer[final]
    if node.op == "Reshape" and _is_made_by(exported, node.inputs[-1], "Shape"):
        final, shape = _inputs(node, 2)
        attributes(node, allowzero=0)
        shaped_as = _inputs(_produced(exported, shape, "Shape"), 1)[0]
        attributes(_produced(exported, shape, "Shape"), start=0)
        node = _produced(exported, final, "Where")
    if node.op != "Where" or not _is_made_by(exported, _inputs(node, 3)[0], "Greater"):
        if shaped_as or any(name.startswith(RESERVED_BY_GATE) for name in exported.constants):
            raise CertificateError(f"the output {brief(exported.output)} does not come from its output gate")
        return exported.output, None, ""
    first, tests, constant, passed = _candidates(exported, final, row)
    if any(test != tests[0] for test in tests):
        raise CertificateError("the candidates of the output gate are not put to the same test")
    if shaped_as is not None:
        flatten = _produced(exported, first, "Flatten")
        if attributes(flatten, axis=1) != (1,) or flatten.inputs != (shaped_as,):
            raise CertificateError("the output gate reshapes to a value that it does not test")
    if any(switch.otherwise != (shaped_as or first) for switch in exported.switches):
        raise CertificateError("the output gate, switched off, does not hand over the value that it tests")
    return first, _gate(exported, tests[0], constant), passed


def _check_switch(
    exported: Exported, switch: Switch, tree: Node, gate: OutputGate | None, passed: str
) -> None:
    """The output gate may be left out where it would change nothing, in one of two ways.

    Its use may be conditional on Greater(ReduceMax(tree), 0.5), if row 0 asks nothing of it: rows are whole
    numbers, 0 or more, so that otherwise all are 0. And on Less(ReduceMin(Cast(test of the network's own
    output)), 0.5): otherwise every sample of the batch passes the test as it is.
    """
    if _is_made_by(exported, switch.condition, "Less"):
        least, half = _inputs(_produced(exported, switch.condition, "Less"), 2)
        reduce = _produced(exported, least, "ReduceMin")
        cast = _produced(exported, _inputs(reduce, 1)[0], "Cast")
        if dict(cast.attributes) != {"to": FLOAT} or cast.inputs != (passed,):
            raise CertificateError(f"{where(cast)} is not the test of the network's own output")
        asks = gate is not None
    else:
        highest, half = _inputs(_produced(exported, switch.condition, "Greater"), 2)
        reduce = _produced(exported, highest, "ReduceMax")
        if reduce.inputs != tree.outputs:
            raise CertificateError(f"{where(reduce)} is not the highest row of the batch")
        asks = gate is not None and not gate.active[0].any()
    if dict(reduce.attributes) != {"keepdims": 0} or len(reduce.inputs) != 1:
        raise CertificateError(f"{where(reduce)} does not reduce the whole batch, as the highest row is")
    if not _is_half(exported.constants.get(half)):
        raise CertificateError(f"{brief(switch.condition)} does not compare with 0.5")
    if not asks:
        raise CertificateError("the output gate is switched off where row 0 needs it")


def _candidates(exported: Exported, final: str, row: str) -> tuple[str, list[_Test], Array, str]:
    """Follows Where(test(z), z, rest) to its end: the first z, all tests, the constants, the first test."""
    zs: list[str] = []
    passes: list[str] = []
    tests: list[_Test] = []
    rest = final
    while not _is_made_by(exported, rest, "Gather"):
        passed, z, rest = _inputs(_produced(exported, rest, "Where"), 3)
        tests.append(_test(exported, passed, z, row))
        zs.append(z)
        passes.append(passed)
        if len(zs) > MAX_CANDIDATES:
            raise CertificateError(f"the output gate has more than {MAX_CANDIDATES} candidates")
    if not zs:
        raise CertificateError("the output gate delivers nothing but a constant")
    table = exported.constants[_row_of(exported, rest, row)]
    return zs[0], tests, _table(table, np.float32, (None, None), "the table of constants"), passes[0]


def _gate(exported: Exported, test: _Test, constant: Array) -> OutputGate:
    shape = (len(constant), len(test.clauses))
    inactive = _table(exported.constants[test.inactive], np.float32, shape, "the table of inactive clauses")
    if not np.isin(inactive, (0, 1)).all():
        raise CertificateError("the table of inactive clauses holds numbers that are not 0 or 1")
    if not np.isfinite(constant).all():
        raise CertificateError("the table of constants holds numbers that are not finite")
    width = constant.shape[1]
    for literal in (literal for clause in test.clauses for literal in clause):
        if not _reads_below(literal, width):
            raise CertificateError(f"a literal of the output gate reads beyond the {width} outputs")
    return OutputGate(test.clauses, inactive == 0, constant)


def _reads_below(literal: Literal, width: int) -> bool:
    match literal:
        case Order(high, low):
            return max(high, low) < width
        case Above(index) | Below(index):
            return index < width
        case Linear(weight):
            return len(weight) == width


def _test(exported: Exported, passed: str, z: str, row: str) -> _Test:
    """Greater(ReduceMin(MatMul(Cast(literals), clauses) + inactive[row]), 0.5): clauses hold or are off."""
    low, half = _inputs(_produced(exported, passed, "Greater"), 2)
    if not _is_half(exported.constants.get(half)):
        raise CertificateError(f"the test that gives {brief(passed)} does not compare with 0.5")
    reduce = _produced(exported, low, "ReduceMin")
    if attributes(reduce, axes=(), keepdims=1) != ((1,), 1):
        raise CertificateError(f"{where(reduce)} does not reduce axis 1 and keep it")
    count, off = _inputs(_produced(exported, _inputs(reduce, 1)[0], "Add"), 2)
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
    return _Test(joined, _row_of(exported, off, row), row)


def _is_half(value: Array | None) -> bool:
    return (
        value is not None and value.dtype == np.float32 and value.shape in {(), (1,)} and value.item() == 0.5
    )


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
