"""One star for samples of all rows: leader and rivals are looked up, so ten labels cost what one does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from sutura.gates.onnx_part import Part, node, tensor
from sutura.gates.projection import MARGIN, Projection, Star

LOWEST = np.finfo(np.float32).min


def stars_by_row(way: Projection) -> list[list[Star | None]]:
    """Turns that together give each safe set its stars, one in each turn or none.

    Nothing where that takes as many turns as there are stars, or where some rise and others fall.
    """
    turns = max((len(served) for served in way.served), default=0)
    if turns >= len(way.stars) or len({star.least for star in way.stars}) > 1:
        return []
    return [[s[turn] if turn < len(s) else None for s in way.served] for turn in range(turns)]


def row_star(y: str, turn: Sequence[Star | None], name: str) -> Part:
    """[N, 1, n]: as the star of a sample's row has it (see `candidates`); without one, the sample as it is.

    `turn` holds the star of each row from 1 on. What is no rival counts as the lowest number, which makes no
    level the largest.
    """
    some = next(star for star in turn if star is not None)
    n = some.outputs
    leads, rivals = np.zeros((len(turn) + 1, n), bool), np.zeros((len(turn) + 1, n), bool)
    for row, star in enumerate(turn, start=1):
        if star is not None:
            leads[row, star.leader], rivals[row, star.rivals] = True, True
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        nodes.append(node(op, inputs, f"{name}.{suffix}", **attributes))
        return f"{name}.{suffix}"

    up = add("Neg", [y], "up") if some.least else y
    lead = add("Gather", [f"{name}.leads", "sutura.mended_row"], "lead", axis=0)
    rival = add("Gather", [f"{name}.rivals", "sutura.mended_row"], "rival", axis=0)
    room = add("Mul", ["sutura.scale", f"{name}.margin"], "room")
    raised = add("Where", [rival, add("Add", [up, room], "over"), f"{name}.lowest"], "raised")
    ends = [f"{name}.sorted", f"{name}.at"]
    nodes.append(onnx.helper.make_node("TopK", [raised, f"{name}.count"], ends, name=ends[0], axis=1))
    sums = add("CumSum", [ends[0], "sutura.star_axis"], "sums")
    own = add("Where", [lead, up, f"{name}.lowest"], "own")
    head = add("ReduceMax", [own], "head", axes=[1], keepdims=1)
    levels = add("Mul", [add("Add", [sums, head], "total"), f"{name}.share"], "levels")
    top = add("ReduceMax", [levels], "top", axes=[1], keepdims=1)
    cut = add("Min", [up, add("Sub", [top, room], "limit")], "cut")
    rest = add("Where", [rival, cut, up], "rest")
    moved = add("Where", [lead, add("Add", [top, room], "led"), rest], "moved")
    moved = add("Neg", [moved], "down") if some.least else moved
    nodes.append(node("Unsqueeze", [moved, "sutura.second_axis"], name))
    tensors = (
        tensor(f"{name}.leads", leads),
        tensor(f"{name}.rivals", rivals),
        tensor(f"{name}.margin", np.array(MARGIN, np.float32)),
        tensor(f"{name}.lowest", np.array(LOWEST, np.float32)),
        tensor(f"{name}.count", np.array([n], np.int64)),
        tensor(f"{name}.share", (1.0 / (np.arange(n) + 2.0)).astype(np.float32)),
    )
    return Part(tuple(nodes), tensors)
