"""The advisory network: three inputs, ReLU layers, one score an advisory; the lowest score is the advice.

Inputs, each in [-1, 1]: X_0 = h / 800 ft, X_1 = v / 40 ft/s, X_2 = (tau - 16 s) / 16 s. At tau = 1 s, the
last second of the table, X_2 is -0.9375. Outputs Y_0 ... Y_4 follow the order of `ADVISORIES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
import onnxruntime
from dynamic_program import ADVISORIES
from jaxtyping import Float32, Float64
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Parameters, first layer first; a layer is x @ weight + bias, with ReLU after all but the last."""

    weights: tuple[Float32[np.ndarray, "n m"], ...]
    biases: tuple[Float32[np.ndarray, " m"], ...]


def normalise(states: Float64[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """States (h [ft], v [ft/s], tau [s]) to network inputs."""
    return ((states - np.array(CENTRE)) / np.array(SCALE)).astype(np.float32)


def activations(layers: Layers, inputs: Float32[np.ndarray, "n 3"]) -> list[Float32[np.ndarray, "n m"]]:
    """The inputs, every hidden layer after its ReLU, and the scores."""
    values = [inputs]
    for weight, bias in zip(layers.weights[:-1], layers.biases[:-1], strict=True):
        values.append(np.maximum(values[-1] @ weight + bias, np.float32(0)))
    return [*values, values[-1] @ layers.weights[-1] + layers.biases[-1]]


def onnx_model(layers: Layers) -> onnx.ModelProto:
    """The network as a checked ONNX model: MatMul, Add, Relu; batch axis "N"."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value, last = INPUT, len(layers.weights) - 1
    for k, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        weights += [
            numpy_helper.from_array(weight, f"weight_{k}"),
            numpy_helper.from_array(bias, f"bias_{k}"),
        ]
        total = OUTPUT if k == last else f"sum_{k}"
        nodes += [
            helper.make_node("MatMul", [value, f"weight_{k}"], [f"product_{k}"], name=f"matmul_{k}"),
            helper.make_node("Add", [f"product_{k}", f"bias_{k}"], [total], name=f"add_{k}"),
        ]
        if k != last:
            value = f"relu_{k}"
            nodes.append(helper.make_node("Relu", [total], [value], name=f"relu_{k}"))
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", len(CENTRE)])]
    outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", len(ADVISORIES)])]
    graph = helper.make_graph(nodes, "vertical_cas", inputs, outputs, weights, doc_string=LEGEND)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="vertical_cas")
    onnx.checker.check_model(model, full_check=True)
    return model


def run_onnx(model: bytes, inputs: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n advisory"]:
    """Scores by ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return cast(np.ndarray, session.run([OUTPUT], {INPUT: inputs})[0])


CENTRE = (0.0, 0.0, 16.0)
"""ft, ft/s, s: the state at which every input is 0."""

SCALE = (800.0, 40.0, 16.0)
"""ft, ft/s, s: what one unit of each input is worth."""

INPUT, OUTPUT = "state", "score"

LEGEND = (
    "X_0 = h / 800 ft, X_1 = v / 40 ft/s, X_2 = (tau - 16 s) / 16 s; lowest score = advisory; scores: "
    + ", ".join(advisory.name for advisory in ADVISORIES)
)
