"""Which neuron to split: candidates by what their relaxation costs the bound, then a look ahead (filtered
smart branching, De Palma et al. 2021): both halves of each candidate are bounded once, the best pair wins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int64

from sutura.bounds.ascent import Ascent, Choice, Domain, Start, evaluate
from sutura.bounds.condensed import Block, Condensed
from sutura.bounds.program import ACTIVATIONS
from sutura.bounds.relaxation import LINES, PIECEWISE_LINEAR

CANDIDATES = 4
"""Neurons taken from each of the two rankings."""

NONE = -1
"""No candidate."""

Rows = Float32[np.ndarray, "batch n"]


def splittable(blocks: Sequence[Block], domain: Domain) -> Bool[np.ndarray, "batch n"]:
    """Neurons whose split would change their relaxation."""
    can = domain.high - domain.low > 1e-5 * (1.0 + abs(domain.low))
    for block in blocks:
        if isinstance(block.op, PIECEWISE_LINEAR):
            can[:, block.span] = (domain.low < 0)[:, block.span] & (domain.high > 0)[:, block.span]
    return can


def candidates(net: Condensed, domain: Domain, found: Ascent) -> Int64[np.ndarray, "batch k"]:
    """The neurons whose relaxation costs most: at the point where the bound is attained, and by the offset of
    the line used (the intercept score of Bunel et al. 2020). NONE fills up."""
    gap = np.zeros_like(found.z)
    for block in net.blocks:
        span = block.span
        z = np.clip(found.z[:, span], domain.low[:, span], domain.high[:, span])
        curve = ACTIVATIONS[type(block.op)](z, block.op)
        gap[:, span] = found.neurons[:, span] * (curve - found.f[:, span])
    can = splittable(net.blocks, domain)
    if not can.shape[1]:
        return np.full((len(can), 1), NONE)
    scores = gap, intercepts(net.blocks, domain, found.neurons)
    best = [_top(np.where(can, score, -np.inf)) for score in scores]
    return _distinct(np.concatenate(best, axis=1))


def intercepts(blocks: Sequence[Block], domain: Domain, coefficients: Rows, either: bool = False) -> Rows:
    """What the offsets of the lines around each neuron cost a bound in which f(z) has these coefficients."""
    cost = np.zeros_like(coefficients)
    for block in blocks:
        span = block.span
        low, high = (v[:, span].astype(np.float64) for v in (domain.low, domain.high))
        lines, g = LINES[type(block.op)](low, high, block.op), coefficients[:, span]
        if isinstance(block.op, PIECEWISE_LINEAR):
            cost[:, span] = (abs(g) if either else np.maximum(-g, 0)) * lines.upper_offset
        else:
            lower = 0.0 if lines.lower_offset is None else lines.lower_offset
            cost[:, span] = abs(g) * (lines.upper_offset - lower)
    return cost


def _top(score: Rows) -> Int64[np.ndarray, "batch k"]:
    most = min(CANDIDATES, score.shape[1])
    part = np.argpartition(-score, most - 1, axis=1)[:, :most]
    values = np.take_along_axis(score, part, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    chosen = np.take_along_axis(part, order, axis=1)
    return np.where(np.isfinite(np.take_along_axis(values, order, axis=1)), chosen, NONE)


def _distinct(chosen: Int64[np.ndarray, "batch k"]) -> Int64[np.ndarray, "batch k"]:
    """A neuron named twice counts once; the named ones come first."""
    repeated = np.zeros(chosen.shape, dtype=bool)
    for k in range(1, chosen.shape[1]):
        repeated[:, k] = (chosen[:, :k] == chosen[:, k : k + 1]).any(axis=1)
    kept = np.where(repeated, NONE, chosen)
    return np.take_along_axis(kept, np.argsort(kept == NONE, axis=1, kind="stable"), axis=1)


def split(
    blocks: Sequence[Block], domain: Domain, neuron: Int64[np.ndarray, " batch"]
) -> tuple[Domain, Domain]:
    """Each subproblem with its neuron's z at most, and at least, the cut: zero for a kink, else the middle.

    Every execution lies in one of the two.
    """
    row = np.arange(len(neuron))
    low, high = domain.low[row, neuron], domain.high[row, neuron]
    kinked = np.zeros(domain.low.shape[1], dtype=bool)
    for block in blocks:
        kinked[block.span] = isinstance(block.op, PIECEWISE_LINEAR)
    cut = np.where(kinked[neuron], 0, (low + high) / 2).astype(np.float32)
    below, above = domain.high.copy(), domain.low.copy()
    below[row, neuron], above[row, neuron] = cut, cut
    return Domain(domain.low, below), Domain(above, domain.high)


def look_ahead(
    net: Condensed, domain: Domain, choice: Choice, start: Start, asked: Int64[np.ndarray, "batch k"]
) -> Int64[np.ndarray, " batch"]:
    """The candidate whose two halves, bounded once with the parent's choice, lack least to a proof."""
    if asked.shape[1] == 1:
        return asked[:, 0]
    row, column = np.nonzero(asked != NONE)
    halves = split(net.blocks, domain.take(row), asked[row, column])
    inherited = choice.take(row)
    values = [evaluate(net, net.blocks, half, inherited, start).value for half in halves]
    score = np.full(asked.shape, -np.inf)
    score[row, column] = sum(np.minimum(v, 0.0) for v in values) + 1e-3 * np.minimum(*values)
    return asked[np.arange(len(asked)), score.argmax(axis=1)]
