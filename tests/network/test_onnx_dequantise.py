"""DequantizeLinear of constants, folded at reading: what ONNX Runtime computes, or a refusal in one line."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sutura.errors import NetworkError
from sutura.network.onnx_read import parse_onnx


def model(whole, scale, zero, **attributes):
    """y = x + the dequantised constant of shape (2, 3)."""
    constants = {"w": whole, "s": scale} | ({} if zero is None else {"z": zero})
    nodes = [
        helper.make_node("DequantizeLinear", list(constants), ["d"], "dequantise", **attributes),
        helper.make_node("Add", ["x", "d"], ["y"], "add"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2, 3]) for n in "xy"]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


W8 = np.array([[-128, 127, 3], [0, -5, 64]], np.int8)


@pytest.mark.parametrize(
    ("whole", "scale", "zero", "attributes"),
    [
        (W8, np.float32(0.3), None, {}),
        (W8, np.float32(0.3), np.int8(-7), {}),
        ((W8.astype(int) + 128).astype(np.uint8), np.float32(1e-3), np.uint8(131), {}),
        (W8, np.array([0.1, 7.0], np.float32), np.array([3, -3], np.int8), {"axis": 0}),
        (W8, np.array([0.1, 7.0, 1e-9], np.float32), np.zeros(3, np.int8), {}),
        (W8, np.array([0.1, 7.0, 1e-9], np.float32), np.zeros(3, np.int8), {"axis": -1}),
    ],
)
def test_it_is_what_onnx_runtime_computes(whole, scale, zero, attributes):
    data = model(whole, scale, zero, **attributes).SerializeToString()
    net = parse_onnx(data, "q.onnx")
    (node,) = net.nodes
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    want = session.run(None, {"x": np.zeros((1, 2, 3), np.float32)})[0][0]
    assert (np.broadcast_to(node.op.value, (2, 3)) == want).all()


@pytest.mark.parametrize(
    ("whole", "scale", "zero", "said"),
    [
        (W8.astype(np.int32), np.float32(1), None, "needs int8 or uint8 numbers"),
        (W8, np.float32(1), np.uint8(1), "needs int8 or uint8 numbers and zero point"),
        (W8, np.ones(2, np.float32), np.zeros(2, np.int8), "has 2 scales for"),
        (W8, np.ones((2, 3), np.float32), np.zeros((2, 3), np.int8), "needs one scale"),
        (W8, np.ones(3, np.float32), np.int8(0), "needs one scale"),
    ],
)
def test_what_does_not_fit_is_refused(whole, scale, zero, said):
    with pytest.raises(NetworkError) as error:
        parse_onnx(model(whole, scale, zero).SerializeToString(), "q.onnx")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_that_are_no_int8_are_refused():
    made = model(W8, np.float32(1), None)
    tensor = next(t for t in made.graph.initializer if t.name == "w")
    tensor.ClearField("raw_data")
    tensor.int32_data.extend([1, 2, 3, 4, 5, 300])
    with pytest.raises(NetworkError, match="tensor 'w' stores numbers that are no int8"):
        parse_onnx(made.SerializeToString(), "q.onnx")
