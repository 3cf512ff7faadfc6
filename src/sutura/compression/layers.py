"""The layers of a network that can be split, and why the others are left alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import shown
from sutura.network.graph import Network, Node, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A convolution or linear layer, y = weight * x + bias; a linear one is a kernel without axes.

    `index` is the node's place in the network. `sliced` tells whether its input channels may be cut into
    groups. `absorbs` tells where a constant added to the output can go: "bias" into the layer's own,
    "normalisation" into the mean of the batch normalisation that alone reads it, "" nowhere.
    """

    index: int
    node: Node
    weight: Float32[np.ndarray, "out in *kernel"]
    bias: Float32[np.ndarray, " out"] | None
    strides: Shape
    pads: Shape
    dilations: Shape
    input: Shape
    output: Shape
    sliced: bool
    absorbs: str

    @property
    def name(self) -> str:
        """The node's name, or that of its output where it has none."""
        return self.node.name or self.node.output

    @property
    def key(self) -> str:
        """The name of its output value, which no other layer has."""
        return self.node.output

    @property
    def kernel(self) -> Shape:
        """The spatial axes of the weight; none for a linear layer."""
        return self.weight.shape[2:]

    @property
    def sides(self) -> tuple[int, int]:
        """Output and input channels."""
        return self.weight.shape[0], self.weight.shape[1]


@dataclass(frozen=True, slots=True)
class Left:
    """A layer that is not compressed, and why."""

    name: str
    reason: str


def compressible(network: Network, keep: tuple[str, ...] = ()) -> tuple[tuple[Layer, ...], tuple[Left, ...]]:
    """The layers that can be split, in order, and the convolutions and linear layers that are left alone.

    `keep` names layers that must stay as they are. Raises NetworkError where a name of `keep` is no layer of
    the network, where two layers share one weight, or where nothing can be compressed.
    """
    found, left = list[Layer](), list[Left]()
    for index, node in enumerate(network.nodes):
        if not isinstance(node.op, ops.Conv | ops.Gemm | ops.MatMul):
            continue
        name = node.name or node.output
        reason = "was asked to stay" if name in keep else _reason(node.op)
        layer = layer_at(network, index)
        if reason or layer is None:
            left.append(Left(name, reason))
        else:
            found.append(layer)
    _check(network, found, left, keep)
    return tuple(found), tuple(left)


def _check(network: Network, found: list[Layer], left: list[Left], keep: tuple[str, ...]) -> None:
    known = [layer.name for layer in found] + [layer.name for layer in left]
    for name in keep:
        if name not in known:
            raise NetworkError(
                f"no layer of {shown(network.name)} is called {shown(name)}; it has "
                f"{', '.join(shown(n) for n in known[:20])}"
            )
    if not found:
        why = "; ".join(f"{shown(part.name)} {part.reason}" for part in left[:5]) or "it has no weights"
        raise NetworkError(f"{shown(network.name)} has no layer to compress: {why}")
    for at, first in enumerate(found):
        for second in found[at + 1 :]:
            if np.shares_memory(_stored(first), _stored(second)):
                raise NetworkError(
                    f"layers {shown(first.name)} and {shown(second.name)} share one weight, which no split "
                    "keeps shared: export the network with a copy for each"
                )


def _stored(layer: Layer) -> np.ndarray:
    op = layer.node.op
    assert isinstance(op, ops.Conv | ops.Gemm | ops.MatMul)
    return op.weight


def _reason(op: ops.Conv | ops.Gemm | ops.MatMul) -> str:
    """Why a layer is left alone; empty where it is not."""
    weight = op.weight
    if isinstance(op, ops.Conv) and op.group > 1:
        kind = "depthwise" if weight.shape[1] == 1 else "grouped"
        return f"is a {kind} convolution ({op.group} groups), already split by its groups"
    matrix = weight.reshape(len(weight), -1)
    if min(matrix.shape) == 1:
        return "has a single channel on one side, so no thinner form"
    if not np.isfinite(matrix).all():
        return "holds weights that are no finite numbers"
    if (np.count_nonzero(matrix, axis=1) <= 1).all() or (np.count_nonzero(matrix, axis=0) <= 1).all():
        return "only moves channels: no row or no column has two weights"
    return ""


def layer_at(network: Network, index: int) -> Layer | None:
    """The node there as a layer; None where it is none, or has groups."""
    node = network.nodes[index]
    shape = network.shapes[node.inputs[0]]
    result = network.shapes[node.output]
    absorbs = _absorbs(network, node)
    match node.op:
        case ops.Conv(weight, bias, strides, pads, dilations, 1):
            return Layer(index, node, weight, bias, strides, pads, dilations, shape, result, True, absorbs)
        case ops.Gemm(weight, bias, alpha, beta, transposed):
            rows = np.float32(alpha) * (weight if transposed else weight.T)
            if bias is not None:
                bias = np.broadcast_to(np.float32(beta) * bias, rows.shape[:1])
            return Layer(index, node, rows, bias, (), (), (), shape, result, True, absorbs)
        case ops.MatMul(weight):
            return Layer(index, node, weight.T, None, (), (), (), shape, result, len(shape) == 1, absorbs)
        case _:
            return None


def _absorbs(network: Network, node: Node) -> str:
    if isinstance(node.op, ops.Conv | ops.Gemm) and node.op.bias is not None:
        return "bias"
    readers = [other for other in network.nodes if node.output in other.inputs]
    alone = len(readers) == 1 and node.output != network.output
    return "normalisation" if alone and isinstance(readers[0].op, ops.BatchNormalization) else ""


def learned(op: ops.Op) -> int:
    """How many numbers of `op` training sets: all but the running mean and variance of normalisations."""
    if isinstance(op, ops.BatchNormalization):
        return op.scale.size + op.bias.size
    arrays = (getattr(op, field, None) for field in ("weight", "bias", "value"))
    return sum(array.size for array in arrays if isinstance(array, np.ndarray))


def pixels(shape: Shape, linear: bool) -> int:
    """At how many positions a layer with this output (or input) is applied."""
    return math.prod(shape[:-1]) if linear else math.prod(shape[1:])
