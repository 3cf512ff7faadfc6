"""The split tree as run-time dispatcher: one tree operator gives every sample its row of the tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from sutura.gates.cells import Cell, Tree
from sutura.gates.onnx_part import Part, node, tensor
from sutura.network.graph import Network


def dispatch(network: Network, x: str, tree: Tree[int]) -> Part:
    """`sutura.leaf` [N, 1]: the row of the tables that each sample uses, as a number."""
    flat = flat_input(network, x)
    nodes = () if flat == x else (node("Flatten", [x], flat, axis=1),)
    return Part((*nodes, tree_node([tree], flat, "sutura.leaf")))


def flat_input(network: Network, x: str) -> str:
    """The value that holds each input `x` as one list of numbers."""
    return x if len(network.input_shape) == 1 else "sutura.flat"


def row() -> Part:
    """`sutura.row` [N]: the same as an index."""
    return Part(
        (
            node("Reshape", ["sutura.leaf", "sutura.one_axis"], "sutura.row_float"),
            node("Cast", ["sutura.row_float"], "sutura.row", to=TensorProto.INT64),
        ),
        (tensor("sutura.one_axis", np.array([-1], np.int64)),),
    )


def tree_node(trees: Sequence[Tree[int]], reads: str, name: str) -> onnx.NodeProto:
    """`name` [N, 1]: the labels of the cells that a sample reaches, one in each tree, added up."""
    ids = [number for number, tree in enumerate(trees) for _ in tree]
    at = [place for tree in trees for place in range(len(tree))]
    every = [node for tree in trees for node in tree]
    children = [pair for tree in trees for pair in _children(tree)]
    cells = [
        (tree, place, node.label)
        for tree, place, node in zip(ids, at, every, strict=True)
        if isinstance(node, Cell)
    ]
    return helper.make_node(
        "TreeEnsembleRegressor",
        [reads],
        [name],
        name=name,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=ids,
        nodes_nodeids=at,
        nodes_featureids=[0 if isinstance(node, Cell) else node.dim for node in every],
        nodes_values=[
            0.0 if isinstance(node, Cell) or node.threshold is None else node.threshold for node in every
        ],
        nodes_modes=["LEAF" if isinstance(node, Cell) else "BRANCH_LEQ" for node in every],
        nodes_truenodeids=[yes for yes, _ in children],
        nodes_falsenodeids=[no for _, no in children],
        target_treeids=[tree for tree, _, _ in cells],
        target_nodeids=[place for _, place, _ in cells],
        target_ids=[0] * len(cells),
        target_weights=[float(label) for _, _, label in cells],
    )


def _children(tree: Tree[int]) -> list[tuple[int, int]]:
    """Of every node, the places of its children; zeros for a cell."""
    size = np.ones(len(tree), dtype=np.int64)
    found = [(0, 0)] * len(tree)
    for at in range(len(tree) - 1, -1, -1):
        if not isinstance(tree[at], Cell):
            left, right = at + 1, int(at + 1 + size[at + 1])
            size[at] = 1 + size[left] + size[right]
            found[at] = (left, right)
    return found
