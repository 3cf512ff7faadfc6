"""The test of outputs in ONNX: does a vector pass every clause that is active in its row?"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from sutura.gates.literals import Comparisons
from sutura.gates.onnx_part import Part, node


def passes(z: str, literals: Comparisons, name: str, inactive: str | None, *, axis: int, keep: int) -> Part:
    """Nodes that define `name`.ok for the vectors along `axis` of z; `inactive`: 1 for clauses not asked for
    (None: all are)."""
    nodes: list[onnx.NodeProto] = []
    blocks: list[str] = []

    def block(kind: str, op: str, left: str, right: str) -> None:
        nodes.append(node(op, [left, right], f"{name}.{kind}"))
        blocks.append(f"{name}.{kind}")

    def taken(indices: str) -> str:
        nodes.append(node("Gather", [z, f"sutura.{indices}"], f"{name}.{indices}.taken", axis=axis))
        return f"{name}.{indices}.taken"

    if literals.greater.size:
        block("order", "Greater", taken("lhs"), taken("rhs"))
    if literals.greater_eq.size:
        block("order_eq", "GreaterOrEqual", taken("lhs_eq"), taken("rhs_eq"))
    if literals.above.size:
        block("above", "Greater", taken("above"), "sutura.above_than")
    if literals.below.size:
        block("below", "Less", taken("below"), "sutura.below_than")
    if literals.linear_than.size:
        nodes += [
            node("MatMul", [z, "sutura.linear"], f"{name}.sum"),
            node("Abs", [z], f"{name}.abs"),
            node("MatMul", [f"{name}.abs", "sutura.linear_slack"], f"{name}.slack"),
            node("Add", [f"{name}.slack", "sutura.linear_than"], f"{name}.than"),
        ]
        block("linear", "Greater", f"{name}.sum", f"{name}.than")
    literal = blocks[0]
    if len(blocks) > 1:
        literal = f"{name}.literals"
        nodes.append(node("Concat", blocks, literal, axis=axis))
    total = f"{name}.count" if inactive is None else f"{name}.total"
    nodes += [
        node("Cast", [literal], f"{name}.float", to=TensorProto.FLOAT),
        node("MatMul", [f"{name}.float", "sutura.clauses"], f"{name}.count"),
        *(() if inactive is None else (node("Add", [f"{name}.count", inactive], f"{name}.total"),)),
        node("ReduceMin", [total], f"{name}.least", axes=[axis], keepdims=keep),
        node("Greater", [f"{name}.least", "sutura.half"], f"{name}.ok"),
    ]
    return Part(tuple(nodes))
