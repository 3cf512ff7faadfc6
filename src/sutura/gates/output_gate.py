"""The output gate: a sealed projection of the output into the safe set of its region.

What leaves the gate either passed a comparison of float32 numbers that implies the property, or is a constant
for which the property was checked exactly; the guarantee rests on no arithmetic and holds in every runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from sutura.gates.candidates import candidates
from sutura.gates.gate import Gate, OutputGate
from sutura.gates.literals import Comparisons, comparisons
from sutura.gates.onnx_part import Part, choice, node, tensor
from sutura.gates.output_test import passes
from sutura.gates.projection import Projection
from sutura.gates.safe_set import Clause
from sutura.network.graph import Network


def output_gate(network: Network, output: str, gates: Sequence[Gate], way: Projection, row: Part) -> Part:
    """From `sutura.raw` to `output`: where a sample of the batch is in a gated region, pass what is safe,
    move what is not, fall back on the constant; else hand over all untouched. `row` defines `sutura.row`."""
    n = network.output_size
    clauses = list(dict.fromkeys(c for g in gates if isinstance(g, OutputGate) for c in g.safe))
    literals = comparisons(list(dict.fromkeys(x for clause in clauses for x in clause)), n)
    rank2 = len(network.output_shape) == 1
    y = "sutura.raw" if rank2 else "sutura.y"
    part = row + Part(() if rank2 else (node("Flatten", ["sutura.raw"], "sutura.y", axis=1),))
    part += _tables(gates, clauses, literals, n)
    part += _test(y, literals, "sutura.test0")
    mend = _mend(y, literals, way)
    part += Part(
        (
            node("Cast", ["sutura.test0.ok"], "sutura.passing", to=TensorProto.FLOAT),
            node("ReduceMin", ["sutura.passing"], "sutura.least_passing", keepdims=0),
            node("Less", ["sutura.least_passing", "sutura.half"], "sutura.any_failing"),
            choice("sutura.any_failing", "sutura.tested", mend.nodes, (_handed_over("passed"),)),
        ),
        mend.tensors,
    )
    return Part(
        (
            node("ReduceMax", ["sutura.leaf"], "sutura.highest_row", keepdims=0),
            node("Greater", ["sutura.highest_row", "sutura.half"], "sutura.any_gate"),
            choice("sutura.any_gate", output, part.nodes, (_handed_over("untouched"),)),
        ),
        part.tensors,
    )


def _handed_over(name: str) -> onnx.NodeProto:
    return node("Identity", ["sutura.raw"], f"sutura.{name}")


def _mend(y: str, literals: Comparisons, way: Projection) -> Part:
    """Move what fails the test, test it again, fall back on the constant. Runs where some sample fails."""
    part = candidates(y, "sutura.test0.ok", literals, way) + _test("sutura.fix", literals, "sutura.test1")
    part += Part(
        (
            node("Gather", ["sutura.constant", "sutura.row"], "sutura.constant.row", axis=0),
            node("Where", ["sutura.test1.ok", "sutura.fix", "sutura.constant.row"], "sutura.fixed"),
            node("Where", ["sutura.test0.ok", y, "sutura.fixed"], "sutura.sealed"),
        )
    )
    if y == "sutura.raw":
        return part
    shape = (
        node("Shape", ["sutura.raw"], "sutura.shape"),
        node("Reshape", ["sutura.sealed", "sutura.shape"], "sutura.shaped"),
    )
    return part + Part(shape)


def _tables(gates: Sequence[Gate], clauses: Sequence[Clause], literals: Comparisons, n: int) -> Part:
    inactive = np.ones((len(gates) + 1, len(clauses)), np.float32)
    constant = np.zeros((len(gates) + 1, n), np.float32)
    for row, gate in enumerate(gates, start=1):
        if isinstance(gate, OutputGate):
            inactive[row] = [float(clause not in gate.safe) for clause in clauses]
            constant[row] = gate.constant
    membership = np.array([[float(x in clause) for clause in clauses] for x in literals.order], np.float32)
    tensors = (
        tensor("sutura.inactive", inactive),
        tensor("sutura.clauses", membership),
        tensor("sutura.constant", constant),
        tensor("sutura.half", np.array(0.5, np.float32)),
        *_literal_tensors(literals),
    )
    return Part((node("Gather", ["sutura.inactive", "sutura.row"], "sutura.inactive.row", axis=0),), tensors)


def _literal_tensors(literals: Comparisons) -> tuple[onnx.TensorProto, ...]:
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


def _test(z: str, literals: Comparisons, name: str) -> Part:
    """`name`.ok: whether z passes every clause that is active in its row."""
    return passes(z, literals, name, "sutura.inactive.row", axis=1, keep=1)
