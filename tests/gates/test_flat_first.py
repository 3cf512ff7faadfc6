"""Flattening first changes no bit, and leaves what it does not know alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from small_networks import onnx_bytes, points, run_original

from sutura.gates.evaluate import same_bits
from sutura.gates.flat_first import flat_first
from sutura.network.onnx_read import parse_onnx
from sutura.network.onnx_write import write_onnx
from sutura.property.spec import Box


def start(operator, value, *, between=()):
    """[N, 2, 3] inputs; operator with a constant, Flatten, MatMul; names in `between` are read twice."""
    weights = {"c": np.asarray(value, np.float32), "w": np.arange(12, dtype=np.float32).reshape(6, 2) / 7}
    nodes = [
        helper.make_node(operator, ["x", "c"], ["a"], name="step"),
        helper.make_node("Flatten", ["a"], ["f"], name="flat", axis=1),
        helper.make_node("MatMul", ["f", "w"], ["m"], name="mul"),
    ]
    last = "m"
    if between:
        nodes += [
            helper.make_node("Flatten", [between], ["g"], name="again", axis=1),
            helper.make_node("MatMul", ["g", "w"], ["n"], name="mul2"),
            helper.make_node("Add", ["m", "n"], ["s"], name="sum"),
        ]
        last = "s"
    nodes.append(helper.make_node("Relu", [last], ["y"], name="relu"))
    return onnx_bytes(nodes, weights, [2, 3], [2])


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("value", [0.3, [1.0, -2.0, 0.7], [[[1.0], [3.0]]]])
def test_the_same_bits_from_the_moved_flatten(operator, value):
    data = start(operator, value)
    moved = flat_first(parse_onnx(data, "small"))
    assert type(moved.nodes[0].op).__name__ == "Reshape"
    x = points(Box((-2,) * 6, (2,) * 6), 200, 0)
    assert same_bits(run_original(data)(x), run_original(write_onnx(moved))(x)).all()


@pytest.mark.parametrize("between", ["a", "x"])
def test_values_that_others_read_stay(between):
    network = parse_onnx(start("Sub", [1.0, 2.0, 3.0], between=between), "small")
    assert flat_first(network) is network
