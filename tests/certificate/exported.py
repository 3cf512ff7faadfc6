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
    """Nodes and constants of a file, in the order in which they are added; `save` takes both as they are."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
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

    def find(self, name) -> onnx.NodeProto:
        return next(node for node in self.nodes if node.name == name)

    def save(self) -> bytes:
        graph = helper.make_graph(
            self.nodes,
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


def add_dispatch(draft: Draft, splits: Sequence[tuple]) -> None:
    """`splits` lists nodes by number: ("leaf", row) or (dim, threshold, left, right)."""
    branch = [split for split in splits if split[0] != "leaf"]
    leaf = [(at, split[1]) for at, split in enumerate(splits) if split[0] == "leaf"]
    assert len(branch) + len(leaf) == len(splits)

    def column(at, otherwise):
        return [split[at] if split[0] != "leaf" else otherwise for split in splits]

    tree_node = helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["sutura.leaf"],
        name="sutura.leaf",
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=[0] * len(splits),
        nodes_nodeids=list(range(len(splits))),
        nodes_featureids=column(0, 0),
        nodes_values=[float(value) for value in column(1, 0.0)],
        nodes_modes=["LEAF" if split[0] == "leaf" else "BRANCH_LEQ" for split in splits],
        nodes_truenodeids=column(2, 0),
        nodes_falsenodeids=column(3, 0),
        target_treeids=[0] * len(leaf),
        target_nodeids=[at for at, _ in leaf],
        target_ids=[0] * len(leaf),
        target_weights=[float(row) for _, row in leaf],
    )
    draft.constant("sutura.flat_shape", np.array([-1], dtype=np.int64))
    at = draft.nodes
    at.insert(0, tree_node)
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


def _test(draft: Draft, z: str, kind: str, blocks: Sequence[tuple]) -> str:
    names = []
    for at, (op, left, right) in enumerate(blocks):
        name = f"sutura.{kind}.{at}"
        if op == "linear":
            draft.node("MatMul", [z, "sutura.linear"], f"{name}.sum")
            draft.node("Abs", [z], f"{name}.abs")
            draft.node("MatMul", [f"{name}.abs", "sutura.linear_slack"], f"{name}.slack")
            draft.node("Add", [f"{name}.slack", "sutura.linear_than"], f"{name}.than")
            names.append(draft.node("Greater", [f"{name}.sum", f"{name}.than"], name))
            continue
        draft.node("Gather", [z, left], f"{name}.l", axis=1)
        if op.startswith("order"):
            right = draft.node("Gather", [z, right], f"{name}.r", axis=1)
        op = {"order": "Greater", "order_eq": "GreaterOrEqual", "above": "Greater", "below": "Less"}[op]
        names.append(draft.node(op, [f"{name}.l", right], name))
    lits = names[0]
    if len(names) > 1:
        lits = draft.node("Concat", names, f"sutura.{kind}.lits", axis=1)
    draft.node("Cast", [lits], f"sutura.{kind}.float", to=TensorProto.FLOAT)
    draft.node("MatMul", [f"sutura.{kind}.float", "sutura.clauses"], f"sutura.{kind}.count")
    draft.node("Gather", ["sutura.inactive", "sutura.row"], f"sutura.{kind}.off", axis=0)
    draft.node("Add", [f"sutura.{kind}.count", f"sutura.{kind}.off"], f"sutura.{kind}.total")
    draft.node("ReduceMin", [f"sutura.{kind}.total"], f"sutura.{kind}.low", axes=[1], keepdims=1)
    return draft.node("Greater", [f"sutura.{kind}.low", "sutura.half"], f"sutura.{kind}.ok")


def add_output_gate(draft: Draft, blocks, clauses, inactive, constant, shift) -> None:
    """Seals the value `sutura.raw`. `blocks` are (kind, index constant, other constant); fix = y + shift."""
    raw = "sutura.raw"
    flat = len(draft.outputs) == 1
    draft.constant("sutura.half", f32(0.5))
    draft.constant("sutura.clauses", f32(clauses))
    draft.constant("sutura.inactive", f32(inactive))
    draft.constant("sutura.constant", f32(constant))
    draft.constant("shift", f32(shift))
    y = raw if flat else draft.node("Flatten", [raw], "sutura.y", axis=1)
    passed = _test(draft, y, "test0", blocks)
    draft.node("Add", [y, "shift"], "sutura.fix")
    mended = _test(draft, "sutura.fix", "test1", blocks)
    draft.node("Gather", ["sutura.constant", "sutura.row"], "sutura.fallback", axis=0)
    draft.node("Where", [mended, "sutura.fix", "sutura.fallback"], "sutura.else")
    draft.node("Where", [passed, y, "sutura.else"], "Y" if flat else "sutura.out")
    if not flat:
        draft.node("Shape", [raw], "sutura.shape")
        draft.node("Reshape", ["sutura.out", "sutura.shape"], "Y")


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


def leaning() -> Draft:
    """The network above, sealed by an order gate in row 1, which serves x0 > 0."""
    draft = dense(leaning_weights(), "sutura.raw")
    draft.constant("sutura.lhs", np.array([0], dtype=np.int64))
    draft.constant("sutura.rhs", np.array([1], dtype=np.int64))
    blocks = [("order", "sutura.lhs", "sutura.rhs")]
    add_output_gate(draft, blocks, [[1]], [[1], [0]], [[0, 0], [1, 0.5]], [0.5, -0.5])
    add_dispatch(draft, [(0, 0.0, 1, 2), ("leaf", 0), ("leaf", 1)])
    return draft


def switched() -> Draft:
    """The same, with all of the output gate inside an If that skips it where no sample needs a gate."""
    draft = leaning()
    at = next(i for i, node in enumerate(draft.nodes) if "sutura.raw" in node.output) + 1
    inner = draft.nodes[at:]
    inner[-1].output[0] = inner[-1].name = "sutura.sealed"
    draft.nodes = draft.nodes[:at]
    draft.node("ReduceMax", ["sutura.leaf"], "sutura.highest", keepdims=0)
    draft.node("Greater", ["sutura.highest", "sutura.half"], "sutura.any")
    untouched = helper.make_node("Identity", ["sutura.raw"], ["sutura.untouched"])
    branches = {
        key: helper.make_graph(
            nodes, key, [], [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
        )
        for key, nodes in (("then_branch", inner), ("else_branch", [untouched]))
    }
    draft.node("If", ["sutura.any"], "Y", **branches)
    return draft


def twice_switched() -> Draft:
    """The same, with the mending inside a second If, skipped where the network's own output passes."""
    draft = switched()
    outer = next(a.g for a in draft.nodes[-1].attribute if a.name == "then_branch")
    nodes = list(outer.node)
    at = next(i for i, node in enumerate(nodes) if "sutura.test0.ok" in node.output) + 1
    first, rest = nodes[:at], nodes[at:]
    rest[-1].output[0] = rest[-1].name = "sutura.mended"
    first += [
        helper.make_node(
            "Cast", ["sutura.test0.ok"], ["sutura.passing"], "sutura.passing", to=TensorProto.FLOAT
        ),
        helper.make_node("ReduceMin", ["sutura.passing"], ["sutura.least"], "sutura.least", keepdims=0),
        helper.make_node("Less", ["sutura.least", "sutura.half"], ["sutura.failing"], "sutura.failing"),
    ]
    kept = helper.make_node("Identity", ["sutura.raw"], ["sutura.kept"])
    branches = {
        key: helper.make_graph(
            inner, key, [], [helper.make_tensor_value_info(inner[-1].output[0], TensorProto.FLOAT, None)]
        )
        for key, inner in (("then_branch", rest), ("else_branch", [kept]))
    }
    del outer.node[:]
    outer.node.extend(
        [*first, helper.make_node("If", ["sutura.failing"], ["sutura.sealed"], "if", **branches)]
    )
    return draft


LEANING_TREE = (Split(0, 0.0), LEAF, LEAF)
LEANING_COUNTS = Counts(leaves=2, proved=1, gated=1, outside=0, rows=2)
