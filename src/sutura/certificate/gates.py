"""The gates of an exported network, found by following names from the output; and the rules they must keep.

A dispatch tree gives every sample a row; row 0 is that of no gate. A guard, an ensemble of trees over exact
comparisons of outputs (and the row), gives 0 to a sample that may leave as it is. Where row times guard is
not zero for some sample of the batch, those samples, and no others, are replaced by the first z of a list of
candidates that passes the test of the row, or by the constant of the row where none does. A test is an AND
of clauses; a row switches off those that it does not need. The checker need not know how a candidate is
computed: it is delivered only if the very vector delivered passed the test. A row may have a box of inputs:
then samples outside of it leave as they are whatever the guard says.

A neuron gate replaces chosen entries of a value by constants, in chosen rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sutura.certificate import input_box
from sutura.certificate.clauses import Clause, excludes
from sutura.certificate.dispatch import MAX_ROWS, SINGLE_ROW, Dispatch, read_trees
from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.guard import Guard
from sutura.certificate.model import Exported, Switch, attributes, where
from sutura.certificate.sealed import MAX_ENTRIES, Test, candidates, mended_row, reads_below
from sutura.certificate.template import (
    constant,
    inputs,
    is_half,
    is_made_by,
    is_scalar,
    is_zero,
    produced,
    row_of,
    shaped,
)
from sutura.certificate.vnnlib import Case
from sutura.certificate.wire import Array, Node


@dataclass(frozen=True, slots=True, eq=False)
class OutputGate:
    """The guard; all clauses of the test; by row, which are active, the constant delivered where no
    candidate passes, and the lowest and highest inputs of its box (None: all inputs).
    """

    guard: Guard
    clauses: tuple[Clause, ...]
    active: Array
    constant: Array
    box: tuple[Array, Array] | None


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
    tables = [row_of(exported, name, gates.row) for name in node.inputs[:2]]
    mask, value = (exported.constants[name] for name in tables)
    if mask.dtype != np.bool_ or value.dtype != np.float32 or mask.shape != value.shape or mask.ndim < 2:
        raise CertificateError(f"{where(node)}: mask and value must be bool and float32, [rows, ...sample]")
    if len(mask) != gates.rows or not np.isfinite(value).all():
        raise CertificateError(f"{where(node)}: its tables do not hold {gates.rows} rows of finite numbers")
    return node.inputs[2], mask, value


def needs_bound(gates: Gates, row: int, case: Case) -> bool:
    """Whether a row leaves it to the network to be safe in a case; False where its gate makes it safe.

    Raises CertificateError where the row has active clauses that do not make every delivered output safe, or
    none although its samples may be mended.
    """
    gate = gates.output
    if gate is None:
        return True
    if not gate.active[row].any():
        if row and gate.guard.may_mend(row):
            raise CertificateError(f"row {row}: the guard may mend outputs that no active clause tests")
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


def acts(gates: Gates, row: int, lower: Sequence[float], upper: Sequence[float]) -> bool:
    """Whether the gate of a row mends all of a closed box of inputs."""
    if gates.output is None or gates.output.box is None:
        return True
    low, high = (end[row] for end in gates.output.box)
    return bool((low <= np.array(lower)).all() and (np.array(upper) <= high).all())


def _dispatch_tree(exported: Exported, trees: Sequence[Node]) -> Node:
    """The one tree that reads the input, flattened where that has more than one axis."""
    reading = [tree for tree in trees if _reads_input(exported, tree)]
    if len(reading) != 1 or len(trees) > 2:
        raise CertificateError(
            f"the network has {len(trees)} tree nodes, {len(reading)} over its input; want 1 or 2, and 1"
        )
    return reading[0]


def _reads_input(exported: Exported, tree: Node) -> bool:
    (flat,) = inputs(tree, 1)
    if flat == exported.input:
        if len(exported.sample) != 1:
            raise CertificateError(
                f"{where(tree)} reads an input of rank {len(exported.sample) + 1}; flatten it"
            )
        return True
    if not is_made_by(exported, flat, "Flatten"):
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
        fixed, shape = inputs(node, 2)
        attributes(node, allowzero=0)
        shape_of = produced(exported, shape, "Shape")
        attributes(shape_of, start=0)
        node = produced(exported, fixed, "ScatterND")
        y = inputs(node, 3)[0]
        flatten = produced(exported, y, "Flatten")
        if attributes(flatten, axis=1) != (1,) or flatten.inputs != (raw,) or shape_of.inputs != (raw,):
            raise CertificateError("the output gate mends another value than the one that it hands over")
    scattered, index, put = inputs(produced(exported, node.outputs[0], "ScatterND"), 3)
    if scattered != y or attributes(node, reduction=b"none") != (b"none",):
        raise CertificateError("the output gate mends another value than the one that it hands over")
    guard, failing = _guard(exported, switch, tree, y)
    place = _place(exported, index, (tree.outputs[0], failing))
    sealed = input_box.sealed(exported, put, (y, place))
    row = mended_row(exported, sealed, (tree.outputs[0], place))
    tests, constant = candidates(exported, sealed, row)
    if any(test != tests[0] for test in tests):
        raise CertificateError("the candidates of the output gate are not put to the same test")
    gate = _gate(exported, tests[0], constant, guard)
    if sealed != put:
        x = tree.inputs[0], place
        gate = replace(gate, box=input_box.table(exported, put, x, (row, (len(constant), exported.inputs))))
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
    total, half = inputs(produced(exported, switch.condition, "Greater"), 2)
    if not is_half(exported.constants.get(half)):
        raise CertificateError(f"{brief(switch.condition)} does not compare with 0.5")
    gemm = produced(exported, total, "Gemm")
    row, value = inputs(gemm, 2)
    if attributes(gemm, transA=0, transB=0, alpha=1.0, beta=1.0) != (1, 0, 1.0, 1.0):
        raise CertificateError(f"{where(gemm)} does not add up row times guard over the batch")
    ensemble = exported.producer.get(value)
    if row != tree.outputs[0] or ensemble is None or ensemble.op != tree.op or ensemble is tree:
        raise CertificateError(f"{where(gemm)} does not add up row times guard over the batch")
    (features,) = inputs(ensemble, 1)
    knows_row = is_made_by(exported, features, "Concat")
    if knows_row:
        concat = exported.producer[features]
        first, features = inputs(concat, 2)
        if first != row or attributes(concat, axis=0) != (1,):
            raise CertificateError(f"{where(concat)} does not put the row before the comparisons")
    compared, columns = inputs(produced(exported, features, "MatMul"), 2)
    if compared != y:
        raise CertificateError("the guard compares another value than the one that it lets through")
    table = constant(exported, columns, (None, None))
    if table.size > MAX_ENTRIES or not table.size:
        raise CertificateError(f"the guard's columns hold {table.size} numbers; 1 to {MAX_ENTRIES} are read")
    trees = read_trees(ensemble, table.shape[1] + knows_row, MAX_ROWS, most=MAX_TREES)
    return Guard(trees, table, knows_row), value


def _place(exported: Exported, index: str, needing: tuple[str, str]) -> str:
    """Unsqueeze(place, 1) of place = Gather(NonZero(Mul(row, guard)), 0): the samples that are mended."""
    place, axes = inputs(produced(exported, index, "Unsqueeze"), 2)
    if not is_scalar(exported.constants.get(axes), 1):
        raise CertificateError(f"{brief(index)} is no column of sample numbers")
    gather = produced(exported, place, "Gather")
    places, first = inputs(gather, 2)
    if attributes(gather, axis=0) != (0,) or not is_zero(exported.constants.get(first)):
        raise CertificateError(f"{where(gather)} does not take the numbers of samples")
    found = inputs(produced(exported, places, "NonZero"), 1)[0]
    if inputs(produced(exported, found, "Mul"), 2) != needing:
        raise CertificateError(f"{brief(found)} is not row times guard")
    return place


def _gate(exported: Exported, test: Test, constant: Array, guard: Guard) -> OutputGate:
    if test.inactive is None:
        if len(constant) != 1:
            raise CertificateError("a gate without a table of rows has one constant")
        constant = np.concatenate([np.zeros_like(constant), constant])
        inactive = np.repeat(np.array([[1], [0]], dtype=np.float32), len(test.clauses), axis=1)
    else:
        shape = (len(constant), len(test.clauses))
        inactive = exported.constants[test.inactive]
        inactive = shaped(inactive, np.float32, shape, "the table of inactive clauses")
    if not np.isin(inactive, (0, 1)).all():
        raise CertificateError("the table of inactive clauses holds numbers that are not 0 or 1")
    if not np.isfinite(constant).all():
        raise CertificateError("the table of constants holds numbers that are not finite")
    width = constant.shape[1]
    for literal in (literal for clause in test.clauses for literal in clause):
        if not reads_below(literal, width):
            raise CertificateError(f"a literal of the output gate reads beyond the {width} outputs")
    return OutputGate(guard, test.clauses, inactive == 0, constant, None)


def _rows_of_neuron_gates(exported: Exported, row: str) -> int:
    for node in exported.nodes:
        if node.op == "Gather" and node.inputs[1:] == (row,) and node.inputs[0] in exported.constants:
            return (
                exported.constants[node.inputs[0]].shape[0] if exported.constants[node.inputs[0]].ndim else 0
            )
    raise CertificateError("the network has a dispatch tree but no gate that reads its row")


PREFIX = "sutura."
RESERVED_BY_GATE = ("sutura.inactive", "sutura.clauses", "sutura.constant")
INT64 = 7
MAX_TREES = 1 << 16
