"""Tiny exported files, written after the template of docs alone: networks, gates, certificates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sutura.certificate import schema, tree
from sutura.certificate.schema import Certificate, Counts, PropertyEntry
from sutura.certificate.tree import LEAF, Split

Weights = Sequence[tuple[np.ndarray, np.ndarray]]


def f32(value) -> np.ndarray:
    return np.array(value, dtype=np.float32)


@dataclass
class Draft:
    """Nodes and constants of a file, in the order in which they are added; `save` takes both as they are.

    Where there are `mending` nodes, the output comes from an If that computes the last of them, or hands over
    `sutura.raw`.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    mending: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: tuple[int, ...] = (1,)
    outputs: tuple[int, ...] = (1,)
    output: str = "Y"

    def node(self, op, inputs, output, **attributes) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name, value) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def mend(self, op, inputs, output, **attributes) -> str:
        self.mending.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def find(self, name) -> onnx.NodeProto:
        return next(node for node in [*self.nodes, *self.mending] if node.name == name)

    def switch(self) -> list[onnx.NodeProto]:
        if not self.mending:
            return []
        untouched = helper.make_node("Identity", ["sutura.raw"], ["sutura.untouched"], "sutura.untouched")
        branches = {
            key: helper.make_graph(
                nodes, key, [], [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
            )
            for key, nodes in (("then_branch", self.mending), ("else_branch", [untouched]))
        }
        return [helper.make_node("If", ["sutura.any"], [self.output], "Y", **branches)]

    def save(self) -> bytes:
        graph = helper.make_graph(
            [*self.nodes, *self.switch()],
            "exported",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", *self.inputs])],
            [helper.make_tensor_value_info(self.output, TensorProto.FLOAT, ["N", *self.outputs])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        domains = {node.domain for node in self.nodes}
        opsets = [helper.make_opsetid("", 17)]
        if "ai.onnx.ml" in domains:
            opsets.append(helper.make_opsetid("ai.onnx.ml", 3))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return model.SerializeToString(deterministic=True)


def dense(weights: Weights, output: str = "Y") -> Draft:
    """MatMul, Add, Relu, ..., MatMul, Add. Weights are (in, out) and (out,)."""
    draft = Draft(inputs=(weights[0][0].shape[0],), outputs=(weights[-1][0].shape[1],))
    value = "X"
    for at, (weight, bias) in enumerate(weights):
        draft.constant(f"W{at}", f32(weight))
        draft.constant(f"b{at}", f32(bias))
        value = draft.node("MatMul", [value, f"W{at}"], f"m{at}")
        last = at == len(weights) - 1
        value = draft.node("Add", [value, f"b{at}"], output if last else f"a{at}")
        if not last:
            value = draft.node("Relu", [value], f"h{at}")
    return draft


def tree_node(reads: str, name: str, trees: Sequence[Sequence[tuple]]) -> onnx.NodeProto:
    """Each tree lists its nodes by number: ("leaf", number) or (feature, threshold, left, right)."""
    every = [(number, at, split) for number, tree in enumerate(trees) for at, split in enumerate(tree)]
    leaf = [(number, at, split[1]) for number, at, split in every if split[0] == "leaf"]

    def column(at, otherwise):
        return [split[at] if split[0] != "leaf" else otherwise for _, _, split in every]

    return helper.make_node(
        "TreeEnsembleRegressor",
        [reads],
        [name],
        name=name,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=[number for number, _, _ in every],
        nodes_nodeids=[at for _, at, _ in every],
        nodes_featureids=column(0, 0),
        nodes_values=[float(value) for value in column(1, 0.0)],
        nodes_modes=["LEAF" if split[0] == "leaf" else "BRANCH_LEQ" for _, _, split in every],
        nodes_truenodeids=column(2, 0),
        nodes_falsenodeids=column(3, 0),
        target_treeids=[number for number, _, _ in leaf],
        target_nodeids=[at for _, at, _ in leaf],
        target_ids=[0] * len(leaf),
        target_weights=[float(row) for _, _, row in leaf],
    )


def add_dispatch(draft: Draft, splits: Sequence[tuple], *, row: bool = False) -> None:
    """The dispatch tree over X; `row` adds the row as an index, for neuron gates."""
    draft.nodes.insert(0, tree_node("X", "sutura.leaf", [splits]))
    if row:
        draft.constant("sutura.flat_shape", np.array([-1], dtype=np.int64))
        at = draft.nodes
        at.insert(1, helper.make_node("Reshape", ["sutura.leaf", "sutura.flat_shape"], ["sutura.flat_row"]))
        at.insert(2, helper.make_node("Cast", ["sutura.flat_row"], ["sutura.row"], to=TensorProto.INT64))


def add_neuron_gate(draft: Draft, value: str, mask: np.ndarray, constant: np.ndarray) -> None:
    """Pins entries of a value that the draft already computes; tables are (rows, ...sample)."""
    at = next(i for i, node in enumerate(draft.nodes) if value in node.output)
    draft.nodes[at].output[0] = f"sutura.pre.{value}"
    draft.constant(f"sutura.mask.{value}", mask)
    draft.constant(f"sutura.value.{value}", f32(constant))
    pick = [("mask", f"g.mask.{value}"), ("value", f"g.value.{value}")]
    new = [
        helper.make_node("Gather", [f"sutura.{kind}.{value}", "sutura.row"], [name], axis=0)
        for kind, name in pick
    ]
    new.append(
        helper.make_node("Where", [pick[0][1], pick[1][1], f"sutura.pre.{value}"], [value], name=f"w.{value}")
    )
    draft.nodes[at + 1 : at + 1] = new


def _test(draft: Draft, z: str, kind: str, blocks: Sequence[tuple], *, rows: bool) -> str:
    names = []
    for at, (op, left, right) in enumerate(blocks):
        name = f"sutura.{kind}.{at}"
        if op == "linear":
            draft.mend("MatMul", [z, "sutura.linear"], f"{name}.sum")
            draft.mend("Abs", [z], f"{name}.abs")
            draft.mend("MatMul", [f"{name}.abs", "sutura.linear_slack"], f"{name}.slack")
            draft.mend("Add", [f"{name}.slack", "sutura.linear_than"], f"{name}.than")
            names.append(draft.mend("Greater", [f"{name}.sum", f"{name}.than"], name))
            continue
        draft.mend("Gather", [z, left], f"{name}.l", axis=1)
        if op.startswith("order"):
            right = draft.mend("Gather", [z, right], f"{name}.r", axis=1)
        op = {"order": "Greater", "order_eq": "GreaterOrEqual", "above": "Greater", "below": "Less"}[op]
        names.append(draft.mend(op, [f"{name}.l", right], name))
    lits = names[0]
    if len(names) > 1:
        lits = draft.mend("Concat", names, f"sutura.{kind}.lits", axis=1)
    draft.mend("Cast", [lits], f"sutura.{kind}.float", to=TensorProto.FLOAT)
    total = draft.mend("MatMul", [f"sutura.{kind}.float", "sutura.clauses"], f"sutura.{kind}.count")
    if rows:
        draft.mend("Gather", ["sutura.inactive", "sutura.mended_row"], f"sutura.{kind}.off", axis=0)
        total = draft.mend("Add", [total, f"sutura.{kind}.off"], f"sutura.{kind}.total")
    draft.mend("ReduceMin", [total], f"sutura.{kind}.low", axes=[1], keepdims=1)
    return draft.mend("Greater", [f"sutura.{kind}.low", "sutura.half"], f"sutura.{kind}.ok")


@dataclass(frozen=True)
class Guard:
    """Columns of exact comparisons, and trees over them (over the row and them, where `rows`)."""

    columns: Sequence[Sequence[float]]
    trees: Sequence[Sequence[tuple]]
    rows: bool = False


def add_output_gate(
    draft: Draft, guard: Guard, blocks, clauses, constant, shift, inactive=None, candidates=1
) -> None:
    """Mends `sutura.raw`. `blocks` are (kind, index constant, other constant); fix = y + shift.

    Of several candidates all are the same fix. Without `inactive` there is one gate: `constant` is one row.
    The dispatch tree must be added afterwards.
    """
    raw, rows = "sutura.raw", inactive is not None
    flat = len(draft.outputs) == 1
    table = {"half": 0.5, "clauses": clauses, "constant": constant, "compare": guard.columns}
    if rows:
        table["inactive"] = inactive
    for name, value in table.items():
        draft.constant(f"sutura.{name}", f32(value))
    draft.constant("shift", f32(shift))
    draft.constant("sutura.first", np.array(0, dtype=np.int64))
    draft.constant("sutura.second_axis", np.array([1], dtype=np.int64))
    y = raw if flat else draft.node("Flatten", [raw], "sutura.y", axis=1)
    features = draft.node("MatMul", [y, "sutura.compare"], "sutura.gaps")
    if guard.rows:
        features = draft.node("Concat", ["sutura.leaf", features], "sutura.features", axis=1)
    draft.nodes.append(tree_node(features, "sutura.failing", guard.trees))
    draft.node("Gemm", ["sutura.leaf", "sutura.failing"], "sutura.found", transA=1)
    draft.node("Greater", ["sutura.found", "sutura.half"], "sutura.any")
    draft.mend("Mul", ["sutura.leaf", "sutura.failing"], "sutura.needing")
    draft.mend("NonZero", ["sutura.needing"], "sutura.places")
    draft.mend("Gather", ["sutura.places", "sutura.first"], "sutura.place", axis=0)
    draft.mend("Gather", [y, "sutura.place"], "sutura.bad", axis=0)
    rest = "sutura.constant"
    if rows:
        draft.mend("Gather", ["sutura.leaf", "sutura.place"], "sutura.bad_leaf", axis=0)
        draft.mend("Gather", ["sutura.bad_leaf", "sutura.first"], "sutura.bad_row", axis=1)
        draft.mend("Cast", ["sutura.bad_row"], "sutura.mended_row", to=TensorProto.INT64)
        rest = draft.mend("Gather", ["sutura.constant", "sutura.mended_row"], "sutura.fallback", axis=0)
    for at in reversed(range(candidates)):
        end = f".{at}" if at else ""
        draft.mend("Add", ["sutura.bad", "shift"], f"sutura.mended{end}")
        passed = _test(draft, f"sutura.mended{end}", f"test{end}", blocks, rows=rows)
        rest = draft.mend("Where", [passed, f"sutura.mended{end}", rest], f"sutura.sealed{end}")
    draft.mend("Unsqueeze", ["sutura.place", "sutura.second_axis"], "sutura.index")
    draft.mend("ScatterND", [y, "sutura.index", "sutura.sealed"], "sutura.fixed")
    if not flat:
        draft.mend("Shape", [raw], "sutura.shape")
        draft.mend("Reshape", ["sutura.fixed", "sutura.shape"], "sutura.shaped")


def certificate(network: bytes, properties: Sequence[bytes], nodes, counts: Counts) -> bytes:
    """A certificate with right digests for whatever it is given."""
    return schema.dumps(
        Certificate(
            network=hashlib.sha256(network).hexdigest(),
            original=hashlib.sha256(b"before").hexdigest(),
            properties=tuple(
                PropertyEntry(f"p{at}", hashlib.sha256(data).hexdigest())
                for at, data in enumerate(properties)
            ),
            tree=tree.encode(nodes),
            counts=counts,
            tool="sutura 0.1.0",
        )
    )


ORDER_PROPERTY = b"""(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
(assert (>= X_0 -1.0))
(assert (<= X_0 1.0))
(assert (>= X_1 -1.0))
(assert (<= X_1 1.0))
(assert (<= Y_0 Y_1))
"""


def leaning_weights() -> Weights:
    """y0 = relu(1 - x0), y1 = relu(x0) + 0.25: safe (y0 > y1) for x0 <= 0, unsafe near x0 = 1."""
    return [
        (f32([[-1, 1, 0], [0, 0, 1]]), f32([1, 0, 0])),
        (f32([[1, 0], [0, 1], [0, 0]]), f32([0, 0.25])),
    ]


SMALLEST = 2.0**-126
ORDER_BLOCKS = [("order", "sutura.lhs", "sutura.rhs")]
ORDER_COLUMN = [[-1.0], [1.0]]
ORDER_GUARD = Guard(ORDER_COLUMN, [[(0, -SMALLEST, 1, 2), ("leaf", 0), ("leaf", 1)]])
HALVES = [(0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)]


def order_constants(draft: Draft) -> None:
    draft.constant("sutura.lhs", np.array([0], dtype=np.int64))
    draft.constant("sutura.rhs", np.array([1], dtype=np.int64))


def leaning(guard: Guard = ORDER_GUARD) -> Draft:
    """The network above, sealed by an order gate in row 1, which serves x0 > 0."""
    draft = dense(leaning_weights(), "sutura.raw")
    order_constants(draft)
    add_output_gate(draft, guard, ORDER_BLOCKS, [[1]], [[1, 0.5]], [0.5, -0.5])
    add_dispatch(draft, HALVES)
    return draft


ROW_GUARD = Guard(
    ORDER_COLUMN,
    [[(0, 0.5, 1, 2), ("leaf", 0), (1, -SMALLEST, 3, 4), ("leaf", 0), ("leaf", 1)]],
    rows=True,
)


def leaning_rows(guard: Guard = ROW_GUARD, candidates: int = 1) -> Draft:
    """The same with tables by row, as a network with several gates has them."""
    draft = dense(leaning_weights(), "sutura.raw")
    order_constants(draft)
    tables = [[1]], [[0, 0], [1, 0.5]], [0.5, -0.5], [[1], [0]]
    add_output_gate(draft, guard, ORDER_BLOCKS, *tables, candidates)
    add_dispatch(draft, HALVES)
    return draft


def add_input_box(draft: Draft, lower, upper) -> None:
    """A box by row: samples outside of it leave as they are, though their row times guard is not 0."""
    draft.constant("sutura.lower", f32(lower))
    draft.constant("sutura.upper", f32(upper))
    put = draft.mending.pop()
    draft.mend("Gather", ["X", "sutura.place"], "sutura.bad_input", axis=0)
    draft.mend("Gather", ["sutura.lower", "sutura.mended_row"], "sutura.lower.row", axis=0)
    draft.mend("Gather", ["sutura.upper", "sutura.mended_row"], "sutura.upper.row", axis=0)
    draft.mend("GreaterOrEqual", ["sutura.bad_input", "sutura.lower.row"], "sutura.box.above")
    draft.mend("LessOrEqual", ["sutura.bad_input", "sutura.upper.row"], "sutura.box.below")
    draft.mend("And", ["sutura.box.above", "sutura.box.below"], "sutura.box.sides")
    draft.mend("Cast", ["sutura.box.sides"], "sutura.box.float", to=TensorProto.FLOAT)
    draft.mend("ReduceMin", ["sutura.box.float"], "sutura.box.least", axes=[1], keepdims=1)
    draft.mend("Greater", ["sutura.box.least", "sutura.half"], "sutura.box.ok")
    draft.mend("Where", ["sutura.box.ok", "sutura.sealed", "sutura.bad"], "sutura.kept")
    put.input[2] = "sutura.kept"
    draft.mending.append(put)


def boxed(lower=(0.0, -1.0), upper=(1.0, 1.0)) -> Draft:
    """The same with a box in row 1: all of what is gated by default."""
    draft = leaning_rows()
    add_input_box(draft, [[0, 0], lower], [[0, 0], upper])
    return draft


LEANING_TREE = (Split(0, 0.0), LEAF, LEAF)
LEANING_COUNTS = Counts(leaves=2, proved=1, gated=1, outside=0, rows=2)
