"""Weights of a compressed network fitted to what the original computes, one layer after another.

Each layer of the compressed network reads what the compressed layers before it give, not what the original's
did; its last weights are fitted by least squares so that it still gives what the original's layer gave. Batch
normalisations get the mean and variance of what now reaches them. Nothing needs labels or gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.compression.factors import shaped
from sutura.compression.layers import Layer, layer_at
from sutura.compression.moments import MOST_COLUMNS, columns, drawn, outputs_at, unfolded
from sutura.compression.trace import Batch, trace
from sutura.network import ops
from sutura.network.graph import Network, Node

RIDGE = 1e-3
"""Weight of the change against its gain, as a share of the mean variance of what the layer reads."""


def normalised(network: Network, x: Batch) -> Network:
    """The network with the mean and variance of every batch normalisation taken anew from these samples."""
    return shaped(network, [node for node, _, _ in trace(network, x, _normalise)])


def _normalise(node: Node, inputs: tuple[Batch, ...]) -> Node:
    if not isinstance(node.op, ops.BatchNormalization):
        return node
    axes = (0, *range(2, inputs[0].ndim))
    mean, variance = inputs[0].mean(axis=axes), inputs[0].var(axis=axes)
    return replace(node, op=replace(node.op, mean=mean, variance=variance))


def fitted(
    original: Network, compressed: Network, layers: Sequence[Layer], x: Batch, seed: int = 0
) -> Network:
    """The compressed network, the last weights of each of `layers` fitted to what the original's layer gives.

    Also those of layers that were not split: so each makes up for what the layers before it lost. A ridge
    keeps the weights near what they were where the samples say little.
    """
    wanted = {layer.key for layer in layers}
    targets = _outputs(original, wanted, x)
    places = {node.output: index for index, node in enumerate(compressed.nodes)}
    shifts = dict[str, Float32[np.ndarray, " out"]]()

    def change(node: Node, inputs: tuple[Batch, ...]) -> Node:
        if isinstance(node.op, ops.BatchNormalization) and node.inputs[0] in shifts:
            return replace(node, op=replace(node.op, mean=node.op.mean - shifts[node.inputs[0]]))
        if node.output not in wanted:
            return node
        target = targets(node.output)
        layer = layer_at(compressed, places[node.output])
        if layer is None or columns(layer) > MOST_COLUMNS:
            return node
        fit = _fit(layer, inputs[0], target, seed)
        if layer.absorbs == "normalisation":
            shifts[node.output] = fit.constant
        return replace(node, op=_with(layer, fit))

    return shaped(compressed, [node for node, _, _ in trace(compressed, x, change)])


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A layer's new weight, and the constant to add to its output."""

    weight: Float32[np.ndarray, "out in *kernel"]
    constant: Float32[np.ndarray, " out"]


def _outputs(network: Network, wanted: set[str], x: Batch) -> Callable[[str], Batch]:
    """Gives the wanted values of a network, asked for in the order in which they come."""
    steps = ((node.output, value) for node, _, value in trace(network, x) if node.output in wanted)
    waiting = dict[str, Batch]()

    def value(name: str) -> Batch:
        while name not in waiting:
            key, found = next(steps)
            waiting[key] = found
        return waiting.pop(name)

    return value


def _fit(layer: Layer, x: Batch, target: Batch, seed: int) -> Fit:
    """Ridge regression of what the layer lacks on what it reads, about the means if it absorbs constants."""
    at = drawn(layer, len(x), seed)
    seen = unfolded(layer, x, at).astype(np.float64)
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.float64)
    lacking = outputs_at(layer, target, at) - seen @ weight.T
    if layer.bias is not None:
        lacking -= layer.bias
    mean, gap = (v.mean(axis=0) if layer.absorbs else np.zeros(v.shape[1]) for v in (seen, lacking))
    added = _ridge(seen - mean, lacking - gap)
    constant = (gap - added @ mean).astype(np.float32)
    return Fit((weight + added).astype(np.float32).reshape(layer.weight.shape), constant)


def _ridge(seen: Float64[np.ndarray, "n columns"], lacking: Float64[np.ndarray, "n out"]) -> np.ndarray:
    gram = seen.T @ seen
    gram += (RIDGE * np.trace(gram) / len(gram) + np.finfo(float).tiny) * np.eye(len(gram))
    return np.linalg.solve(gram, seen.T @ lacking).T


def _with(layer: Layer, fit: Fit) -> ops.Op:
    """The layer's operator with other weights."""
    bias = None if layer.bias is None else layer.bias + fit.constant
    match layer.node.op:
        case ops.Conv() as op:
            return replace(op, weight=fit.weight, bias=bias)
        case ops.MatMul():
            return ops.MatMul(np.ascontiguousarray(fit.weight.T))
        case _:
            return ops.Gemm(fit.weight, bias, transposed=True)
