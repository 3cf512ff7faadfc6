"""Which gate an input meets: the dispatcher of a repaired network, walked beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from jaxtyping import Float32, Int64

FEW = 4
"""Inputs up to which a walk in Python is quicker than one in numpy."""


@dataclass(frozen=True, slots=True, eq=False)
class Dispatcher:
    """The tree operator of a repaired network: node 0 is the root, `dim` is -1 at leaves.

    x goes to `yes` where x[dim] <= threshold, else to `no`; `row` is the row of the gate tables at a leaf.
    `steps` is the same as (dim, threshold, yes, no), with the row in place of `yes` at leaves. `ends` are the
    lowest and highest inputs for which each row acts, empty where it acts for all that reach it.
    """

    dim: Int64[np.ndarray, " nodes"]
    threshold: Float32[np.ndarray, " nodes"]
    yes: Int64[np.ndarray, " nodes"]
    no: Int64[np.ndarray, " nodes"]
    row: Int64[np.ndarray, " nodes"]
    steps: Sequence[tuple[int, float, int, int]]
    ends: Sequence[Float32[np.ndarray, "rows n"]] = ()

    @property
    def rows(self) -> int:
        """How many rows the gate tables have; row 0 does nothing."""
        return int(self.row.max()) + 1

    def __call__(self, x: Float32[np.ndarray, "batch n"]) -> Int64[np.ndarray, " batch"]:
        """The row of every input; inputs must be finite."""
        if len(x) <= FEW:
            return np.array([self.of(point) for point in x.tolist()], np.int64)
        at = np.zeros(len(x), dtype=np.int64)
        here = np.arange(len(x))
        while (inner := self.dim[at] >= 0).any():
            goes = x[here, self.dim[at]] <= self.threshold[at]
            at = np.where(inner, np.where(goes, self.yes[at], self.no[at]), at)
        row = self.row[at]
        for met in np.flatnonzero(row):
            row[met] = self._acting(int(row[met]), x[met])
        return row

    def of(self, point: Sequence[float] | Float32[np.ndarray, " n"]) -> int:
        """The row of one input."""
        if isinstance(point, np.ndarray):
            point = cast("list[float]", point.tolist())  # the tree may be as deep as the input is long
        dim, threshold, yes, no = self.steps[0]
        while dim >= 0:
            dim, threshold, yes, no = self.steps[yes if point[dim] <= threshold else no]
        return self._acting(yes, point)

    def _acting(self, row: int, point: Sequence[float] | Float32[np.ndarray, " n"]) -> int:
        """The row, or 0 where the input is not in its box."""
        if not self.ends or not row:
            return row
        low, high = (end[row] for end in self.ends)
        return row if bool(((low <= point) & (point <= high)).all()) else 0


def dispatcher(network: bytes) -> Dispatcher:
    """The dispatcher in the bytes of an ONNX file, which the certificate checker must have accepted or which
    must be without gates; a file without gates has row 0 alone."""
    import onnx

    model = onnx.ModelProto.FromString(network)
    found = [node for node in model.graph.node if LEAF in node.output]
    if not found:
        return _tree([-1], [0.0], [0], [0], {0: 0})
    lists: dict[str, list[Any]] = {a.name: [*a.floats, *a.ints, *a.strings] for a in found[0].attribute}
    inner = [mode == b"BRANCH_LEQ" for mode in lists["nodes_modes"]]
    dim = [d if cut else -1 for d, cut in zip(lists["nodes_featureids"], inner, strict=True)]
    leaves = zip(lists["target_nodeids"], lists["target_weights"], strict=True)
    tree = _tree(
        dim, lists["nodes_values"], lists["nodes_truenodeids"], lists["nodes_falsenodeids"], dict(leaves)
    )
    return replace(tree, ends=_ends(model.graph))


def _ends(graph: Any) -> Sequence[Float32[np.ndarray, "rows n"]]:
    """The tables of the boxes of rows; they stand in the branch that mends."""
    from onnx import numpy_helper

    branches = [a.g for node in graph.node if node.op_type == "If" for a in node.attribute]
    tables = {t.name: t for branch in branches for t in branch.initializer}
    return [numpy_helper.to_array(tables[name]) for name in ENDS if name in tables]


def _tree(
    dim: list[int], threshold: list[float], yes: list[int], no: list[int], row: dict[int, float]
) -> Dispatcher:
    rows = np.array([int(row.get(at, 0)) for at in range(len(dim))], np.int64)
    whole = (np.array(v, np.int64) for v in (dim, yes, no))
    dims, left, right = whole
    ends = [int(row.get(at, 0)) if dim[at] < 0 else yes[at] for at in range(len(dim))]
    steps = tuple(zip(dim, threshold, ends, no, strict=True))
    return Dispatcher(dims, np.array(threshold, np.float32), left, right, rows, steps)


LEAF = "sutura.leaf"
ENDS = "sutura.lower", "sutura.upper"
