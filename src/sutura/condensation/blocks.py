"""Layers whose neurons can be merged: weights in, an activation, weights out, and nothing else that looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from sutura.condensation.kinds import Kind, kind_of
from sutura.network import ops
from sutura.network.graph import Network, Node

Array = np.ndarray
Weighted = ops.MatMul | ops.Gemm | ops.Conv


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """`source` gives the neurons (its bias may be a node of its own), `target` alone reads them.

    `between` are the nodes from the activation to the target; `channels` is how many numbers each neuron
    passes to a dense target (1 but for the flattened channels of a convolution).
    """

    source: Node
    bias: Node | None
    activation: Node
    between: tuple[Node, ...]
    target: Node
    kind: Kind
    neurons: int
    channels: int


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Rows of a block: input weights, bias (None where there is none), and what each neuron passes on."""

    incoming: Float64[Array, "neurons inputs"]
    bias: Float64[Array, " neurons"] | None
    outgoing: Float64[Array, "neurons outputs"]


def blocks(network: Network) -> tuple[Block, ...]:
    """The blocks of a network, first to last. Residual branches, groups and other operators end a block."""
    readers: dict[str, list[Node]] = {}
    for node in network.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    found = (_block(network, node, readers) for node in network.nodes if isinstance(node.op, Weighted))
    return tuple(block for block in found if block is not None)


def _block(network: Network, source: Node, readers: dict[str, list[Node]]) -> Block | None:
    def only(node: Node) -> Node | None:
        following = readers.get(node.output, [])
        return following[0] if len(following) == 1 and node.output != network.output else None

    neurons = _neurons(network, source)
    node = only(source)
    bias = node if node is not None and _is_bias(node, neurons, network) else None
    activation = only(bias) if bias else node
    kind = kind_of(activation.op) if activation else None
    if not neurons or activation is None or kind is None:
        return None
    between: list[Node] = []
    node = only(activation)
    while node is not None and _passes(node):
        between.append(node)
        node = only(node)
    if node is None or not isinstance(node.op, Weighted):
        return None
    channels = _channels(network, neurons, node)
    if not channels:
        return None
    flat = len(network.shapes[node.inputs[0]]) == 1 and channels == 1
    if not flat or not all(isinstance(n.op, ops.Reshape) for n in between):
        kind = replace(kind, reflection=None)
    return Block(source, bias, activation, tuple(between), node, kind, neurons, channels)


def _passes(node: Node) -> bool:
    """Whether a node treats every neuron alike; a reshape may only flatten."""
    if isinstance(node.op, ops.Reshape):
        return max(node.op.shape, default=1) == math.prod(node.op.shape)
    return isinstance(node.op, ops.AveragePool | ops.MaxPool | ops.GlobalAveragePool)


def _neurons(network: Network, source: Node) -> int:
    """How many neurons a node has; none where its weights are shared in a way that merging does not know."""
    shape = network.shapes[source.output]
    if isinstance(source.op, ops.Conv):
        return shape[0] if source.op.group == 1 else 0
    return shape[-1] if shape and math.prod(shape) == shape[-1] else 0


def _is_bias(node: Node, neurons: int, network: Network) -> bool:
    if not isinstance(node.op, ops.AddConstant):
        return False
    shape, value = network.shapes[node.output], node.op.value
    where = (neurons, *(1,) * (len(shape) - 1)) if len(shape) > 1 and shape[0] == neurons else (neurons,)
    return value.size in (1, neurons) and _broadcasts(value.shape, where)


def _broadcasts(shape: tuple[int, ...], where: tuple[int, ...]) -> bool:
    trimmed = shape[max(0, len(shape) - len(where)) :]
    filled = (1,) * (len(where) - len(trimmed)) + trimmed
    return math.prod(shape) == math.prod(trimmed) and all(
        a in (1, b) for a, b in zip(filled, where, strict=True)
    )


def _channels(network: Network, neurons: int, target: Node) -> int:
    """Numbers that a dense target reads of each neuron, 1 for a convolution; 0 where the two do not fit."""
    op = target.op
    if isinstance(op, ops.Conv):
        return 1 if op.group == 1 and op.weight.shape[1] == neurons else 0
    shape = network.shapes[target.inputs[0]]
    inputs = shape[-1] if shape and math.prod(shape) == shape[-1] else 0
    return inputs // neurons if inputs and inputs % neurons == 0 else 0


def weights(block: Block) -> Weights:
    """The numbers of a block in float64."""
    source, target = block.source.op, block.target.op
    assert isinstance(source, Weighted) and isinstance(target, Weighted)
    bias = None if block.bias is None else _constant(block.bias, block.neurons)
    own = None if isinstance(source, ops.MatMul) or source.bias is None else _own_bias(source)
    if own is not None:
        bias = own if bias is None else bias + own
    return Weights(_rows(source), bias, _columns(target, block.neurons))


def _constant(node: Node, neurons: int) -> Array:
    assert isinstance(node.op, ops.AddConstant)
    return np.broadcast_to(node.op.value.astype(np.float64).reshape(-1), (neurons,))


def _own_bias(op: ops.Gemm | ops.Conv) -> Array:
    assert op.bias is not None
    scale = float(np.float32(op.beta)) if isinstance(op, ops.Gemm) else 1.0
    outputs = op.weight.shape[0] if isinstance(op, ops.Conv) or op.transposed else op.weight.shape[1]
    return np.broadcast_to(scale * op.bias.astype(np.float64).reshape(-1), (outputs,))


def _matrix(op: ops.MatMul | ops.Gemm) -> Array:
    """[inputs, outputs] in float64."""
    wide = op.weight.astype(np.float64)
    if isinstance(op, ops.MatMul):
        return wide
    return float(np.float32(op.alpha)) * (wide.T if op.transposed else wide)


def _rows(op: Weighted) -> Array:
    if isinstance(op, ops.Conv):
        return op.weight.astype(np.float64).reshape(op.weight.shape[0], -1)
    return _matrix(op).T


def _columns(op: Weighted, neurons: int) -> Array:
    if isinstance(op, ops.Conv):
        return np.moveaxis(op.weight.astype(np.float64), 1, 0).reshape(neurons, -1)
    return _matrix(op).reshape(neurons, -1)


def replaced(block: Block, new: Weights, shift: Float64[Array, " outputs"] | None) -> Sequence[Node]:
    """The block's nodes with other weights; `shift` is added to what a dense target gives.

    Shapes in `between` are made to fit the new number of neurons.
    """
    source, target = block.source.op, block.target.op
    assert isinstance(source, Weighted) and isinstance(target, Weighted)
    count = len(new.incoming)
    bias = None if new.bias is None else new.bias.astype(np.float32)
    own = block.bias is None or not isinstance(source, ops.MatMul)
    nodes = [replace(block.source, op=_with_rows(source, new.incoming, bias if own else None))]
    if block.bias is not None:
        constant = np.zeros(count, np.float32) if own or bias is None else bias
        assert isinstance(block.bias.op, ops.AddConstant)
        shape = (count, *(1,) * (_rank(source) - 1))
        nodes.append(replace(block.bias, op=ops.AddConstant(constant.reshape(shape))))
    nodes += [replace(n, op=_narrowed(n.op, block, count)) for n in block.between]
    return [*nodes, replace(block.target, op=_with_columns(target, new.outgoing, shift))]


def _rank(op: Weighted) -> int:
    return op.weight.ndim - 1 if isinstance(op, ops.Conv) else 1


def _with_rows(op: Weighted, rows: Array, bias: Array | None) -> ops.Op:
    narrow = rows.astype(np.float32)
    if isinstance(op, ops.Conv):
        return replace(op, weight=narrow.reshape(-1, *op.weight.shape[1:]), bias=bias)
    if isinstance(op, ops.MatMul):
        return ops.MatMul(np.ascontiguousarray(narrow.T))
    return ops.Gemm(narrow, bias, transposed=True)


def _with_columns(op: Weighted, columns: Array, shift: Array | None) -> ops.Op:
    narrow = columns.astype(np.float32)
    if isinstance(op, ops.Conv):
        out, _, *kernel = op.weight.shape
        return replace(op, weight=np.ascontiguousarray(np.moveaxis(narrow.reshape(-1, out, *kernel), 0, 1)))
    outputs = _matrix(op).shape[1]
    matrix = narrow.reshape(-1, outputs)
    own = None if isinstance(op, ops.MatMul) or op.bias is None else _own_bias(op)
    if shift is None and own is None:
        return ops.MatMul(matrix) if isinstance(op, ops.MatMul) else ops.Gemm(matrix, None)
    total = (0.0 if own is None else own) + (0.0 if shift is None else shift)
    return ops.Gemm(matrix, np.asarray(total, dtype=np.float32).reshape(outputs))


def _narrowed(op: ops.Op, block: Block, count: int) -> ops.Op:
    if not isinstance(op, ops.Reshape):
        return op
    size = math.prod(op.shape)
    return ops.Reshape(tuple(size // block.neurons * count if n == size else n for n in op.shape))
