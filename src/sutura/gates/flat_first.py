"""Flatten the input before anything else, where a network subtracts or scales by constants first.

The dispatcher reads the flat input too, and runtimes join the two equal operators into one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sutura.network import ops
from sutura.network.graph import Network, Node

Constant = ops.AddConstant | ops.SubtractConstant | ops.MultiplyConstant | ops.DivideConstant


def flat_first(network: Network) -> Network:
    """The same function, bit for bit: `flatten(op(x, value))` at the start becomes `op(flatten(x), value)`.

    Any other network comes back as it is.
    """
    readers = [node for node in network.nodes if network.input in node.inputs]
    if len(readers) != 1 or readers[0].output == network.output:
        return network
    step, op = readers[0], readers[0].op
    if not isinstance(op, Constant):
        return network
    after = [node for node in network.nodes if step.output in node.inputs]
    flat = ops.Reshape((network.input_size,))
    if len(after) != 1 or after[0].op != flat or network.shapes[step.output] != network.input_shape:
        return network
    early = f"{step.output}.flat"
    if early in network.shapes:
        return network
    value = np.broadcast_to(op.value, network.input_shape).reshape(-1)
    moved = {
        step: Node(after[0].name, flat, (network.input,), early),
        after[0]: Node(step.name, replace(op, value=value), (early,), after[0].output),
    }
    shapes = {name: shape for name, shape in network.shapes.items() if name != step.output}
    return replace(
        network,
        nodes=tuple(moved.get(node, node) for node in network.nodes),
        shapes={**shapes, early: flat.shape},
    )
