"""Networks to ONNX files: one node a node, weights as stored, the same bytes every time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import MAX_FILE_BYTES, shown
from sutura.network.cost import parameters
from sutura.network.graph import Network, Node

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10
OPSET = 17
BATCH_AXIS = "N"
RESERVED = "sutura."
"""Prefix of names that gates use; no value, weight or node of a network is written under such a name."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """An ONNX operator with its attributes, and the constants it reads after its activations.

    A constant is (suffix of its name, array), None where an optional input is left out. Where
    `constants_first`, the constants come before the activations.
    """

    operator: str
    attributes: Mapping[str, Any]
    constants: tuple[tuple[str, np.ndarray] | None, ...] = ()
    constants_first: bool = False


def write_onnx(network: Network) -> bytes:
    """The bytes of a single ONNX file that computes `network`; equal networks give equal bytes.

    IR version 10, opset 17, batch axis "N", input and output under their own names. Raises NetworkError where
    the weights do not fit into one file.
    """
    size = 4 * sum(parameters(node.op) for node in network.nodes)
    if size > MAX_FILE_BYTES - 2**20:
        raise NetworkError(f"network {shown(network.name)} has {size} bytes of weights; a file holds 2 GB")
    return to_model(network).SerializeToString(deterministic=True)


def digest_of(network: Network) -> str:
    """SHA-256 in hex of the ONNX bytes written for `network`."""
    return hashlib.sha256(write_onnx(network)).hexdigest()


def to_model(network: Network) -> onnx.ModelProto:
    """The ONNX model that computes `network`; see `write_onnx`."""
    from onnx import TensorProto, helper

    names = value_names(network)
    nodes, tensors = network_nodes(network)
    ends = [
        helper.make_tensor_value_info(names[name], TensorProto.FLOAT, [BATCH_AXIS, *network.shapes[name]])
        for name in (network.input, network.output)
    ]
    graph = helper.make_graph(nodes, network.name or "network", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "sutura"
    return model


def network_nodes(network: Network) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The ONNX nodes of `network` in order, and their initializers; names distinct, none "sutura.*"."""
    from onnx import helper, numpy_helper

    names = value_names(network)
    taken, labels = set(names.values()), set[str]()
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    for node in network.nodes:
        written = WRITERS[type(node.op)](node.op)
        inputs, constants = [names[name] for name in node.inputs], list[str]()
        for constant in written.constants:
            if constant is None:
                constants.append("")
                continue
            suffix, array = constant
            name = _fresh(f"{names[node.output]}.{suffix}", taken)
            taken.add(name)
            constants.append(name)
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        inputs = constants + inputs if written.constants_first else inputs + constants
        label = _fresh(node.name, labels)
        labels.add(label)
        outputs = [names[node.output]]
        nodes.append(helper.make_node(written.operator, inputs, outputs, label, **written.attributes))
    return nodes, tensors


def value_names(network: Network) -> Mapping[str, str]:
    """The name under which each value is written: its own, unless that starts "sutura."."""
    taken = {name for name in network.shapes if not name.startswith(RESERVED)}
    names: dict[str, str] = {}
    for name in _values(network.input, network.nodes):
        names[name] = _fresh(name, taken) if name.startswith(RESERVED) else name
        taken.add(names[name])
    return names


def _values(source: str, nodes: Iterable[Node]) -> list[str]:
    return [source, *(node.output for node in nodes)]


def _fresh(name: str, taken: set[str]) -> str:
    """`name`, or one like it that is neither taken nor reserved."""
    wanted = f"network.{name}" if name.startswith(RESERVED) else name or "node"
    fresh, count = wanted, 2
    while fresh in taken:
        fresh, count = f"{wanted}_{count}", count + 1
    return fresh


def _matmul(op: ops.MatMul) -> Written:
    return Written("MatMul", {}, (("weight", op.weight),))


def _gemm(op: ops.Gemm) -> Written:
    attributes = {"alpha": op.alpha, "beta": op.beta, "transB": int(op.transposed)}
    bias = () if op.bias is None else (("bias", op.bias),)
    return Written("Gemm", attributes, (("weight", op.weight), *bias))


def _subtract_constant(op: ops.SubtractConstant) -> Written:
    return Written("Sub", {}, (("value", op.value),), constants_first=op.reversed)


def _conv(op: ops.Conv) -> Written:
    attributes = {
        "dilations": op.dilations,
        "group": op.group,
        "kernel_shape": op.weight.shape[2:],
        "pads": op.pads,
        "strides": op.strides,
    }
    bias = () if op.bias is None else (("bias", op.bias),)
    return Written("Conv", attributes, (("weight", op.weight), *bias))


def _normalization(op: ops.BatchNormalization) -> Written:
    parts = ("scale", "bias", "mean", "variance")
    constants = tuple((part, getattr(op, part)) for part in parts)
    return Written("BatchNormalization", {"epsilon": op.epsilon}, constants)


def _average_pool(op: ops.AveragePool) -> Written:
    attributes = {"kernel_shape": op.kernel, "pads": op.pads, "strides": op.strides}
    return Written("AveragePool", attributes | {"count_include_pad": int(op.count_include_pad)})


def _max_pool(op: ops.MaxPool) -> Written:
    attributes = {"kernel_shape": op.kernel, "pads": op.pads, "strides": op.strides}
    return Written("MaxPool", attributes | {"dilations": op.dilations})


def _reshape(op: ops.Reshape) -> Written:
    if len(op.shape) == 1:
        return Written("Flatten", {"axis": 1})
    return Written("Reshape", {}, (("shape", np.array((0, *op.shape), dtype=np.int64)),))


def _transpose(op: ops.Transpose) -> Written:
    return Written("Transpose", {"perm": (0, *(axis + 1 for axis in op.permutation))})


def _pad(op: ops.Pad) -> Written:
    half = len(op.pads) // 2
    pads = np.array((0, *op.pads[:half], 0, *op.pads[half:]), dtype=np.int64)
    return Written(
        "Pad", {"mode": "constant"}, (("pads", pads), ("value", np.array(op.value, dtype=np.float32)))
    )


def _take(op: ops.Take) -> Written:
    return Written("Gather", {"axis": op.axis + 1}, (("indices", op.indices),))


def _clip(op: ops.Clip) -> Written:
    low = None if op.low == -math.inf else ("low", np.array(op.low, dtype=np.float32))
    high = None if op.high == math.inf else ("high", np.array(op.high, dtype=np.float32))
    return Written("Clip", {}, (low,) if high is None else (low, high))


def _concat(op: ops.Concat) -> Written:
    return Written("Concat", {"axis": op.axis + 1})


def _leaky_relu(op: ops.LeakyRelu) -> Written:
    return Written("LeakyRelu", {"alpha": op.slope})


def _square(op: ops.Square) -> Written:
    return Written("Pow", {}, (("exponent", np.array(2, dtype=np.float32)),))


def _softmax(op: ops.Softmax) -> Written:
    return Written("Softmax", {"axis": -1})


def _value(operator: str) -> Callable[[Any], Written]:
    def written(op: Any) -> Written:
        return Written(operator, {}, (("value", op.value),))

    return written


def _plain(operator: str) -> Callable[[Any], Written]:
    def written(op: Any) -> Written:
        return Written(operator, {})

    return written


WRITERS: dict[type[Any], Callable[[Any], Written]] = {
    ops.MatMul: _matmul,
    ops.Gemm: _gemm,
    ops.AddConstant: _value("Add"),
    ops.SubtractConstant: _subtract_constant,
    ops.MultiplyConstant: _value("Mul"),
    ops.DivideConstant: _value("Div"),
    ops.Add: _plain("Add"),
    ops.Subtract: _plain("Sub"),
    ops.Multiply: _plain("Mul"),
    ops.Divide: _plain("Div"),
    ops.Conv: _conv,
    ops.BatchNormalization: _normalization,
    ops.AveragePool: _average_pool,
    ops.GlobalAveragePool: _plain("GlobalAveragePool"),
    ops.MaxPool: _max_pool,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Take: _take,
    ops.Relu: _plain("Relu"),
    ops.LeakyRelu: _leaky_relu,
    ops.Clip: _clip,
    ops.Sigmoid: _plain("Sigmoid"),
    ops.Tanh: _plain("Tanh"),
    ops.Square: _square,
    ops.Reciprocal: _plain("Reciprocal"),
    ops.Exp: _plain("Exp"),
    ops.Softmax: _softmax,
}
