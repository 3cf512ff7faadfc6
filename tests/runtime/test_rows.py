"""The walked dispatcher picks the row that the network picks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sutura import load
from sutura.gates.mend import RepairConfig
from sutura.gates.repair import repair
from sutura.gates.rows import rows_of
from sutura.property.build import robustness
from sutura.runtime.rows import FEW, LEAF, Dispatcher, dispatcher


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 800])
def test_rows_are_those_of_the_network(files, boxes, count):
    network = files.network.read_bytes()
    around = boxes[:: len(boxes) // count][:count]
    points = np.concatenate([around, np.nextafter(around, np.float32(9)), -around])[:count]
    assert dispatcher(network)(points).tolist() == rows_of(network)(points).tolist()


def affine(inputs, outputs):
    """One random Gemm."""
    w = np.random.default_rng(1).standard_normal((inputs, outputs)).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], "gemm")]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in (("x", inputs), ("y", outputs))
    ]
    graph = helper.make_graph(nodes, "affine", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize("count", [1, FEW, 600])
def test_rows_act_in_their_box_alone(count):
    draw = np.random.default_rng(0)
    centres = draw.random((3, 200)).astype(np.float32)
    wanted = [robustness(x, "0.02", k, classes=5, name=f"p{k}") for k, x in enumerate(centres)]
    network = repair(load(affine(200, 5)), wanted, RepairConfig(boxes=0, workers=1)).onnx
    low, high = wanted[1].cases[0].box.float32_hull()
    points = draw.uniform(low, high, (count, 200)).astype(np.float32).clip(low, high)
    found = dispatcher(network)
    assert found(points).tolist() == rows_of(network)(points).tolist() == [found.of(low)] * count
    assert found.of(low) > 0
    beside_the_tree = next(at for at in range(200) if at not in found.dim)
    points[:, beside_the_tree] = np.nextafter(high[beside_the_tree], np.float32(9))
    assert found(points).tolist() == rows_of(network)(points).tolist() == [0] * count


@pytest.mark.parametrize("copies", [1, FEW + 1])
def test_a_row_acts_in_all_of_its_box_and_nowhere_else(copies):
    cut = Dispatcher(
        *(np.array(v) for v in ([0, -1, -1], [5, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0])),
        steps=((0, 5.0, 1, 2), (-1, 0.0, 1, 0), (-1, 0.0, 0, 0)),
        ends=(np.array([[7, 7], [0, -1]], np.float32), np.array([[6, 6], [1, 1]], np.float32)),
    )
    points = [(0, -1), (1, 1), (0.5, 0), (-0.5, 0), (1.5, 0), (0.5, -2), (0.5, 2), (9, 0)]
    for point, row in zip(points, [1, 1, 1, 0, 0, 0, 0, 0], strict=True):
        x = np.array(point, np.float32)
        assert cut.of(x) == cut.of(x.tolist()) == row
        assert cut(np.repeat(x[None], copies, axis=0)).tolist() == [row] * copies


def test_gates_are_met(files, boxes):
    found = dispatcher(files.network.read_bytes())
    assert found.rows > 1
    assert set(found(boxes).tolist()) == set(range(found.rows))


def test_a_tree_with_row_zero_alone_has_one_row(files):
    model = onnx.load_from_string(files.network.read_bytes())
    (found,) = (node for node in model.graph.node if LEAF in node.output)
    weights = next(a for a in found.attribute if a.name == "target_weights")
    weights.floats[:] = [0.0] * len(weights.floats)
    assert len(weights.floats) > 1
    assert dispatcher(model.SerializeToString()).rows == 1


def test_a_network_without_gates_has_row_zero(boxes):
    example = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"
    found = dispatcher((example / "vertical_cas.onnx").read_bytes())
    assert found.rows == 1
    assert found(boxes).tolist() == [0] * len(boxes)
    assert found(boxes[:1]).tolist() == [0]
