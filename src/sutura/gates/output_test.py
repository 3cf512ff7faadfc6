"""The test of outputs in ONNX: does a vector pass every clause that is active in its row?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from jaxtyping import Float32
from onnx import TensorProto

from sutura.gates.literals import Comparisons
from sutura.gates.onnx_part import Part, node, tensor


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
    found = Part(tuple(nodes)) + _sums(z, literals, name, blocks)
    return found + _every_clause(blocks, name, inactive, (axis, keep))


def tried(z: str, literals: Comparisons, name: str, inactive: str | None) -> Part:
    """The same for the last axis of z [N, k, n], by differences, which runtimes get sooner than entries.

    A difference so small that it may be flushed to zero is not seen: nothing may rest on this test alone.
    """
    columns, than = _differences(literals)
    blocks: list[str] = []
    part = Part()
    if len(than):
        nodes = (
            node("MatMul", [z, "sutura.try_columns"], f"{name}.gaps"),
            node("Greater", [f"{name}.gaps", "sutura.try_than"], f"{name}.simple"),
        )
        part = Part(nodes, (tensor("sutura.try_columns", columns), tensor("sutura.try_than", than)))
        blocks.append(f"{name}.simple")
    part += _sums(z, literals, name, blocks)
    return part + _every_clause(blocks, name, inactive, (2, 0))


def _sums(z: str, literals: Comparisons, name: str, blocks: list[str]) -> Part:
    """The literals that are sums; their block is added to the others."""
    if not literals.linear_than.size:
        return Part()
    blocks.append(f"{name}.linear")
    return Part(
        (
            node("MatMul", [z, "sutura.linear"], f"{name}.sum"),
            node("Abs", [z], f"{name}.abs"),
            node("MatMul", [f"{name}.abs", "sutura.linear_slack"], f"{name}.slack"),
            node("Add", [f"{name}.slack", "sutura.linear_than"], f"{name}.than"),
            node("Greater", [f"{name}.sum", f"{name}.than"], f"{name}.linear"),
        )
    )


def _every_clause(blocks: Sequence[str], name: str, inactive: str | None, how: tuple[int, int]) -> Part:
    (axis, keep), literal = how, blocks[0]
    joined: tuple[onnx.NodeProto, ...] = ()
    if len(blocks) > 1:
        literal = f"{name}.literals"
        joined = (node("Concat", blocks, literal, axis=axis),)
    total = f"{name}.count" if inactive is None else f"{name}.total"
    return Part(
        (
            *joined,
            node("Cast", [literal], f"{name}.float", to=TensorProto.FLOAT),
            node("MatMul", [f"{name}.float", "sutura.clauses"], f"{name}.count"),
            *(() if inactive is None else (node("Add", [f"{name}.count", inactive], f"{name}.total"),)),
            node("ReduceMin", [total], f"{name}.least", axes=[axis], keepdims=keep),
            node("Greater", [f"{name}.least", "sutura.half"], f"{name}.ok"),
        )
    )


def _differences(x: Comparisons) -> tuple[Float32[np.ndarray, "n k"], Float32[np.ndarray, " k"]]:
    """Columns and thresholds: z @ columns > thresholds says what the literals without sums say, in order."""
    plus = np.concatenate([x.greater, x.greater_eq, x.above])
    minus = np.concatenate([x.less, x.less_eq])
    orders, up = len(minus), len(plus)
    columns = np.zeros((len(x.linear), up + len(x.below)), np.float32)
    columns[plus, np.arange(up)] = 1.0
    columns[minus, np.arange(orders)] = -1.0
    columns[x.below, up + np.arange(len(x.below))] = -1.0
    ties = np.full(len(x.greater_eq), -np.finfo(np.float32).tiny, np.float32)
    zeros = np.zeros(len(x.greater), np.float32)
    return columns, np.concatenate([zeros, ties, x.above_than, -x.below_than]).astype(np.float32)
