"""The layers whose weights can be powers of two: as rows of one output channel each, and back into nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64
from numpy.lib.stride_tricks import sliding_window_view

from sutura.errors import ShiftError
from sutura.network import ops
from sutura.network.budget import shown
from sutura.network.graph import Network, Node

WINDOW = 2**22
"""How many numbers of unfolded inputs are held at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A convolution or linear layer: a row of weights for each output channel, `groups` of rows in order.

    `shape` is that of the weight with the output channel first; `index` the node's place in the network.
    """

    index: int
    name: str
    rows: Float32[np.ndarray, "out columns"]
    shape: tuple[int, ...]
    groups: int


@dataclass(frozen=True, slots=True)
class Left:
    """A layer that stays as it is, and why."""

    name: str
    reason: str


def shiftable(network: Network, keep: tuple[str, ...] = ()) -> tuple[tuple[Layer, ...], tuple[Left, ...]]:
    """The layers to shift, in order, and those left alone: named in `keep`, or with weights not finite.

    Raises ShiftError where a name of `keep` is no layer, or where nothing is left to shift.
    """
    found, left = list[Layer](), list[Left]()
    for index, node in enumerate(network.nodes):
        if not isinstance(node.op, ops.Conv | ops.Gemm | ops.MatMul):
            continue
        name = node.name or node.output
        if name in keep:
            left.append(Left(name, "was asked to stay"))
        elif not np.isfinite(node.op.weight).all():
            left.append(Left(name, "holds weights that are no finite numbers"))
        else:
            weight = _outputs_first(node.op)
            groups = node.op.group if isinstance(node.op, ops.Conv) else 1
            found.append(Layer(index, name, weight.reshape(len(weight), -1), weight.shape, groups))
    known = [layer.name for layer in (*found, *left)]
    for name in keep:
        if name not in known:
            raise ShiftError(
                f"no layer of {shown(network.name)} is called {shown(name)}; it has "
                f"{', '.join(shown(n) for n in known[:20]) or 'none with weights'}"
            )
    if not found:
        why = "; ".join(f"{shown(part.name)} {part.reason}" for part in left[:5]) or "none has weights"
        raise ShiftError(f"{shown(network.name)} has no layer to shift: {why}")
    return tuple(found), tuple(left)


def _outputs_first(op: ops.Conv | ops.Gemm | ops.MatMul) -> Float32[np.ndarray, "out *columns"]:
    match op:
        case ops.Conv(weight):
            return weight
        case ops.MatMul(weight):
            return weight.T
        case ops.Gemm(weight, _, alpha, _, transposed):
            return np.float32(alpha) * (weight if transposed else weight.T)


def with_rows(node: Node, rows: Float32[np.ndarray, "out columns"]) -> Node:
    """The node with these weights, stored the way round it has them; a Gemm's factor becomes 1."""
    match node.op:
        case ops.Conv() as op:
            return replace(node, op=replace(op, weight=rows.reshape(op.weight.shape)))
        case ops.MatMul() as op:
            return replace(node, op=replace(op, weight=np.ascontiguousarray(rows.T)))
        case ops.Gemm() as op:
            weight = rows if op.transposed else np.ascontiguousarray(rows.T)
            return replace(node, op=replace(op, weight=weight, alpha=1.0))
        case _:
            raise AssertionError(f"{node.name} has no rows of weights")


def with_added(node: Node, bias: Float32[np.ndarray, " out"]) -> Node:
    """The node with this added to its bias; a MatMul has none, and becomes a Gemm on flat samples only."""
    match node.op:
        case ops.Conv() as op:
            return replace(node, op=replace(op, bias=bias if op.bias is None else op.bias + bias))
        case ops.Gemm() as op:
            whole = bias if op.bias is None else np.float32(op.beta) * op.bias + bias
            return replace(node, op=replace(op, bias=whole, beta=1.0))
        case ops.MatMul() as op:
            return replace(node, op=ops.Gemm(op.weight, bias))
        case _:
            raise AssertionError(f"{node.name} has no bias")


def moments(
    node: Node, x: Float32[np.ndarray, "batch *sample"]
) -> Float64[np.ndarray, "groups columns columns"]:
    """The mean of (unfolded input) (unfolded input)^T over samples and positions, for each group."""
    total, count = None, 0
    for part in _parts(node, x):
        flat = part.reshape(part.shape[0], -1, part.shape[-1])
        with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
            square = np.swapaxes(flat, 1, 2) @ flat
        total = square.astype(np.float64) if total is None else total + square
        count += flat.shape[1]
    assert total is not None
    return total / count


def _parts(node: Node, x: np.ndarray) -> Iterator[np.ndarray]:
    """Inputs as (groups, ..., columns), a few samples at a time."""
    if not isinstance(node.op, ops.Conv):
        yield x.reshape(1, -1, x.shape[-1])
        return
    one = math.prod(x.shape[2:]) * math.prod(node.op.weight.shape[1:]) * node.op.group
    step = max(1, WINDOW // one)
    for at in range(0, len(x), step):
        yield patches(node.op, x[at : at + step])


def patches(op: ops.Conv, x: np.ndarray) -> np.ndarray:
    """What each position of a convolution sees: (groups, batch, positions, columns of its rows)."""
    rank = x.ndim - 2
    pads = [(0, 0), (0, 0), *((op.pads[i], op.pads[i + rank]) for i in range(rank))]
    x = np.pad(x, pads)
    kernel = op.weight.shape[2:]
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, op.dilations, strict=True))
    seen = sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    cut = (slice(None), slice(None), *(slice(None, None, s) for s in op.strides))
    seen = seen[(*cut, *(slice(None, None, d) for d in op.dilations))]
    seen = seen.reshape(len(x), op.group, -1, *seen.shape[2:])
    front = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    return seen.transpose(front).reshape(op.group, len(x), -1, math.prod(op.weight.shape[1:]))
