"""Trees in an exported network: the dispatch tree maps an input to the row of the gate tables that serves
it; others guard the output.

A node sends x to its left child if x[dim] <= threshold, else to the right one. Both are float32 numbers, so
the comparison is exact (in arithmetic that does not treat subnormal numbers as zero while it compares).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.model import where
from sutura.certificate.wire import Attribute, Node


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Nodes by number, 0 the root, children after parents; a leaf has `dim` -1, and its row is in `left`."""

    dim: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    def descend(self, at: int, lower: Sequence[float], upper: Sequence[float]) -> int:
        """The lowest node below `at` that still serves all of the closed box; it costs one step a level."""
        while (dim := self.dim[at]) >= 0:
            go_left, go_right = lower[dim] <= self.threshold[at], upper[dim] > self.threshold[at]
            if go_left and go_right:
                return at
            at = self.left[at] if go_left else self.right[at]
        return at

    def rows(self, at: int, lower: Sequence[float], upper: Sequence[float]) -> tuple[int, ...]:
        """The rows, ascending, that points of the closed box can reach from node `at`."""
        found: set[int] = set()
        waiting = [at]
        while waiting:
            at = self.descend(waiting.pop(), lower, upper)
            if self.dim[at] < 0:
                found.add(self.left[at])
            else:
                waiting += (self.right[at], self.left[at])
        return tuple(sorted(found))


SINGLE_ROW = Dispatch((-1,), (0.0,), (0,), (0,))


def read_trees(node: Node, features: int, rows: int, *, most: int) -> tuple[Dispatch, ...]:
    """The trees, at most so many, of a TreeEnsembleRegressor over so many features; each leaf holds a whole
    number below `rows`. What the node computes is their sum.
    """
    lists = _lists(node)
    ids = lists["nodes_treeids"]
    if not ids or any(len(lists[name]) != len(ids) for name in NODE_LISTS):
        raise CertificateError(f"{where(node)}: its node lists are empty or of unequal lengths")
    starts = [at for at in range(len(ids)) if at == 0 or ids[at] != ids[at - 1]]
    if [ids[at] for at in starts] != list(range(len(starts))) or len(starts) > most:
        raise CertificateError(f"{where(node)}: attribute nodes_treeids is not as the template has it")
    targets = _targets(node, lists, rows)
    found: list[Dispatch] = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(ids)], strict=True)):
        part = {name: lists[name][start:end] for name in NODE_LISTS}
        found.append(_tree(node, part, features, targets.pop(number, {})))
    if targets:
        raise CertificateError(f"{where(node)}: a weight stands in no tree")
    return tuple(found)


def _tree(node: Node, lists: dict[str, Any], features: int, weights: dict[int, int]) -> Dispatch:
    modes = lists["nodes_modes"]
    size = len(modes)
    _expect(node, "nodes_nodeids", lists["nodes_nodeids"], range(size))
    dim: list[int] = []
    left: list[int] = []
    right: list[int] = []
    parents = [0] * size
    for at in range(size):
        if modes[at] == b"LEAF":
            if at not in weights:
                raise CertificateError(f"{where(node)}: leaf {at} has no weight")
            dim.append(-1)
            left.append(weights.pop(at))
            right.append(0)
            continue
        _branch(node, lists, at, features)
        dim.append(lists["nodes_featureids"][at])
        left.append(lists["nodes_truenodeids"][at])
        right.append(lists["nodes_falsenodeids"][at])
        parents[left[at]] += 1
        parents[right[at]] += 1
    if weights or parents[0] or any(count != 1 for count in parents[1:]):
        raise CertificateError(
            f"{where(node)}: its nodes form no single tree, or a weight stands at a branch"
        )
    return Dispatch(tuple(dim), tuple(lists["nodes_values"]), tuple(left), tuple(right))


def _lists(node: Node) -> dict[str, Any]:
    found = {name: node.attributes.get(name, ()) for name in (*NODE_LISTS, *TARGET_LISTS)}
    for name, value in node.attributes.items():
        if name in found:
            if not isinstance(value, tuple):
                raise CertificateError(f"{where(node)}: attribute {name} is no list")
        elif not _as_template(name, value):
            raise CertificateError(f"{where(node)}: attribute {brief(name)} is not as the template has it")
    if node.attributes.get("n_targets") != 1:
        raise CertificateError(f"{where(node)}: attribute n_targets must be 1")
    return dict(found)


def _as_template(name: str, value: Attribute) -> bool:
    if name in ZEROS:
        return isinstance(value, tuple) and not any(value)
    return name in SETTINGS and value == SETTINGS[name]


def _targets(node: Node, lists: dict[str, Any], rows: int) -> dict[int, dict[int, int]]:
    """Weights by tree and leaf: each must be a whole number below `rows`, and stand at a leaf of its own."""
    count = len(lists["target_weights"])
    if any(len(lists[name]) != count for name in TARGET_LISTS):
        raise CertificateError(f"{where(node)}: its weights are not one a leaf")
    _expect(node, "target_ids", lists["target_ids"], [0] * count)
    found: dict[int, dict[int, int]] = {}
    columns = (lists[name] for name in ("target_treeids", "target_nodeids", "target_weights"))
    for tree, leaf, weight in zip(*columns, strict=True):
        if not (math.isfinite(weight) and 0 <= weight < min(rows, MAX_ROWS) and weight == int(weight)):
            raise CertificateError(
                f"{where(node)}: weight {weight} is no row of the tables (0 to {rows - 1})"
            )
        if leaf in found.setdefault(tree, {}):
            raise CertificateError(f"{where(node)}: its weights are not one a leaf")
        found[tree][leaf] = int(weight)
    return found


def _branch(node: Node, lists: dict[str, Any], at: int, features: int) -> None:
    children = lists["nodes_truenodeids"][at], lists["nodes_falsenodeids"][at]
    if lists["nodes_modes"][at] != b"BRANCH_LEQ":
        raise CertificateError(f"{where(node)}: node {at} has mode {brief(lists['nodes_modes'][at])}")
    if not all(at < child < len(lists["nodes_modes"]) for child in children):
        raise CertificateError(f"{where(node)}: node {at} has a child that does not come after it")
    if not 0 <= lists["nodes_featureids"][at] < features or not math.isfinite(lists["nodes_values"][at]):
        raise CertificateError(f"{where(node)}: node {at} compares no input with a finite threshold")


def _expect(node: Node, name: str, found: Any, wanted: Sequence[int]) -> None:
    if list(found) != list(wanted):
        raise CertificateError(f"{where(node)}: attribute {name} is not as the template has it")


MAX_ROWS = 1 << 24  # whole numbers below it are float32 numbers, so that the row survives the float32 output
NODE_LISTS = (
    "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids",
    "nodes_falsenodeids",
)  # fmt: skip
TARGET_LISTS = ("target_treeids", "target_nodeids", "target_ids", "target_weights")
ZEROS = {"nodes_missing_value_tracks_true", "base_values", "nodes_hitrates"}
SETTINGS = {"n_targets": 1, "aggregate_function": b"SUM", "post_transform": b"NONE"}
