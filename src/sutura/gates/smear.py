"""The published grid: a box cut evenly along its sides, in more pieces where the output depends more on one.

smear_i = max(-g_low, g_high)_i * (u_i - l_i), with g the interval gradient of the output; side i is cut into
max(1, ceil(pieces * smear_i / sum of smear)) (Dong et al., after ERAN's scheme for ACAS Xu).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from sutura.bounds.crown import Bounds, crown
from sutura.bounds.gradient import SLOPES
from sutura.bounds.program import Affine, Elementwise, MaxOf, Program
from sutura.bounds.region import Region
from sutura.gates.cells import Box32, Cell, Cut, Tree
from sutura.verdict.goal import Goal

Vector = Float64[np.ndarray, " n"]


def grid(program: Program, aim: Goal, box: Box32, pieces: int) -> Tree[None]:
    """The tree that cuts a box into its grid, sides one after the other."""
    tree: Tree[None] = (Cell(None),)
    for dim, count in reversed(list(enumerate(splits(program, aim, box, pieces)))):
        ends = np.linspace(box.low[dim], box.high[dim], count + 1)[1:-1].astype(np.float32)
        inner = [float(t) for t in np.unique(ends) if box.low[dim] <= t < box.high[dim]]
        tree = _slabs(dim, inner, tree)
    return tree


def splits(program: Program, aim: Goal, box: Box32, pieces: int) -> Int64[np.ndarray, " n"]:
    """Into how many pieces each side is cut."""
    low, high = interval_gradient(program, box, aim.rows.mean(axis=0))
    smear = np.maximum(np.maximum(-low, high), 0.0) * (box.high - box.low)
    if not np.isfinite(smear).all() or smear.sum() <= 0:
        return np.ones(len(smear), np.int64)
    return np.maximum(1, np.ceil(pieces * smear / smear.sum())).astype(np.int64)


def interval_gradient(program: Program, box: Box32, seed: Vector) -> tuple[Vector, Vector]:
    """Bounds of d(seed . output) / d(input) over a box: a guide for cutting, no proof rests on it."""
    bounds = crown(program, Region(box.low[None], box.high[None]))
    flowing = {len(program.layers): (seed, seed)}
    for at in range(len(program.layers), 0, -1):
        if at not in flowing:
            continue
        low, high = flowing.pop(at)
        for source, (lo, hi) in _through(program.layers[at - 1], bounds, low, high):
            before = flowing.get(source, (np.zeros(1), np.zeros(1)))
            flowing[source] = (before[0] + lo, before[1] + hi)
    nothing = np.zeros(program.inputs)
    return flowing.get(0, (nothing, nothing))


def _through(
    layer: Affine | Elementwise | MaxOf, bounds: Bounds, low: Vector, high: Vector
) -> list[tuple[int, tuple[Vector, Vector]]]:
    if isinstance(layer, Affine):
        middle, radius = (low + high) / 2.0, (high - low) / 2.0
        found: list[tuple[int, tuple[Vector, Vector]]] = []
        for source, weight in zip(layer.sources, layer.weights, strict=True):
            centre, spread = weight.T @ middle, abs(weight).T @ radius
            found.append((source, (centre - spread, centre + spread)))
        return found
    x_low, x_high = bounds.low[layer.source][0], bounds.high[layer.source][0]
    if isinstance(layer, MaxOf):
        sums = [np.zeros(len(x_low)), np.zeros(len(x_low))]
        for total, share in zip(sums, (np.minimum(low, 0.0), np.maximum(high, 0.0)), strict=True):
            np.add.at(total, layer.windows, np.broadcast_to(share[:, None], layer.windows.shape))
        return [(layer.source, (sums[0], sums[1]))]
    # Slopes of the activations known here are extreme at an end or at zero.
    ends = [x_low, x_high, np.clip(0.0, x_low, x_high)]
    slope = np.array([SLOPES[type(layer.op)](x, layer.op) for x in ends])
    products = [g * s for g in (low, high) for s in (slope.min(axis=0), slope.max(axis=0))]
    return [(layer.source, (np.min(products, axis=0), np.max(products, axis=0)))]


def _slabs(dim: int, thresholds: Sequence[float], inner: Tree[None]) -> Tree[None]:
    """Cuts of one side, nested evenly, with `inner` in every piece."""
    if not thresholds:
        return inner
    middle = len(thresholds) // 2
    below, above = thresholds[:middle], thresholds[middle + 1 :]
    return (Cut(dim, thresholds[middle]), *_slabs(dim, below, inner), *_slabs(dim, above, inner))
