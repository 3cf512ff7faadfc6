"""What a module of `to_module` has learned, back into the network that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import shown
from sutura.network.graph import Network
from sutura.network.onnx_write import digest_of
from sutura.network.torch_write import added_vectors, layer_names


def with_weights(network: Network, module: nn.Module) -> Network:
    """`network` with the weights that its module (`to_module`, then trained) has now.

    Nodes, names and shapes stay. Raises NetworkError where the module is not one of this network.
    """
    sums = added_vectors(network)
    vectors = {added.output: value for value, added in sums.items()}
    layers = dict(zip((node.output for node in network.nodes), layer_names(network), strict=True))
    nodes = [
        replace(node, op=_updated(node.op, module, layers[vectors.get(node.output, node.output)]))
        for node in network.nodes
    ]
    made = replace(network, nodes=tuple(nodes), sha256="")
    return replace(made, sha256=digest_of(made))


def _updated(op: ops.Op, module: nn.Module, name: str) -> ops.Op:
    if type(op) not in UPDATES:
        return op
    try:
        made = UPDATES[type(op)](op, module.get_submodule(name))
    except (AttributeError, ValueError) as error:
        raise NetworkError(f"the module has no layer {shown(name)} like the network's: {error}") from None
    return made


def _array(value: Tensor | nn.Parameter, like: np.ndarray) -> np.ndarray:
    """The numbers as float32 in the shape that they had; raises ValueError for another number of them."""
    return value.detach().cpu().numpy().astype(np.float32).reshape(like.shape).copy()


def _matmul(op: ops.MatMul, layer: Any) -> ops.Op:
    return ops.MatMul(_array(layer.weight, op.weight.T).T.copy())


def _gemm(op: ops.Gemm, layer: Any) -> ops.Op:
    weight = _array(layer.weight, op.weight if op.transposed else op.weight.T)
    bias = None if op.bias is None else _array(layer.bias, np.empty(len(weight)))
    return ops.Gemm(weight, bias, transposed=True)


def _conv(op: ops.Conv, layer: Any) -> ops.Op:
    # Uneven padding stands in front of the convolution.
    layer = layer[1] if isinstance(layer, nn.Sequential) else layer
    bias = None if op.bias is None else _array(layer.bias, op.bias)
    return replace(op, weight=_array(layer.weight, op.weight), bias=bias)


def _normalization(op: ops.BatchNormalization, layer: Any) -> ops.Op:
    scale, bias = _array(layer.weight, op.scale), _array(layer.bias, op.bias)
    mean, variance = _array(layer.running_mean, op.mean), _array(layer.running_var, op.variance)
    return ops.BatchNormalization(scale, bias, mean, variance, op.epsilon)


def _add_constant(op: ops.AddConstant, layer: Any) -> ops.Op:
    """The vector of a sum is the bias of the product before it, where both are one layer."""
    value = layer.bias if isinstance(layer, nn.Linear) else layer.value
    return ops.AddConstant(_array(value, op.value))


def _constant(op: Any, layer: Any) -> ops.Op:
    return replace(op, value=_array(layer.value, op.value))


UPDATES: dict[type[Any], Callable[[Any, Any], ops.Op]] = {
    ops.MatMul: _matmul,
    ops.Gemm: _gemm,
    ops.Conv: _conv,
    ops.BatchNormalization: _normalization,
    ops.AddConstant: _add_constant,
    ops.SubtractConstant: _constant,
    ops.MultiplyConstant: _constant,
    ops.DivideConstant: _constant,
}
"""Operators with weights -> how they are taken from a layer."""
