"""The values of a network one node after another, in float32, with dead ones forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32

from sutura.network import ops
from sutura.network.evaluate import apply
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session, run

Batch = Float32[np.ndarray, "batch *shape"]
Change = Callable[[Node, tuple[Batch, ...]], Node]

SLICE = 50
"""Samples that go through a convolution at once."""


def unchanged(node: Node, _: tuple[Batch, ...]) -> Node:
    """The node itself."""
    return node


def trace(
    network: Network, x: Batch, change: Change = unchanged
) -> Iterator[tuple[Node, tuple[Batch, ...], Batch]]:
    """Each node with its input values and its output value, in order.

    `change` sees a node and its inputs before it runs, and gives the node that runs in its place: so weights
    can be fitted to what the changed nodes before them compute. Float32, convolutions in ONNX Runtime.
    """
    last = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
    values = {network.input: x}
    for index, old in enumerate(network.nodes):
        inputs = tuple(values[name] for name in old.inputs)
        node = change(old, inputs)
        values[node.output] = _value(network, node, inputs)
        yield node, inputs, values[node.output]
        for name in set(old.inputs):
            if last[name] == index:
                del values[name]


def _value(network: Network, node: Node, inputs: tuple[Batch, ...]) -> Batch:
    if not isinstance(node.op, ops.Conv):
        return apply(node.op, inputs)
    session = open_session(write_onnx(alone(network, node)))
    (x,) = inputs
    return np.concatenate([run(session, x[at : at + SLICE]) for at in range(0, len(x), SLICE)])


def alone(network: Network, node: Node) -> Network:
    """A network of this one node, of one input."""
    (source,) = node.inputs
    shapes = {name: network.shapes[name] for name in (source, node.output)}
    return Network(node.name, source, node.output, (node,), shapes, "")
