"""What cannot be read is refused with its place and a way out."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import ints, mlp, model, node, numbers

from sutura.errors import NetworkError
from sutura.network.inspect import inspect_onnx
from sutura.network.onnx_read import parse_onnx, read_onnx

IMAGE = ("N", 2, 6, 6)


def one(operator, inputs="x", weights=None, *, shape=IMAGE, opset=17, **attributes):
    return model([node(operator, inputs, "y", **attributes)], weights, shape=shape, opset=opset)


def ends(inputs, outputs):
    """A model with these inputs and outputs, (name, type, dims) each."""
    values = [[helper.make_tensor_value_info(*end) for end in side] for side in (inputs, outputs)]
    graph = helper.make_graph([node("Relu", inputs[0][0], outputs[0][0])], "g", *values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


FLOAT = TensorProto.FLOAT
Y = ("y", FLOAT, None)

REFUSED = {
    "attribute_unknown": (one("Relu", leak=0.1), "attribute 'leak'"),
    "average_ceil": (one("AveragePool", kernel_shape=[5, 5], strides=[2, 2], ceil_mode=1), "ceil_mode=0"),
    "average_pads": (one("AveragePool", kernel_shape=[2, 2], pads=[2, 0, 0, 0]), "smaller than the kernel"),
    "batch_fixed": (model([node("Relu", "x", "y")], shape=(7, 4)), "batches of 7"),
    "batch_mixed_add": (one("Add", "x k", {"k": numbers(3, 2, 6, 6)}), "batch axis"),
    "batch_mixed_concat": (one("Concat", "x x", axis=0), "batch axis"),
    "batch_mixed_flatten": (one("Flatten", axis=0), "batch axis"),
    "batch_mixed_gather": (one("Gather", "x i", {"i": ints(0)}, axis=0), "batch axis"),
    "batch_mixed_reshape": (one("Reshape", "x t", {"t": ints(2, -1)}), "2x-1"),
    "batch_mixed_reshape_minus": (one("Reshape", "x t", {"t": ints(-1, 6)}), "-1x6"),
    "batch_mixed_slice": (one("Slice", "x a b", {"a": ints(0), "b": ints(1)}), "batch axis"),
    "batch_mixed_squeeze": (one("Squeeze"), "batch axis"),
    "batch_mixed_transpose": (one("Transpose"), "batch axis must stay first"),
    "batch_mixed_unsqueeze": (one("Unsqueeze", "x a", {"a": ints(0)}), "batch axis"),
    "batch_none": (model([node("Relu", "x", "y")], shape=(5,)), "export with a batch axis"),
    "batch_reshaped_to_one": (one("Reshape", "x t", {"t": ints(1, -1, 6)}), "batch axis to 1"),
    "clip_empty": (one("Clip", "x a b", {"a": np.float32(2), "b": np.float32(1)}), "holds nothing"),
    "constant_output": (model([node("Relu", "k", "y")], {"k": numbers(3)}), "constant"),
    "conv_weight_computed": (one("Conv", "x x"), "must be a constant"),
    "declared_otherwise": (model([node("Relu", "x", "y")], output=["N", 5]), "declared as"),
    "conv_same_cuts": (
        one("Conv", "x w", {"w": numbers(1, 2, 2, 2)}, auto_pad="SAME_UPPER", strides=[3, 1]),
        "explicit pads",
    ),
    "divide_by_input": (one("Div", "k x", {"k": np.float32(1)}), "divides by an activation"),
    "divide_by_zero": (one("Div", "x k", {"k": np.float32(0)}), "holds zero"),
    "double_input": (ends([("x", TensorProto.DOUBLE, ["N", 4])], [Y]), "not a float32 tensor"),
    "double_weight": (one("Add", "x k", {"k": np.ones(6)}), "'k' has type double"),
    "dropout_mask": (model([node("Dropout", "x", "d m"), node("Sub", "d m", "y")]), "gives its mask"),
    "half_weight": (one("Add", "x k", {"k": np.ones(6, np.float16)}), "'k' has type float16"),
    "input_unknown_length": (model([node("Relu", "x", "y")], shape=("N", "L")), "unknown length"),
    "inputs_two": (ends([("x", FLOAT, ["N", 4]), ("z", FLOAT, ["N", 4])], [Y]), "has 2: 'x'; 'z'"),
    "max_indices": (
        model([node("MaxPool", "x", "m i", kernel_shape=[2, 2]), node("Sub", "m i", "y")], shape=IMAGE),
        "indices",
    ),
    "multiply_two": (one("Mul", "x x"), "multiplies two activations"),
    "norm_negative": (
        one("BatchNormalization", "x k k k v", {"k": numbers(2), "v": np.float32([1, -1])}),
        "variance",
    ),
    "opset_new": (model([node("Relu", "x", "y")], opset=99), "opset 99"),
    "opset_old": (model([node("Relu", "x", "y")], opset=1), "opset 1 "),
    "other_domain": (
        model([helper.make_node("Relu", ["x"], ["y"], domain="com.acme")]),
        "operator of domain 'com.acme'",
    ),
    "output_undefined": (model([node("Relu", "x", "z")]), "no node defines the output 'y'"),
    "outputs_two": (ends([("x", FLOAT, ["N", 4])], [Y, ("z", FLOAT, None)]), "one output and has 2"),
    "pad_negative": (one("Pad", "x p", {"p": ints(0, 0, -1, 0, 0, 0, 0, 0)}), "negative"),
    "pad_reflect": (one("Pad", "x p", {"p": ints(0, 0, 1, 0, 0, 0, 0, 0)}, mode="reflect"), "constant"),
    "slice_empty": (one("Slice", "x a b c", {"a": ints(3), "b": ints(3), "c": ints(2)}), "keeps 0 entries"),
    "softmax": (one("Softmax"), r"node 'Softmax_y' \(Softmax\) operator is not supported"),
    "squeeze_nothing": (one("Squeeze", "x a", {"a": ints()}), "names no axes"),
    "weight_nan": (one("MatMul", "x w", {"w": numbers(6, 2) * np.float32(np.nan)}), "'w' holds numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name):
    data, words = REFUSED[name]
    with pytest.raises(NetworkError, match=words) as caught:
        parse_onnx(data, "net.onnx")
    assert str(caught.value).startswith("'net.onnx': ")
    assert "\n" not in str(caught.value)


def test_all_unsupported_nodes_at_once():
    nodes = [node("Erf", "x", "a"), node("Relu", "a", "b"), node("Mul", "x x", "c"), node("Add", "b c", "y")]
    with pytest.raises(NetworkError, match=r"2 of 4 nodes.*Erf_a.*Mul_c.*multiplies"):
        parse_onnx(model(nodes), "net.onnx")
    report = inspect_onnx(model(nodes), "net.onnx")
    assert [n.supported for n in report.nodes] == [False, False, False, False]
    assert [n.output for n in report.nodes] == [None] * 4
    assert report.nodes[1].reason.startswith("not examined")


def test_inspection_counts():
    report = inspect_onnx(mlp(), "net.onnx")
    assert report.supported
    assert (report.input_shape, report.output_shape, report.opset) == ((4,), (2,), 17)
    assert report.parameters == 12 + 3 + 6 + 2
    assert report.macs == 12 + 3 + 3 + 6
    assert [n.operator for n in report.nodes] == ["MatMul", "Add", "Relu", "Gemm"]
    assert report.nodes[0].inputs == ((4,), None)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(NetworkError, match="cannot read"):
        read_onnx(tmp_path / "absent.onnx")
    with pytest.raises(NetworkError, match="cannot read"):
        read_onnx(tmp_path)
