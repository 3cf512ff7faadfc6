"""The test of outputs in ONNX: does a vector pass every clause that is active in its row?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from jaxtyping import Float32
from onnx import TensorProto

from sutura.gates.literals import Comparisons
from sutura.gates.onnx_part import Part, node, tensor


@dataclass(frozen=True, slots=True, eq=False)
class Test:
    """An AND of clauses, each an OR of literals: `members` is 1 where a literal stands in a clause."""

    literals: Comparisons
    members: Float32[np.ndarray, "literals clauses"]

    @property
    def single(self) -> bool:
        """Whether there is one clause only."""
        return self.members.shape[1] == 1


def passes(z: str, test: Test, name: str, inactive: str | None) -> Part:
    """Nodes that define `name`.ok [N, 1] for z [N, n]; `inactive`: 1 for clauses not asked for (None: all
    are)."""
    literals = test.literals
    nodes: list[onnx.NodeProto] = []
    blocks: list[str] = []

    def block(kind: str, op: str, left: str, right: str) -> None:
        nodes.append(node(op, [left, right], f"{name}.{kind}"))
        blocks.append(f"{name}.{kind}")

    def taken(indices: str) -> str:
        nodes.append(node("Gather", [z, f"sutura.{indices}"], f"{name}.{indices}.taken", axis=1))
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
    return (
        found + _counted(blocks, name, inactive, 1) + _all_hold(name, inactive, () if test.single else (1, 1))
    )


def tried(z: str, test: Test, name: str, inactive: str | None) -> Part:
    """`name`.ok [N, k] for z [N, k, n], by differences, which runtimes get sooner than entries.

    A difference so small that it may be flushed to zero is not seen: nothing may rest on this test alone.
    """
    columns, than = _differences(test.literals)
    blocks: list[str] = []
    part = Part()
    if len(than):
        gaps = node("MatMul", [z, "sutura.try_columns"], f"{name}.gaps")
        part = Part((gaps,), (tensor("sutura.try_columns", columns),))
        if inactive is None and (extreme := _extreme(test, than)):
            return part + _by_extreme(name, extreme, than[:1])
        above = node("Greater", [f"{name}.gaps", "sutura.try_than"], f"{name}.simple")
        part += Part((above,), (tensor("sutura.try_than", than),))
        blocks.append(f"{name}.simple")
    part += _sums(z, test.literals, name, blocks)
    return part + _counted(blocks, name, inactive, 2) + _all_hold(name, inactive, (2, 0))


def _extreme(test: Test, than: Float32[np.ndarray, " k"]) -> str:
    """What says of all differences at once whether the test holds: their largest where one clause has all
    literals, their least where each is a clause. Nothing where the thresholds are not one, or there are sums.
    """
    if test.literals.linear_than.size or (than != than[0]).any():
        return ""
    if test.single and test.members.all():
        return "ReduceMax"
    return "ReduceMin" if (test.members.sum(axis=0) == 1).all() else ""


def _by_extreme(name: str, extreme: str, than: Float32[np.ndarray, " 1"]) -> Part:
    nodes = (
        node(extreme, [f"{name}.gaps"], f"{name}.extreme", axes=[2], keepdims=0),
        node("Greater", [f"{name}.extreme", "sutura.try_than"], f"{name}.ok"),
    )
    return Part(nodes, (tensor("sutura.try_than", than),))


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


def _counted(blocks: Sequence[str], name: str, inactive: str | None, axis: int) -> Part:
    """How many literals of each clause hold, one more where it is not asked for."""
    literal = blocks[0]
    joined: tuple[onnx.NodeProto, ...] = ()
    if len(blocks) > 1:
        literal = f"{name}.literals"
        joined = (node("Concat", blocks, literal, axis=axis),)
    nodes = (
        *joined,
        node("Cast", [literal], f"{name}.float", to=TensorProto.FLOAT),
        node("MatMul", [f"{name}.float", "sutura.clauses"], f"{name}.count"),
        *(() if inactive is None else (node("Add", [f"{name}.count", inactive], f"{name}.total"),)),
    )
    return Part(nodes)


def _all_hold(name: str, inactive: str | None, least: tuple[int, ...]) -> Part:
    """Whether no clause counts nothing. `least`: the axis of the clauses and whether it stays; () for one."""
    total = f"{name}.count" if inactive is None else f"{name}.total"
    if not least:
        return Part((node("Greater", [total, "sutura.half"], f"{name}.ok"),))
    axis, keep = least
    return Part(
        (
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
