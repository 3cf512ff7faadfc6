"""The split tree as run-time dispatcher: one tree operator gives every sample its row of the tables."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from sutura.gates.cells import Cell, Tree
from sutura.gates.onnx_part import Part, node, tensor
from sutura.network.graph import Network


def dispatch(network: Network, x: str, tree: Tree[int]) -> Part:
    """`sutura.leaf` [N, 1]: the row of the tables that each sample uses, as a number."""
    flat, nodes = x, ()
    if len(network.input_shape) != 1:
        flat, nodes = "sutura.flat", (node("Flatten", [x], "sutura.flat", axis=1),)
    return Part((*nodes, _tree_node(tree, flat)))


def row() -> Part:
    """`sutura.row` [N]: the same as an index."""
    return Part(
        (
            node("Reshape", ["sutura.leaf", "sutura.one_axis"], "sutura.row_float"),
            node("Cast", ["sutura.row_float"], "sutura.row", to=TensorProto.INT64),
        ),
        (tensor("sutura.one_axis", np.array([-1], np.int64)),),
    )


def _tree_node(tree: Tree[int], flat: str) -> onnx.NodeProto:
    count = len(tree)
    size = np.ones(count, dtype=np.int64)
    for at in range(count - 1, -1, -1):
        if not isinstance(tree[at], Cell):
            left = at + 1
            size[at] = 1 + size[left] + size[left + size[left]]
    cut = [not isinstance(node, Cell) for node in tree]
    leaves = [at for at in range(count) if not cut[at]]
    yes = [at + 1 if cut[at] else 0 for at in range(count)]
    no = [int(at + 1 + size[at + 1]) if cut[at] else 0 for at in range(count)]
    return helper.make_node(
        "TreeEnsembleRegressor",
        [flat],
        ["sutura.leaf"],
        name="sutura.leaf",
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=[0] * count,
        nodes_nodeids=list(range(count)),
        nodes_featureids=[0 if isinstance(node, Cell) else node.dim for node in tree],
        nodes_values=[
            0.0 if isinstance(node, Cell) or node.threshold is None else node.threshold for node in tree
        ],
        nodes_modes=["BRANCH_LEQ" if c else "LEAF" for c in cut],
        nodes_truenodeids=yes,
        nodes_falsenodeids=no,
        target_treeids=[0] * len(leaves),
        target_nodeids=leaves,
        target_ids=[0] * len(leaves),
        target_weights=[float(node.label) for node in tree if isinstance(node, Cell)],
    )
