"""Every operator through one suite: our reading, what we write, and the original must compute the same."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import ints, model, node, numbers

from sutura.network import ops
from sutura.network.evaluate import FUNCTIONS, activations, evaluate
from sutura.network.onnx_read import READERS, parse_onnx
from sutura.network.onnx_write import WRITERS, write_onnx
from sutura.network.run import open_session, run
from sutura.network.selfcheck import tolerance
from sutura.network.shapes import RULES

IMAGE = ("N", 2, 7, 6)
LINE = ("N", 2, 9)


def one(operator, inputs="x", weights=None, *, shape=IMAGE, opset=17, **attributes):
    return model([node(operator, inputs, "y", **attributes)], weights, shape=shape, opset=opset)


def conv(kernel, *, out=4, per_group=2, bias=True, shape=IMAGE, opset=17, **attributes):
    weights = {"w": numbers(out, per_group, *kernel), "b": numbers(out, seed=1)}
    return one("Conv", "x w b" if bias else "x w", weights, shape=shape, opset=opset, **attributes)


def norm(*, opset=17, shape=IMAGE, **attributes):
    weights = {
        "s": numbers(2),
        "b": numbers(2, seed=1),
        "m": numbers(2, seed=2),
        "v": numbers(2, seed=3) ** 2,
    }
    return one("BatchNormalization", "x s b m v", weights, opset=opset, shape=shape, **attributes)


def with_constant(operator, value, *, first=False, shape=IMAGE):
    return one(operator, "k x" if first else "x k", {"k": value}, shape=shape)


def exported_flatten():
    """What older PyTorch writes for x.view(x.size(0), -1)."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axes", "u"),
        node("Concat", "u rest", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    return model(nodes, {"zero": np.array(0, np.int64), "axes": ints(0), "rest": ints(-1)}, shape=IMAGE)


def bare(operator, inputs="x", weights=None, *, shape=(3, 4), outputs="y", **attributes):
    """A model without a batch axis."""
    return model([node(operator, inputs, outputs, **attributes)], weights, shape=shape, opset=18)


CASES = {
    "absolute": (one("Abs"), ops.LeakyRelu),
    "bare_add": (bare("Add", "x k", {"k": numbers(3, 1)}), ops.AddConstant),
    "bare_concat": (bare("Concat", "x x", axis=0), ops.Concat),
    "bare_concat_constants": (
        bare("Concat", "k x h x", {"k": numbers(2, 4), "h": numbers(1, 4)}, axis=0),
        ops.Take,
    ),
    "bare_conv": (
        bare("Conv", "x w", {"w": numbers(2, 2, 2, 2)}, shape=(1, 2, 4, 3)),
        ops.Conv,
    ),
    "bare_expand": (bare("Expand", "x t", {"t": ints(2, 3, 4)}, shape=(3, 1)), ops.Take),
    "bare_flatten": (bare("Flatten", axis=0), ops.Reshape),
    "bare_flatten_middle": (bare("Flatten", shape=(2, 3, 2), axis=2), ops.Reshape),
    "bare_gather": (bare("Gather", "x i", {"i": ints(2, 0)}, axis=0), ops.Take),
    "bare_gemm_after_unsqueeze": (
        model(
            [node("Unsqueeze", "x a", "u"), node("Gemm", "u w b", "y")],
            {"a": ints(0), "w": numbers(5, 2), "b": numbers(2)},
            shape=(5,),
        ),
        ops.Gemm,
    ),
    "bare_line": (bare("Relu", shape=(5,)), ops.Relu),
    "bare_matmul": (bare("MatMul", "x w", {"w": numbers(5, 2)}, shape=(5,)), ops.MatMul),
    "bare_pad": (bare("Pad", "x p", {"p": ints(1, 0, 2, 1)}), ops.Pad),
    "bare_reshape": (bare("Reshape", "x t", {"t": ints(2, -1)}), ops.Reshape),
    "bare_reshape_copied": (bare("Reshape", "x t", {"t": ints(0, 2, -1)}), ops.Reshape),
    "bare_shape": (
        model(
            [node("Shape", "x", "s"), node("ConstantOfShape", "s", "k"), node("Sub", "x k", "y")],
            shape=(3, 4),
        ),
        ops.SubtractConstant,
    ),
    "bare_slice": (bare("Slice", "x a b", {"a": ints(-2, 1), "b": ints(9, 3)}), ops.Take),
    "bare_split": (
        model(
            [node("Split", "x", "a b", num_outputs=2), node("Sub", "b a", "y")],
            shape=(4, 3),
            opset=18,
        ),
        ops.Take,
    ),
    "bare_transpose": (bare("Transpose"), ops.Transpose),
    "bare_unsqueeze": (bare("Unsqueeze", "x a", {"a": ints(0, -1)}), ops.Reshape),
    "batch_moved": (bare("Transpose", shape=(1, 4), perm=[1, 0]), ops.Transpose),
    "batch_dropped": (bare("Reshape", "x t", {"t": ints(-1)}, shape=(1, 2, 3)), ops.Reshape),
    "divide_two": (
        model(
            [node("Sigmoid", "x", "s"), node("Add", "s k", "t"), node("Div", "x t", "y")],
            {"k": np.float32(1)},
            shape=IMAGE,
        ),
        ops.Divide,
    ),
    "exponential": (one("Exp"), ops.Exp),
    "multiply_self": (one("Mul", "x x"), ops.Square),
    "multiply_two": (model([node("Tanh", "x", "t"), node("Mul", "t x", "y")], shape=IMAGE), ops.Multiply),
    "power": (one("Pow", "x k", {"k": np.float32(2)}), ops.Square),
    "power_int": (one("Pow", "x k", {"k": np.array([2], np.int64)}), ops.Square),
    "reciprocal": (
        model([node("Exp", "x", "s"), node("Reciprocal", "s", "y")], shape=IMAGE),
        ops.Reciprocal,
    ),
    "expand": (one("Expand", "x t", {"t": ints(1, 2, 7, 6)}, shape=("N", 2, 1, 6)), ops.Take),
    "join_constant": (
        one("Concat", "x k", {"k": numbers(1, 3, 4)}, shape=(1, 2, 4), axis=1),
        ops.Pad,
    ),
    "negative": (one("Neg"), ops.SubtractConstant),
    "split": (
        model(
            [node("Split", "x s", "a b c", axis=-1), node("Sub", "c b", "y")],
            {"s": ints(2, 2, 2)},
            shape=IMAGE,
        ),
        ops.Take,
    ),
    "split_later_output": (
        model([node("Split", "x", "a y", axis=1, split=[1, 1])], shape=IMAGE, opset=11),
        ops.Take,
    ),
    "add": (with_constant("Add", numbers(1, 2, 1, 1)), ops.AddConstant),
    "add_first": (with_constant("Add", numbers(6), first=True), ops.AddConstant),
    "add_wider": (with_constant("Add", numbers(3, 5), shape=("N", 3, 1)), ops.AddConstant),
    "add_two": (model([node("Relu", "x", "r"), node("Add", "r x", "y")], shape=IMAGE), ops.Add),
    "add_self": (one("Add", "x x"), ops.Add),
    "average": (one("AveragePool", kernel_shape=[2, 3], strides=[2, 1]), ops.AveragePool),
    "average_excluding_pads": (
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 2, 1]),
        ops.AveragePool,
    ),
    "average_including_pads": (
        one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 2, 1], count_include_pad=1),
        ops.AveragePool,
    ),
    "average_line": (one("AveragePool", shape=LINE, kernel_shape=[4], pads=[1, 2]), ops.AveragePool),
    "average_same": (
        one("AveragePool", kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
        ops.AveragePool,
    ),
    "clip": (one("Clip", "x a b", {"a": np.float32(-0.5), "b": np.float32(0.75)}), ops.Clip),
    "clip_high": (model([node("Clip", "x", "y", max=0.25)], shape=IMAGE, opset=6 + 4), ops.Clip),
    "clip_low": (one("Clip", "x a", {"a": np.float32(0.25)}), ops.Clip),
    "clip_none": (one("Clip"), ops.Clip),
    "concat": (
        model([node("Relu", "x", "r"), node("Concat", "r x r", "y", axis=-2)], shape=IMAGE),
        ops.Concat,
    ),
    "conv": (conv((3, 2), strides=[2, 1], pads=[0, 1, 2, 0], dilations=[1, 2]), ops.Conv),
    "conv_bare": (conv((1, 1), bias=False), ops.Conv),
    "conv_grouped": (conv((2, 2), per_group=1, group=2), ops.Conv),
    "conv_line": (conv((3,), shape=LINE, pads=[2, 1], strides=[2]), ops.Conv),
    "conv_same_lower": (conv((3, 2), auto_pad="SAME_LOWER", strides=[2, 1]), ops.Conv),
    "conv_same_upper": (conv((4, 2), auto_pad="SAME_UPPER", strides=[3, 1]), ops.Conv),
    "conv_valid": (conv((4, 2), auto_pad="VALID"), ops.Conv),
    "divide": (with_constant("Div", np.float32([0.25, 3.0])[None, :, None, None]), ops.DivideConstant),
    "dropout": (
        model([node("Relu", "x", "r"), node("Dropout", "r", "d mask"), node("Tanh", "d", "y")], shape=IMAGE),
        ops.Tanh,
    ),
    "dropout_last": (model([node("Relu", "x", "r"), node("Dropout", "r", "y mask")], shape=IMAGE), ops.Relu),
    "exported_flatten": (exported_flatten(), ops.Reshape),
    "flatten": (one("Flatten"), ops.Reshape),
    "flatten_ones": (one("Flatten", shape=("N", 1, 1, 5), axis=3), ops.Reshape),
    "gather": (one("Gather", "x i", {"i": ints(1, -1, 0, 0)}, axis=2), ops.Take),
    "gather_matrix": (one("Gather", "x i", {"i": ints(1, 0, 2, 2).reshape(2, 2)}, axis=-1), ops.Take),
    "gather_scalar": (one("Gather", "x i", {"i": np.array(-2, np.int64)}, axis=3), ops.Take),
    "gemm": (one("Gemm", "x w b", {"w": numbers(4, 3), "b": numbers(3)}, shape=("N", 4)), ops.Gemm),
    "gemm_scaled": (
        one(
            "Gemm",
            "x w b",
            {"w": numbers(3, 4), "b": numbers(1, 3)},
            shape=("N", 4),
            alpha=0.5,
            beta=-2.0,
            transB=1,
        ),
        ops.Gemm,
    ),
    "gemm_bare": (one("Gemm", "x w", {"w": numbers(4, 3)}, shape=("N", 4)), ops.Gemm),
    "global_average": (one("GlobalAveragePool"), ops.GlobalAveragePool),
    "global_average_line": (one("GlobalAveragePool", shape=LINE), ops.GlobalAveragePool),
    "identity": (one("Identity"), ops.Reshape),
    "identity_branches": (
        model([node("Identity", "x", "i"), node("Relu", "i", "r"), node("Add", "r i", "y")], shape=IMAGE),
        ops.Add,
    ),
    "leaky": (one("LeakyRelu", alpha=0.3), ops.LeakyRelu),
    "leaky_default": (one("LeakyRelu"), ops.LeakyRelu),
    "matmul": (one("MatMul", "x w", {"w": numbers(6, 3)}), ops.MatMul),
    "max": (
        one("MaxPool", kernel_shape=[2, 3], strides=[1, 2], pads=[1, 2, 0, 1], dilations=[2, 1]),
        ops.MaxPool,
    ),
    "max_ceil_exact": (one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), ops.MaxPool),
    "max_unused_indices": (
        model([node("MaxPool", "x", "y i", kernel_shape=[2, 2])], shape=IMAGE),
        ops.MaxPool,
    ),
    "max_line": (one("MaxPool", shape=LINE, kernel_shape=[3], auto_pad="SAME_UPPER"), ops.MaxPool),
    "multiply": (with_constant("Mul", numbers(7, 1)), ops.MultiplyConstant),
    "multiply_first": (with_constant("Mul", numbers(7, 6), first=True), ops.MultiplyConstant),
    "norm": (norm(epsilon=0.01), ops.BatchNormalization),
    "norm_flat": (norm(shape=("N", 2)), ops.BatchNormalization),
    "norm_old": (norm(opset=8), ops.BatchNormalization),
    "pad": (one("Pad", "x p v", {"p": ints(0, 1, 0, 2, 0, 0, 3, 0), "v": np.float32(0.5)}), ops.Pad),
    "pad_axes": (
        one("Pad", "x p v a", {"p": ints(1, 2, 0, 3), "v": np.float32(-1), "a": ints(3, -2)}, opset=18),
        ops.Pad,
    ),
    "pad_old": (one("Pad", opset=9, pads=[0, 0, 1, 2, 0, 1, 0, 3], value=1.5), ops.Pad),
    "relu": (one("Relu"), ops.Relu),
    "reshape": (one("Reshape", "x t", {"t": ints(0, -1, 6)}), ops.Reshape),
    "reshape_batch_inferred": (one("Reshape", "x t", {"t": ints(-1, 3, 28)}), ops.Reshape),
    "reshape_copied": (one("Reshape", "x t", {"t": ints(0, 0, 42)}), ops.Reshape),
    "sigmoid": (one("Sigmoid"), ops.Sigmoid),
    "softmax": (one("Softmax"), ops.Softmax),
    "softmax_bare": (bare("Softmax", axis=1), ops.Softmax),
    "softmax_old": (one("Softmax", shape=("N", 5), opset=11), ops.Softmax),
    "slice": (
        one("Slice", "x a b c d", {"a": ints(-1), "b": ints(-99), "c": ints(3), "d": ints(-2)}),
        ops.Take,
    ),
    "slice_old": (one("Slice", opset=9, starts=[1, 0], ends=[5, 2**31 - 1], axes=[2, 1]), ops.Take),
    "squeeze": (one("Squeeze", "x a", {"a": ints(2)}, shape=("N", 3, 1, 2)), ops.Reshape),
    "squeeze_old": (one("Squeeze", shape=("N", 3, 1, 2), opset=11, axes=[-2]), ops.Reshape),
    "subtract": (with_constant("Sub", numbers(6)), ops.SubtractConstant),
    "subtract_from": (with_constant("Sub", numbers(6), first=True), ops.SubtractConstant),
    "subtract_two": (model([node("Tanh", "x", "t"), node("Sub", "t x", "y")], shape=IMAGE), ops.Subtract),
    "tanh": (one("Tanh"), ops.Tanh),
    "transpose": (one("Transpose", perm=[0, 3, 1, 2]), ops.Transpose),
    "unsqueeze": (one("Unsqueeze", "x a", {"a": ints(1, -1)}), ops.Reshape),
    "unsqueeze_old": (one("Unsqueeze", opset=11, axes=[3]), ops.Reshape),
}


@pytest.mark.parametrize("name", CASES)
def test_reading_writing_and_the_original_agree(name):
    data, operator = CASES[name]
    network = parse_onnx(data, name)
    assert operator in {type(n.op) for n in network.nodes}
    x = numbers(3, *network.input_shape, seed=7, scale=2.0)
    original = run(open_session(data), x)
    written = run(open_session(write_onnx(network)), x)
    assert original.shape == (3, *network.output_shape)
    assert original.tobytes() == written.tobytes()
    ours = evaluate(network, x.astype(np.float64))
    assert np.max(np.abs(ours - original)) <= tolerance(network, x)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_reads_as_the_same_network(name):
    network = parse_onnx(CASES[name][0], name)
    data = write_onnx(network)
    again = parse_onnx(data, name)
    assert [type(n.op) for n in again.nodes] == [type(n.op) for n in network.nodes]
    assert dict(again.shapes) == dict(network.shapes)
    assert write_onnx(again) == data or any(len(n.inputs) > 0 and n.name for n in network.nodes)
    assert write_onnx(parse_onnx(write_onnx(again), name)) == write_onnx(again)


@pytest.mark.parametrize("name", CASES)
def test_activations_have_the_inferred_shapes(name):
    network = parse_onnx(CASES[name][0], name)
    values = activations(network, numbers(2, *network.input_shape).astype(np.float64))
    assert {k: v.shape[1:] for k, v in values.items()} == dict(network.shapes)


@pytest.mark.parametrize("name", ["reduce_mean", "reduce_mean_squeezed", "reduce_mean_new"])
def test_spatial_means_are_global_average_pools(name):
    keep = int(name != "reduce_mean_squeezed")
    if name == "reduce_mean_new":
        data = one("ReduceMean", "x a", {"a": ints(-1, -2)}, opset=18, keepdims=keep)
    else:
        data = one("ReduceMean", opset=13, axes=[2, 3], keepdims=keep)
    network = parse_onnx(data, name)
    x = numbers(3, *network.input_shape)
    for other in (data, write_onnx(network)):
        difference = run(open_session(other), x) - evaluate(network, x.astype(np.float64))
        assert np.max(np.abs(difference)) < 1e-6


SUMS = {
    "sum_all": (bare("ReduceSum"), lambda x: x.sum(axis=(1, 2), keepdims=True)),
    "sum_first": (bare("ReduceSum", "x a", {"a": ints(0)}, keepdims=0), lambda x: x.sum(axis=1)),
    "sum_batched": (
        one("ReduceSum", "x a", {"a": ints(-3, 3)}, keepdims=1),
        lambda x: x.sum(axis=(1, 3), keepdims=True),
    ),
    "sum_old": (one("ReduceSum", opset=11, axes=[2]), lambda x: x.sum(axis=2, keepdims=True)),
    "sum_nothing": (bare("ReduceSum", "x a", {"a": ints()}, noop_with_empty_axes=1), lambda x: x),
    "mean_last": (bare("ReduceMean", "x a", {"a": ints(1)}), lambda x: x.mean(axis=2, keepdims=True)),
    "mean_sequence": (
        one("ReduceMean", "x a", {"a": ints(1)}, shape=("N", 5, 3), opset=18, keepdims=0),
        lambda x: x.mean(axis=1),
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_and_means_over_any_axes(name):
    data, expected = SUMS[name]
    network = parse_onnx(data, name)
    x = numbers(3, *network.input_shape)
    wide = expected(x.astype(np.float64))
    assert evaluate(network, x.astype(np.float64)) == pytest.approx(wide, abs=1e-12)
    for other in (data, write_onnx(network)):
        found = run(open_session(other), x)
        assert found.shape == wide.shape
        assert np.max(np.abs(found - wide)) < 1e-5


def test_tables_agree_on_the_vocabulary():
    vocabulary = set(ops.Op.__args__)
    assert set(RULES) == set(WRITERS) == set(FUNCTIONS) == vocabulary
    assert {operator for _, operator in CASES.values()} == vocabulary
    assert {"Add", "Clip", "Conv", "Gemm", "MatMul", "MaxPool", "Relu", "Sigmoid"} <= set(READERS)
