"""Conversion on data: one pass, each layer fitted to what the shifted layers before it give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.errors import ShiftError
from sutura.network import ops
from sutura.network.budget import shown
from sutura.network.evaluate import apply
from sutura.network.graph import Network, Node
from sutura.shift.grid import Grid, ps_grid, q_grid
from sutura.shift.layers import Layer, moments, with_added, with_rows
from sutura.shift.scaled import Rounded, fed_back, scaled

Values = Float32[np.ndarray, "batch *shape"]


def converted(
    network: Network,
    layers: Sequence[Layer],
    bits: int,
    x: Float32[np.ndarray, "batch *sample"],
    *,
    whole: bool = False,
) -> tuple[Mapping[int, Rounded], Network]:
    """Rounded weights by node index, and the network with them, its biases and normalisations corrected.

    Original and shifted network run side by side on `x`. A layer's errors are weighed by the inputs it has in
    the shifted one; then the mean of each output channel is made what it was, in a bias or in the running
    mean of the normalisation that follows, whose variance changes by the measured ratio.
    """
    by_index = {layer.index: layer for layer in layers}
    last = {name: at for at, node in enumerate(network.nodes) for name in node.inputs}
    before, after = {network.input: x}, {network.input: x}
    found, nodes = dict[int, Rounded](), list[Node]()
    for at, node in enumerate(network.nodes):
        want = apply(node.op, tuple(before[name] for name in node.inputs))
        new = node
        if at in by_index:
            found[at] = _rounded(by_index[at], node, after[node.inputs[0]], bits, whole)
            new = with_rows(node, found[at].values * found[at].scale[:, None])
            if _takes_bias(network, node):
                got = apply(new.op, (after[node.inputs[0]],))
                new = with_added(new, _mean_change(node, got, want))
        elif isinstance(node.op, ops.BatchNormalization):
            new = replace(node, op=_renormalised(node.op, before[node.inputs[0]], after[node.inputs[0]]))
        nodes.append(new)
        before[node.output] = want
        after[node.output] = apply(new.op, tuple(after[name] for name in node.inputs))
        for name in {name for name in node.inputs if last[name] == at}:
            del before[name], after[name]
    return found, replace(network, nodes=tuple(nodes))


def _rounded(layer: Layer, node: Node, x: Values, bits: int, whole: bool) -> Rounded:
    """The better of both grids, each group of output channels with its own moments."""
    every = moments(node, x)
    if not np.isfinite(every).all():
        raise ShiftError(
            f"inputs of layer {shown(layer.name)} on the calibration data are too large for float32 or not "
            "finite; scale the data as the network takes them"
        )
    tried = (_on_grid(layer, every, make(bits), whole) for make in (q_grid, ps_grid))
    return min(tried, key=lambda rounded: rounded.loss)


def _on_grid(layer: Layer, every: Float64[np.ndarray, "groups n n"], grid: Grid, whole: bool) -> Rounded:
    parts = list[Rounded]()
    for rows, moment in zip(np.split(layer.rows, layer.groups), every, strict=True):
        power = np.diag(moment) + (float(np.mean(np.diag(moment))) or 1.0) * 1e-3
        start = scaled(rows, grid, np.broadcast_to(power, rows.shape), whole=whole)
        parts.append(fed_back(rows, start, moment, whole=whole))
    values, scale = (np.concatenate([getattr(p, name) for p in parts]) for name in ("values", "scale"))
    return Rounded(grid, values, scale, sum(part.loss for part in parts))


def _takes_bias(network: Network, node: Node) -> bool:
    """Whether a constant can be added to the node itself; a normalisation after it takes it otherwise."""
    if isinstance(node.op, ops.MatMul):
        return len(network.shapes[node.output]) == 1
    assert isinstance(node.op, ops.Conv | ops.Gemm)
    readers = [other.op for other in network.nodes if node.output in other.inputs]
    normalised = bool(readers) and all(isinstance(op, ops.BatchNormalization) for op in readers)
    return node.op.bias is not None or not normalised


def _mean_change(node: Node, got: Values, want: Values) -> Float32[np.ndarray, " out"]:
    change = want.astype(np.float64) - got
    channel = 1 if isinstance(node.op, ops.Conv) else change.ndim - 1
    axes = tuple(axis for axis in range(change.ndim) if axis != channel)
    return change.mean(axis=axes).astype(np.float32)


def _renormalised(op: ops.BatchNormalization, before: Values, after: Values) -> ops.BatchNormalization:
    """Mean and variance moved as those of the input moved, so that those of the output stay."""
    axes = (0, *range(2, before.ndim))
    old, new = (x.mean(axis=axes, dtype=np.float64) for x in (before, after))
    spread, now = (x.var(axis=axes, dtype=np.float64) for x in (before, after))
    ratio = np.where((spread > 0) & (now > 0), now / np.where(spread > 0, spread, 1), 1)
    mean = new - (old - op.mean) * np.sqrt(ratio)
    variance = np.maximum((op.variance + op.epsilon) * ratio - op.epsilon, 0)
    return replace(op, mean=mean.astype(np.float32), variance=variance.astype(np.float32))
