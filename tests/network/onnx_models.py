"""Small ONNX models for the tests, straight from onnx.helper."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(
        operator, inputs.split(), outputs.split(), name=f"{operator}_{outputs.split()[0]}", **attributes
    )


def model(nodes, weights=None, *, shape=("N", 4), output=None, opset=17, ir=8):
    """Bytes of a model from "x" to "y"; `output` are declared dims, none where left out."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    target = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    graph = helper.make_graph(nodes, "test", [source], [target], tensors)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir
    ).SerializeToString()


def numbers(*shape, seed=0, scale=1.0):
    draw = np.random.default_rng(seed)
    return (draw.standard_normal(shape) * scale).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def mlp(*, seed=0):
    """4 -> 3 -> 2 with MatMul, Add, Relu and Gemm: a few hundred bytes."""
    return model(
        [
            node("MatMul", "x w", "a"),
            node("Add", "a b", "c"),
            node("Relu", "c", "d"),
            node("Gemm", "d v u", "y", transB=1),
        ],
        {
            "w": numbers(4, 3, seed=seed),
            "b": numbers(3, seed=seed + 1),
            "v": numbers(2, 3, seed=seed + 2),
            "u": numbers(2, seed=seed + 3),
        },
        output=["N", 2],
    )
