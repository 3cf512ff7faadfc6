"""Hostile ONNX files. Run as a script, reads the file that it is given with bounded memory."""

from __future__ import annotations

import resource
import sys
import time
from itertools import pairwise

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper

MEMORY = 512 * 2**20
# Two seconds are meant for a machine of its own; the suite runs on every core of a shared one.
SECONDS = 2 * 2.0


def model(
    nodes, tensors=(), *, shape=("N", 4), inputs=None, outputs=None, opset=17, functions=(), output="y"
):
    inputs = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))]
    outputs = outputs or [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "hostile", inputs, outputs, list(tensors))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def relu(source="x", target="y"):
    return helper.make_node("Relu", [source], [target], name=f"relu_{target}")


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def lying(name, dims, raw, kind=TensorProto.FLOAT):
    proto = TensorProto(name=name, data_type=kind, raw_data=raw)
    proto.dims.extend(dims)
    return proto


def constant_of_shape():
    """A handful of bytes that ask for 2^40 numbers."""
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("Add", ["x", "big"], ["y"]),
    ]
    return model(nodes, [tensor("s", np.array([2**40], dtype=np.int64))])


def doublings(*, of_constants):
    """60 joins of a value with itself: 2^60 times its size."""
    names = ["k" if of_constants else "x", *(f"v{i}" for i in range(60))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=1) for a, b in pairwise(names)]
    if of_constants:
        nodes.append(helper.make_node("Add", ["x", names[-1]], ["y"]))
    else:
        nodes.append(relu(names[-1]))
    return model(nodes, [tensor("k", np.ones((1, 4), np.float32))] if of_constants else [])


def broadcasts():
    """Constants that grow by broadcasting, a column plus a row."""
    column, row = np.ones((2**16, 1), np.float32), np.ones((1, 2**16), np.float32)
    nodes = [helper.make_node("Add", ["c", "r"], ["big"]), helper.make_node("Add", ["x", "big"], ["y"])]
    return model(nodes, [tensor("c", column), tensor("r", row)])


def many_folds():
    """Two thousand constants of four million numbers each, from one line."""
    nodes = [helper.make_node("ConstantOfShape", ["s"], [f"k{i}"]) for i in range(2000)]
    previous = "x"
    for i in range(2000):
        nodes.append(helper.make_node("Add", [previous, f"k{i}"], [f"v{i}"]))
        previous = f"v{i}"
    return model([*nodes, relu(previous)], [tensor("s", np.array([2**22], dtype=np.int64))])


def repeated_gather():
    """Index vectors that blow up a constant."""
    index = tensor("i", np.zeros(2**12, np.int64))
    nodes = [
        helper.make_node("Gather", ["k", "i"], ["a"], axis=0),
        helper.make_node("Gather", ["a", "i"], ["b"], axis=1),
        helper.make_node("Gather", ["b", "i"], ["c"], axis=2),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    return model(nodes, [index, tensor("k", np.ones((1, 1, 1), np.float32))])


def nested_if(depth=14):
    """If inside If: ONNX Runtime needs a minute to build a session for fourteen."""

    def branch(level, prefix):
        name = f"{prefix}_out"
        output = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        if level == 0:
            return helper.make_graph([relu("x", name)], prefix, [], output)
        body = branch(level - 1, f"{prefix}t")
        node = helper.make_node("If", ["cond"], [name], then_branch=body, else_branch=body)
        return helper.make_graph([node], prefix, [], output)

    body = branch(depth - 1, "g")
    node = helper.make_node("If", ["cond"], ["y"], name="outermost", then_branch=body, else_branch=body)
    return model([node], [tensor("cond", np.array(True))])


def if_tower(depth):
    """Subgraphs inside subgraphs, deeper than any recursion; bytes by hand, since onnx cannot build it."""
    graph = b""
    for _ in range(depth):
        attribute = b"\x32" + _varint(len(graph)) + graph
        node = b"\x2a" + _varint(len(attribute)) + attribute
        graph = b"\x0a" + _varint(len(node)) + node
    return _wrapped(graph)


def huge_input():
    return model([relu()], shape=("N", 2**31, 2**31, 2**31, 2**31, 2**31))


def huge_padding():
    pads = np.array([0, 0, 2**31, 2**31, 0, 0, 2**31, 2**31], np.int64)
    return model([helper.make_node("Pad", ["x", "p"], ["y"])], [tensor("p", pads)], shape=("N", 1, 4, 4))


def huge_window():
    """A pool whose every output looks at the whole of a large input, many times over."""
    attributes = {"kernel_shape": [2**12, 2**12], "pads": [2**11] * 4}
    return model([helper.make_node("MaxPool", ["x"], ["y"], **attributes)], shape=("N", 1, 2**12, 2**12))


def huge_slice():
    ends = [tensor(k, np.array([v], np.int64)) for k, v in (("a", -1), ("b", -(2**62)), ("c", 1), ("d", -1))]
    return model([helper.make_node("Slice", ["x", "a", "b", "c", "d"], ["y"])], ends, shape=("N", 2**26 - 1))


def padded_convolution():
    """A small input, a small output, and between them a padding of 2^60 numbers."""
    attributes = {"pads": [2**30] * 4, "strides": [2**30] * 2}
    weight = tensor("w", np.ones((1, 1, 1, 1), np.float32))
    return model([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], [weight], shape=("N", 1, 4, 4))


def padded_pool():
    attributes = {"kernel_shape": [2**17] * 2, "pads": [2**17 - 1] * 4, "strides": [2**18] * 2}
    return model([helper.make_node("AveragePool", ["x"], ["y"], **attributes)], shape=("N", 1, 4, 4))


def null_in_name():
    return model([relu("x", "a\0"), relu("a\0", "y")])


def weights_of_outer_product():
    """A network whose own numbers are few and whose work is not."""
    w = tensor("w", np.ones((1, 4, 1024, 1024), np.float32))
    return model([helper.make_node("Conv", ["x", "w"], ["y"])], [w], shape=("N", 4, 2048, 2048))


def many_nodes():
    names = ["x", *(f"v{i}" for i in range(30_000))]
    return model([relu(a, b) for a, b in pairwise(names)], output=names[-1])


def empty_messages():
    """Four million empty nodes: two bytes each in the file, hundreds in memory."""
    return _wrapped(b"\x0a\x00" * 4_000_000)


def packed_integers():
    """Thirty million one-byte integers, which protobuf would hold in eight bytes each."""
    payload = b"\x00" * 30_000_000
    field = b"\x3a" + _varint(len(payload)) + payload
    return _wrapped(b"\x2a" + _varint(len(field)) + field)


def _wrapped(graph):
    return b"\x08\x08" + b"\x3a" + _varint(len(graph)) + graph


def _varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def external_data():
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    proto.dims.extend([4, 4])
    proto.external_data.add(key="location", value="../../etc/passwd")
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], [proto])


def local_function():
    body = helper.make_function(
        "mine", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    return model([helper.make_node("f", ["x"], ["y"], domain="mine")], functions=[body])


def cycle():
    return model([helper.make_node("Add", ["x", "b"], ["a"], name="first"), relu("a", "b"), relu("a", "y")])


def defined_twice():
    return model([relu("x", "y"), helper.make_node("Tanh", ["x"], ["y"], name="again")])


def attribute_twice():
    node = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.1)
    node.attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, f=0.9))
    return model([node])


def weight(dims, raw, kind=TensorProto.FLOAT):
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], [lying("w", dims, raw, kind)])


def newline_in_name():
    return model([helper.make_node("Nonsense", ["x"], ["y"], name="a\nb\x1b[31m" + "z" * 5000)])


def bytes_in_name():
    """A name that is not text, in a file otherwise whole."""
    return model([relu("x", "abc"), relu("abc", "y")]).SerializeToString().replace(b"abc", b"a\xff\xfe")


BOMBS = {
    "attribute_twice": (attribute_twice, "twice"),
    "broadcasts": (broadcasts, "at most"),
    "bytes_in_name": (bytes_in_name, "not UTF-8"),
    "constant_of_shape": (constant_of_shape, "ConstantOfShape"),
    "cycle": (cycle, "cycle"),
    "defined_twice": (defined_twice, "second time"),
    "dims_huge": (lambda: weight([2**62, 2**62], b"\0" * 64), "stores 16 numbers"),
    "dims_negative": (lambda: weight([-4, -4], b"\0" * 64), "impossible dims"),
    "dims_too_many": (lambda: weight([1] * 100_000, b"\0" * 4), "impossible dims"),
    "dims_wrong": (lambda: weight([4, 5], b"\0" * 64), "4x5"),
    "double_doublings": (lambda: doublings(of_constants=True), "at most"),
    "doublings": (lambda: doublings(of_constants=False), "at most"),
    "empty_messages": (empty_messages, "fields"),
    "external_data": (external_data, "outside the file"),
    "huge_input": (huge_input, "input"),
    "huge_padding": (huge_padding, "Pad"),
    "huge_slice": (huge_slice, "Slice"),
    "huge_window": (huge_window, "multiply"),
    "if_tower": (lambda: if_tower(5000), "nested deeper"),
    "infinite_weight": (lambda: weight([4, 1], np.float32([1, np.inf, 0, 0]).tobytes()), "not finite"),
    "local_function": (local_function, "functions"),
    "many_folds": (many_folds, "computed constants"),
    "many_nodes": (many_nodes, "30000 nodes"),
    "nested_if": (nested_if, "fields"),
    "newline_in_name": (newline_in_name, "a\\nb"),
    "not_a_number": (lambda: weight([4, 1], np.float32([1, np.nan, 0, 0]).tobytes()), "not finite"),
    "number_cut": (lambda: weight([4, 4], b"\0" * 63), "inside a number"),
    "null_in_name": (null_in_name, "null character"),
    "packed_integers": (packed_integers, "packed"),
    "padded_convolution": (padded_convolution, "pads its input"),
    "padded_pool": (padded_pool, "pads its input"),
    "repeated_gather": (repeated_gather, "at most"),
    "wide_convolution": (weights_of_outer_product, "multiply"),
}
"""Name -> (builder, what the refusal says)."""


def main():
    """Read the file named first with bounded memory; print the seconds it took and the error it gave."""
    from sutura.errors import SuturaError
    from sutura.network.onnx_read import parse_onnx

    with open(sys.argv[1], "rb") as file:  # noqa: PTH123
        data = file.read()
    resource.setrlimit(resource.RLIMIT_AS, (len(data) + MEMORY, len(data) + MEMORY))
    start = time.perf_counter()
    try:
        parse_onnx(data, "hostile.onnx")
        said = "ACCEPTED"
    except SuturaError as error:
        said = str(error)
    sys.stdout.write(f"{time.perf_counter() - start:.3f}\n{said}\n")


if __name__ == "__main__":
    main()
