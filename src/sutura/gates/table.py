"""The gates of a repaired file, read back: the tree, what each row does, how much each covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float64
from onnx import numpy_helper

from sutura.certificate.errors import CertificateError
from sutura.certificate.gates import read_gates
from sutura.certificate.model import open_exported
from sutura.gates.cells import Box32, Cell, Cut, Tree, box32, boxes_of, everything
from sutura.gates.onnx_part import constants

LEAF = "sutura.leaf"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the gate tables. `kind`: "none" (row 0), "output", "neuron" or "both"; `share` is that of
    the gated volume; `low` and `high` are the ends of the smallest box around its cells."""

    number: int
    kind: str
    neurons: int
    cells: int
    share: float
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GateTable:
    """The dispatch tree (cells hold row numbers) and its rows; `depth` is its longest way."""

    tree: Tree[int]
    rows: tuple[Row, ...]
    depth: int

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many rows are of each kind, row 0 left out."""
        found = [row.kind for row in self.rows[1:]]
        return {kind: found.count(kind) for kind in sorted(set(found))}


def gate_table(repaired: bytes) -> GateTable | None:
    """None for a file without gates. The bytes must come from a repair, or be of its template (see
    `sutura.certificate.gates`)."""
    model = onnx.load_from_string(repaired)
    node = next((n for n in model.graph.node if LEAF in n.output), None)
    if node is None:
        return None
    tables = {
        t.name: numpy_helper.to_array(t) for t in constants(model.graph) if t.name.startswith("sutura.")
    }
    tree, depth = _tree({a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})
    inputs = 1 + max(cut.dim for cut in tree if isinstance(cut, Cut)) if len(tree) > 1 else 1
    placed: dict[int, list[Box32]] = {}
    own = _own_boxes(tables)
    inputs = len(own[0].low) if own else inputs
    for cell, box in boxes_of(tree, everything(inputs)):
        held = box.common(own[cell.label]) if own and cell.label else box
        placed.setdefault(cell.label, []).append(held)
    volumes = _volumes(placed)
    rows = tuple(_row(number, tables, placed.get(number, []), volumes) for number in range(max(placed) + 1))
    return GateTable(tree, rows, depth)


def is_gated(network: bytes) -> bool:
    """Whether the bytes are an ONNX file with gates of the template that the certificate checker knows."""
    try:
        return read_gates(open_exported(network)).dispatch.dim != (-1,)
    except (CertificateError, ArithmeticError, LookupError, TypeError, ValueError):
        return False


def _tree(lists: Mapping[str, Any]) -> tuple[Tree[int], int]:
    rows = dict(zip(lists["target_nodeids"], lists["target_weights"], strict=True))
    nodes: list[Cut | Cell[int]] = []
    todo, deepest = [(0, 0)], 0
    while todo:
        at, depth = todo.pop()
        deepest = max(deepest, depth)
        if lists["nodes_modes"][at] == b"LEAF":
            nodes.append(Cell(int(rows[at])))
            continue
        nodes.append(Cut(int(lists["nodes_featureids"][at]), float(lists["nodes_values"][at])))
        todo += [(lists[f"nodes_{side}nodeids"][at], depth + 1) for side in ("false", "true")]
    return tuple(nodes), deepest


def _row(
    number: int, tables: Mapping[str, np.ndarray], boxes: list[Box32], volumes: Mapping[int, float]
) -> Row:
    masks = [table[number] for name, table in tables.items() if name.startswith("sutura.mask.")]
    neurons = sum(int(mask.sum()) for mask in masks)
    kind = {(False, False): "none", (True, False): "output", (False, True): "neuron"}.get(
        (_sealed(number, tables), neurons > 0), "both"
    )
    low = tuple(np.min([b.low for b in boxes], axis=0).tolist()) if boxes else ()
    high = tuple(np.max([b.high for b in boxes], axis=0).tolist()) if boxes else ()
    return Row(number, kind, neurons, len(boxes), volumes.get(number, 0.0), low, high)


def _own_boxes(tables: Mapping[str, np.ndarray]) -> list[Box32]:
    """By row, the box in which alone its gate acts; none where all gates act wherever they are met."""
    if "sutura.lower" not in tables:
        return []
    rows = zip(tables["sutura.lower"], tables["sutura.upper"], strict=True)
    return [box32(low, high) for low, high in rows]


def _sealed(number: int, tables: Mapping[str, np.ndarray]) -> bool:
    """Whether a row has an output gate: one gate alone has no tables."""
    if "sutura.inactive" in tables:
        return bool((tables["sutura.inactive"][number] == 0).any())
    return "sutura.constant" in tables and number > 0


def _volumes(placed: Mapping[int, list[Box32]]) -> Mapping[int, float]:
    """Shares of the gated volume, by logarithms; sides without width, and those without end, do not count."""
    logs: dict[int, Float64[np.ndarray, " k"]] = {}
    for row, boxes in placed.items():
        if not row:
            continue
        width = np.array([b.high - b.low for b in boxes])
        logs[row] = np.log(np.where((width > 0) & np.isfinite(width), width, 1.0)).sum(axis=1)
    most = max((float(v.max()) for v in logs.values()), default=0.0)
    sums = {row: float(np.exp(values - most).sum()) for row, values in logs.items()}
    return {row: value / sum(sums.values()) for row, value in sums.items()}
