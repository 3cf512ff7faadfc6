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
    "batch_fixed": (one("Gemm", "x w", {"w": numbers(4, 2)}, shape=(7, 4)), "batch axis of length 1"),
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
    "batch_none": (model([node("Relu", "x", "y")], shape=("L",)), "unknown length"),
    "batch_nor_any_axis": (model([node("Relu", "x", "y")], shape=()), "single number"),
    "batch_reshaped_to_one": (one("Reshape", "x t", {"t": ints(1, -1, 6)}), "batch axis to 1"),
    "clip_empty": (one("Clip", "x a b", {"a": np.float32(2), "b": np.float32(1)}), "holds nothing"),
    "constant_output": (model([node("Relu", "k", "y")], {"k": numbers(3)}), "constant"),
    "conv_weight_computed": (one("Conv", "x x"), "must be a constant"),
    "declared_otherwise": (model([node("Relu", "x", "y")], output=["N", 5]), "declared as"),
    "conv_same_cuts": (
        one("Conv", "x w", {"w": numbers(1, 2, 2, 2)}, auto_pad="SAME_UPPER", strides=[3, 1]),
        "explicit pads",
    ),
    "declared_without_batch": (
        model([node("Relu", "x", "y")], shape=(3, 4), output=[1, 3, 4]),
        "declared as",
    ),
    "divide_by_input": (one("Div", "k x", {"k": np.float32(1)}), "divides a constant by an activation"),
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
    "multiply_wider": (
        model([node("ReduceSum", "x", "s", axes=[3]), node("Mul", "s x", "y")], shape=IMAGE, opset=11),
        "make them equal",
    ),
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
    "expand_batch": (one("Expand", "x t", {"t": ints(3, 2, 6, 6)}), "batch axis"),
    "expand_misfit": (one("Expand", "x t", {"t": ints(5, 6)}), "cannot expand"),
    "join_constant_to_any_batch": (one("Concat", "x k", {"k": numbers(1, 1, 6, 6)}, axis=1), "any length"),
    "join_constant_misfit": (
        one("Concat", "x k", {"k": numbers(2, 5)}, shape=(3, 4)),
        "joins a constant of 2x5",
    ),
    "power_three": (one("Pow", "x k", {"k": np.float32(3)}), "another power"),
    "power_of_constant": (one("Pow", "k x", {"k": np.float32(2)}), "must be a constant"),
    "slice_empty": (one("Slice", "x a b c", {"a": ints(3), "b": ints(3), "c": ints(2)}), "keeps 0 entries"),
    "softmax_other_axis": (one("Softmax", axis=1), "not over the last axis"),
    "softmax_old_axis": (one("Softmax", opset=11), "not over the last axis"),
    "unknown_operator": (one("Erf"), r"node 'Erf_y' \(Erf\) operator is not supported"),
    "split_misfit": (
        model([node("Split", "x s", "y z", axis=1)], {"s": ints(1, 2)}, shape=IMAGE),
        "an axis of length 2 into",
    ),
    "squeeze_nothing": (one("Squeeze", "x a", {"a": ints()}), "names no axes"),
    "sum_over_batch": (one("ReduceSum"), "the batch axis"),
    "sum_twice": (one("ReduceSum", "x a", {"a": ints(1, -3)}), "an axis twice"),
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
    nodes = [node("Erf", "x", "a"), node("Relu", "a", "b"), node("Pow", "x x", "c"), node("Add", "b c", "y")]
    with pytest.raises(NetworkError, match=r"2 of 4 nodes.*Erf_a.*Pow_c.*must be a constant"):
        parse_onnx(model(nodes), "net.onnx")
    report = inspect_onnx(model(nodes), "net.onnx")
    assert [n.supported for n in report.nodes] == [False, False, False, False]
    assert [n.output for n in report.nodes] == [None] * 4
    assert report.nodes[1].reason.startswith("not examined")


def test_products_of_activations_are_told_behind_other_unsupported_nodes():
    nodes = [
        node("MatMul", "x x", "p"),
        node("Erf", "x", "a"),
        node("MatMul", "a a", "b"),
        node("Shape", "a", "s"),
        node("MatMul", "a s", "c"),
        node("Add", "b c", "d"),
        node("Add", "d p", "y"),
    ]
    with pytest.raises(NetworkError, match=r"3 of 7 nodes") as told:
        parse_onnx(model(nodes), "net.onnx")
    assert str(told.value).count("multiplies two activations") == 2


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
