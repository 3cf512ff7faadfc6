"""The orientations of every layer of a network as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sutura.condensation.orientation import Count, Orientations, count, orientations
from sutura.network import ops
from sutura.network.graph import Network, Node

COSINES = (0.95, 0.99)
"""Where lines and orientations are counted."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerOrientations:
    """A layer of weights, by its node: its neurons (a convolution's filters), and counts at COSINES."""

    node: str
    neurons: int
    found: Orientations
    counts: tuple[Count, ...]


def measured(network: Network) -> tuple[LayerOrientations, ...]:
    """Every MatMul, Gemm and Conv of a network, with the bias that follows it as one more input weight."""
    readers: dict[str, list[Node]] = {}
    for node in network.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    rows = ((node, _rows(node.op), _bias(node, readers)) for node in network.nodes)
    return tuple(_layer(node, weight, bias) for node, weight, bias in rows if weight is not None)


def _layer(node: Node, weight: np.ndarray, bias: np.ndarray | None) -> LayerOrientations:
    found = orientations(weight, bias)
    return LayerOrientations(node.name, len(weight), found, tuple(count(found, c) for c in COSINES))


def _rows(op: ops.Op) -> np.ndarray | None:
    """[neurons, inputs]."""
    match op:
        case ops.MatMul(weight):
            return weight.T.astype(np.float64)
        case ops.Gemm(weight):
            return (weight if op.transposed else weight.T).astype(np.float64)
        case ops.Conv(weight):
            return weight.astype(np.float64).reshape(len(weight), -1)
        case _:
            return None


def _bias(node: Node, readers: dict[str, list[Node]]) -> np.ndarray | None:
    """The layer's own bias, or that of a sum right behind it; None where there is none."""
    rows = _rows(node.op)
    if rows is None:
        return None
    if isinstance(node.op, ops.Gemm | ops.Conv) and node.op.bias is not None:
        return np.broadcast_to(node.op.bias.astype(np.float64).reshape(-1), (len(rows),))
    match readers.get(node.output, []):
        case [Node(op=ops.AddConstant(value))] if value.size == len(rows):
            return value.astype(np.float64).reshape(-1)
        case _:
            return None
