"""The output gate: a sealed projection of the output into the safe set of its region.

What leaves the gate either passed a comparison of float32 numbers that implies the property, or is a constant
for which the property was checked exactly; the guarantee rests on no arithmetic and holds in every runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from sutura.gates.candidates import candidates
from sutura.gates.gate import Gate, OutputGate
from sutura.gates.guard import by_row, guard
from sutura.gates.input_box import in_box
from sutura.gates.literals import Comparisons, comparisons
from sutura.gates.onnx_part import Part, choice, node, tensor
from sutura.gates.output_test import Test, passes
from sutura.gates.projection import Projection
from sutura.gates.safe_set import Clause
from sutura.network.graph import Network


def output_gate(network: Network, ends: tuple[str, str], gates: Sequence[Gate], way: Projection) -> Part:
    """From `sutura.raw` to the output: where a sample in a gated region fails the guard, those that fail are
    mended; else all are handed over untouched. `ends` are the flat input and the output."""
    (x, output), n = ends, network.output_size
    clauses = list(dict.fromkeys(c for g in gates if isinstance(g, OutputGate) for c in g.safe))
    literals = comparisons(list(dict.fromkeys(x for clause in clauses for x in clause)), n)
    rank2 = len(network.output_shape) == 1
    y = "sutura.raw" if rank2 else "sutura.y"
    part = Part(() if rank2 else (node("Flatten", ["sutura.raw"], "sutura.y", axis=1),))
    part += guard(y, gates, clauses, literals, n)
    several = by_row(gates)
    boxed = in_box(x, gates, network.input_size)
    test = Test(literals, np.array([[float(x in c) for c in clauses] for x in literals.order], np.float32))
    tables = _tables(gates, clauses, test) if several else _single(gates[0], test)
    mend = _mend(y, test, way, (several, boxed)) + tables
    untouched = Part((node("Identity", ["sutura.raw"], "sutura.untouched"),))
    return part + Part((choice("sutura.any_failing", output, mend, untouched),))


def _mend(y: str, test: Test, way: Projection, rows: tuple[bool, Part]) -> Part:
    """Move the failing samples, test what comes out, fall back on the constant, put them back in place.

    `rows`: whether gates differ by row, and the test whether a sample lies in the box of its row. A single
    gate asks for all clauses of all samples, and has one constant: no rows are looked up.
    """
    several, boxed = rows
    part = Part(
        (
            node("Mul", ["sutura.leaf", "sutura.failing"], "sutura.needing"),
            node("NonZero", ["sutura.needing"], "sutura.places"),
            node("Gather", ["sutura.places", "sutura.first"], "sutura.place", axis=0),
            node("Unsqueeze", ["sutura.place", "sutura.second_axis"], "sutura.index"),
            node("Gather", [y, "sutura.index"], "sutura.each", axis=0),
        ),
        (
            tensor("sutura.first", np.array(0, np.int64)),
            tensor("sutura.second_axis", np.array([1], np.int64)),
        ),
    )
    if way.stars or boxed.nodes:
        part += Part((node("Gather", [y, "sutura.place"], "sutura.bad", axis=0),))
    part += _looked_up() if several else Part()
    inactive, constant = (
        ("sutura.inactive.row", "sutura.constant.row") if several else (None, "sutura.constant")
    )
    part += candidates(inactive, test, way)
    part += passes("sutura.mended", test, "sutura.test", inactive)
    part += Part((node("Where", ["sutura.test.ok", "sutura.mended", constant], "sutura.sealed"),))
    part += boxed
    put = "sutura.kept" if boxed.nodes else "sutura.sealed"
    part += Part((node("ScatterND", [y, "sutura.index", put], "sutura.fixed"),))
    if y == "sutura.raw":
        return part
    shape = (
        node("Shape", ["sutura.raw"], "sutura.shape"),
        node("Reshape", ["sutura.fixed", "sutura.shape"], "sutura.shaped"),
    )
    return part + Part(shape)


def _looked_up() -> Part:
    """What the rows of the failing samples ask for."""
    return Part(
        (
            node("Gather", ["sutura.leaf", "sutura.place"], "sutura.bad_leaf", axis=0),
            node("Gather", ["sutura.bad_leaf", "sutura.first"], "sutura.bad_row", axis=1),
            node("Cast", ["sutura.bad_row"], "sutura.mended_row", to=TensorProto.INT64),
            node("Gather", ["sutura.inactive", "sutura.mended_row"], "sutura.inactive.row", axis=0),
            node("Gather", ["sutura.constant", "sutura.mended_row"], "sutura.constant.row", axis=0),
        )
    )


def _single(gate: Gate, test: Test) -> Part:
    assert isinstance(gate, OutputGate)
    return Part((), (tensor("sutura.constant", gate.constant[None]), *_test_tensors(test)))


def _tables(gates: Sequence[Gate], clauses: Sequence[Clause], test: Test) -> Part:
    n = next(len(gate.constant) for gate in gates if isinstance(gate, OutputGate))
    inactive = np.ones((len(gates) + 1, len(clauses)), np.float32)
    constant = np.zeros((len(gates) + 1, n), np.float32)
    for row, gate in enumerate(gates, start=1):
        if isinstance(gate, OutputGate):
            inactive[row] = [float(clause not in gate.safe) for clause in clauses]
            constant[row] = gate.constant
    tables = tensor("sutura.inactive", inactive), tensor("sutura.constant", constant)
    return Part((), (*tables, *_test_tensors(test)))


def _test_tensors(test: Test) -> tuple[TensorProto, ...]:
    return (tensor("sutura.clauses", test.members), *_literal_tensors(test.literals))


def _literal_tensors(literals: Comparisons) -> tuple[TensorProto, ...]:
    blocks = {
        "lhs": literals.greater,
        "rhs": literals.less,
        "lhs_eq": literals.greater_eq,
        "rhs_eq": literals.less_eq,
        "above": literals.above,
        "above_than": literals.above_than,
        "below": literals.below,
        "below_than": literals.below_than,
        "linear": literals.linear,
        "linear_slack": literals.slack,
        "linear_than": literals.linear_than,
    }
    return tuple(tensor(f"sutura.{name}", value) for name, value in blocks.items() if value.size)
