"""`sutura.mended` in ONNX: the nearest of the candidates that pass the test.

Nothing here is trusted: the seal tests the result again, so a wrong candidate costs closeness, never safety.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from sutura.gates.onnx_part import Part, node, tensor
from sutura.gates.output_test import Test, tried
from sutura.gates.projection import MARGIN, Faces, Projection, Star
from sutura.gates.row_star import row_star, stars_by_row

LARGEST = np.float32(np.finfo(np.float32).max)


def candidates(inactive: str | None, test: Test, way: Projection) -> Part:
    """Nodes that define `sutura.mended` from failing outputs, `sutura.each` [N, 1, n] and, for stars,
    `sutura.bad` [N, n]: themselves, if they pass after all, or the nearest that passes. `inactive` says by
    sample which clauses are not asked for (None: all are)."""
    part, blocks, y = Part(), ["sutura.each"], "sutura.bad"
    if way.faces is not None:
        part += _faces(way.faces)
        blocks.append("sutura.faces")
    if way.stars:
        axis = tensor("sutura.star_axis", np.array(1, np.int64))
        part += Part(_largest(y, "sutura.scale", axis=1), (axis,))
    turns = stars_by_row(way) if inactive is not None else []
    for number, turn in enumerate(turns):
        part += row_star(y, turn, f"sutura.star{number}")
        blocks.append(f"sutura.star{number}")
    for number, star in enumerate(() if turns else way.stars):
        part += _star(y, star, f"sutura.star{number}")
        blocks.append(f"sutura.star{number}")
    part += Part((node("Concat", blocks, "sutura.candidates", axis=1),))
    return part + _nearest("sutura.candidates", inactive, test)


def _largest(values: str, name: str, axis: int) -> tuple[onnx.NodeProto, ...]:
    """`name`: the largest size of the outputs of each sample, along an axis that stays."""
    return (
        node("Abs", [values], f"{name}.sizes"),
        node("ReduceMax", [f"{name}.sizes"], name, axes=[axis], keepdims=1),
    )


def _faces(faces: Faces) -> Part:
    """[N, k, n]: one matrix product for all faces of a sample."""
    k, n = faces.growth.shape
    weights = np.concatenate([faces.weights.transpose(0, 2, 1), faces.growth[:, :, None]], axis=2)
    return Part(
        (
            *_largest("sutura.each", "sutura.scale.each", axis=2),
            node("Concat", ["sutura.each", "sutura.scale.each"], "sutura.scaled", axis=2),
            # The sample is the matrix on the right: one product a sample, rounded the same in every batch.
            node("Reshape", ["sutura.scaled", "sutura.column_shape"], "sutura.column"),
            node("MatMul", ["sutura.face_weights", "sutura.column"], "sutura.face_values"),
            node("Reshape", ["sutura.face_values", "sutura.face_shape"], "sutura.face_feet"),
            node("Add", ["sutura.face_feet", "sutura.face_offset"], "sutura.faces"),
        ),
        (
            tensor("sutura.column_shape", np.array([-1, n + 1, 1], np.int64)),
            tensor("sutura.face_weights", weights.reshape(k * n, n + 1)),
            tensor("sutura.face_offset", faces.offset),
            tensor("sutura.face_shape", np.array([-1, k, n], np.int64)),
        ),
    )


def _star(y: str, star: Star, name: str) -> Part:
    """[N, 1, n]: the leader rises to t and the rivals are cut down to it, t found by water filling.

    t is the largest of (y_leader + sum of the k greatest rivals) / (k + 1) over k: each is a lower bound of
    the root of t - y_leader = sum max(0, y_rival - t), and the one that takes the rivals above it attains it.
    """
    k = len(star.rivals)
    up = [y]
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], suffix: str, **attributes: Any) -> str:
        nodes.append(node(op, inputs, f"{name}.{suffix}", **attributes))
        return f"{name}.{suffix}"

    if star.least:
        up = [add("Neg", [y], "up")]
    room = add("Mul", ["sutura.scale", f"{name}.margin"], "room")
    rivals = add("Add", [add("Gather", [up[0], f"{name}.rivals"], "taken", axis=1), room], "raised")
    nodes.append(
        onnx.helper.make_node(
            "TopK", [rivals, f"{name}.count"], [f"{name}.sorted", f"{name}.at"], name=f"{name}.sorted", axis=1
        )
    )
    sums = add("CumSum", [f"{name}.sorted", "sutura.star_axis"], "sums")
    total = add("Add", [sums, add("Gather", [up[0], f"{name}.leader"], "head", axis=1)], "total")
    level = add("Mul", [total, f"{name}.share"], "levels")
    top = add("ReduceMax", [level], "top", axes=[1], keepdims=1)
    cut = add("Min", [up[0], add("Sub", [top, room], "limit")], "cut")
    rest = add("Where", [f"{name}.is_rival", cut, up[0]], "rest")
    moved = add("Where", [f"{name}.is_leader", add("Add", [top, room], "led"), rest], "moved")
    if star.least:
        moved = add("Neg", [moved], "down")
    nodes.append(node("Unsqueeze", [moved, "sutura.second_axis"], name))
    return Part(tuple(nodes), _star_tensors(star, name, k))


def _star_tensors(star: Star, name: str, k: int) -> tuple[onnx.TensorProto, ...]:
    n = star.outputs
    is_rival, is_leader = np.zeros((1, n), bool), np.zeros((1, n), bool)
    is_rival[0, star.rivals], is_leader[0, star.leader] = True, True
    return (
        tensor(f"{name}.margin", np.array(MARGIN, np.float32)),
        tensor(f"{name}.rivals", star.rivals),
        tensor(f"{name}.count", np.array([k], np.int64)),
        tensor(f"{name}.leader", np.array([star.leader], np.int64)),
        tensor(f"{name}.share", (1.0 / (np.arange(k) + 2.0)).astype(np.float32)),
        tensor(f"{name}.is_rival", is_rival),
        tensor(f"{name}.is_leader", is_leader),
    )


def _nearest(all_of_them: str, inactive: str | None, test: Test) -> Part:
    part, each = Part(), None
    if inactive is not None:
        each = "sutura.inactive.each"
        part = Part((node("Unsqueeze", [inactive, "sutura.second_axis"], each),))
    part += tried(all_of_them, test, "sutura.try", each)
    nodes = (
        node("Sub", [all_of_them, "sutura.each"], "sutura.moves"),
        node("ReduceSumSquare", ["sutura.moves"], "sutura.distance", axes=[2], keepdims=0),
        node("Where", ["sutura.try.ok", "sutura.distance", "sutura.far"], "sutura.cost"),
        node("ArgMin", ["sutura.cost"], "sutura.nearest", axis=1, keepdims=1),
        node("GatherND", [all_of_them, "sutura.nearest"], "sutura.mended", batch_dims=1),
    )
    return part + Part(nodes, (tensor("sutura.far", np.array(LARGEST)),))
