"""The values of a network one node after another, in float32, with dead ones forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32

from sutura.network.evaluate import apply
from sutura.network.graph import Network, Node

Values = tuple[Float32[np.ndarray, " batch *shape"], ...]
Change = Callable[[Node, Values], Node]


def unchanged(node: Node, _: Values) -> Node:
    """The node itself."""
    return node


def trace(
    network: Network, x: Float32[np.ndarray, " batch *shape"], change: Change = unchanged
) -> Iterator[tuple[Node, Values, Float32[np.ndarray, " batch *shape"]]]:
    """Each node with its input values and its output value, in order.

    `change` sees a node and its inputs before it runs, and gives the node that runs in its place: so weights
    can be fitted to what the changed nodes before them compute. An estimate in plain float32.
    """
    last = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
    values = {network.input: x}
    for index, old in enumerate(network.nodes):
        inputs = tuple(values[name] for name in old.inputs)
        node = change(old, inputs)
        values[node.output] = apply(node.op, inputs)
        yield node, inputs, values[node.output]
        for name in set(old.inputs):
            if last[name] == index:
                del values[name]
