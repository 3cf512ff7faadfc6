"""Raise the bounds of conjunctions left open: weights of inequalities and slopes below ReLUs climb together.

The slopes are those of alpha-CROWN (Xu et al., ICLR 2021), optimised for the output alone. The derivative
needs no second backward pass: by the slope of a ReLU it is its coefficient, where positive, times what the
ReLU reads at the input where the bound is attained, each activation taken for the line it was replaced by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sutura.bounds import interval
from sutura.bounds.crown import Bounds, Combination, backward
from sutura.bounds.program import Affine, Elementwise, Program
from sutura.bounds.region import Region
from sutura.bounds.relaxation import Lines
from sutura.bounds.rounding import UNIT64, gamma
from sutura.network.ops import Relu
from sutura.verdict.goal import Goal, listed

ROUNDS = 5

Rows = Float64[np.ndarray, "pairs n"]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Conjunctions to refute, each over one box: rows @ y <= limits, those that are valid, all at once."""

    rows: Float64[np.ndarray, "pairs r outputs"]
    limits: Float64[np.ndarray, "pairs r"]
    valid: Bool[np.ndarray, "pairs r"]


@dataclass(frozen=True, slots=True, eq=False)
class Raised:
    """For each pair the best plane found (see LowerPlanes), less its limit: positive everywhere refutes.

    Sound for float32 execution.
    """

    least: Float64[np.ndarray, " pairs"]
    slopes: Rows


def ascend(
    program: Program,
    scene: tuple[Region, Bounds],
    pairs: Pairs,
    weights: Float64[np.ndarray, "pairs r"],
) -> Raised:
    """Climb from the given weights (not negative), one box a pair; every plane on the way is sound."""
    region, bounds = scene
    lines = list(bounds.lines)
    score = np.log(np.maximum(weights, 1e-6))
    least, slopes = np.full(len(region), -np.inf), np.zeros(region.low.shape)
    for at in range(ROUNDS):
        read: dict[int, np.ndarray] = {}
        found, tilt = _plane(program, region, replace(bounds, lines=tuple(lines)), pairs, weights, read)
        better = found > least
        least, slopes = np.where(better, found, least), np.where(better[:, None], tilt, slopes)
        if at + 1 < ROUNDS:
            x = np.where(tilt > 0, region.low, region.high)
            values = _attained(program, x, lines, read)
            _step(program, bounds, lines, (values, read), 1.0 / (1.0 + at))
            score = score + _urge(pairs, values[-1]) / np.sqrt(1.0 + at)
            weights = _normal(score, pairs.valid & (weights > 0))
    return Raised(least, slopes)


def _plane(
    program: Program,
    region: Region,
    bounds: Bounds,
    pairs: Pairs,
    weights: Float64[np.ndarray, "pairs r"],
    read: dict[int, np.ndarray],
) -> tuple[Float64[np.ndarray, " pairs"], Rows]:
    """The plane of the weighted sum, less its limit; `read` collects the coefficients of activations."""

    def watch(at: int, a: np.ndarray) -> None:
        read[at] = a[:, 0]

    at = len(program.layers)
    mixed, absolute = (np.einsum("pr,pro->po", weights, r)[:, None] for r in (pairs.rows, abs(pairs.rows)))
    lost = interval.charged(program, absolute, interval.magnitude(bounds.low[at], bounds.high[at]))
    start = Combination({at: mixed}, np.zeros(lost.shape), lost)
    plane, slopes = backward(program, region, bounds, start, watch)
    parts = np.where(weights > 0, weights * pairs.limits, 0.0)
    limit = parts.sum(axis=1) + gamma(parts.shape[1] + 4, UNIT64) * abs(parts).sum(axis=1)
    return np.where((weights > 0).any(axis=1), plane[:, 0] - limit, -np.inf), slopes[:, 0]


def _attained(
    program: Program, x: Rows, lines: list[Lines | None], read: Mapping[int, np.ndarray]
) -> list[Rows]:
    """All values at x with every activation on the line that its coefficient chose (an estimate)."""
    values = [x]
    for at, layer in enumerate(program.layers, start=1):
        if isinstance(layer, Affine):
            terms = (values[s] @ w.T for s, w in zip(layer.sources, layer.weights, strict=True))
            values.append(sum(terms, layer.bias[None, :]))
            continue
        z, line = values[layer.source], lines[at]
        if line is None:
            values.append(z[:, layer.windows].max(axis=2) if not isinstance(layer, Elementwise) else z)
            continue
        below = line.lower_slope * z + (0.0 if line.lower_offset is None else line.lower_offset)
        above = line.upper_slope * z + line.upper_offset
        values.append(np.where(read.get(at, np.zeros(z.shape)) > 0, below, above))
    return values


def _step(
    program: Program,
    bounds: Bounds,
    lines: list[Lines | None],
    reached: tuple[list[Rows], Mapping[int, np.ndarray]],
    pace: float,
) -> None:
    """Move the lower slopes of open ReLUs, any of [0, 1], by what they read as a share of their range."""
    values, read = reached
    for at, layer in enumerate(program.layers, start=1):
        line = lines[at]
        if (
            line is None
            or at not in read
            or not (isinstance(layer, Elementwise) and isinstance(layer.op, Relu))
        ):
            continue
        low, high = bounds.low[layer.source], bounds.high[layer.source]
        moves = (low < 0) & (high > 0) & (read[at] > 0)
        share = values[layer.source] / np.where(moves, np.minimum(-low, high), 1.0)
        slope = np.clip(line.lower_slope + pace * np.clip(np.nan_to_num(share), -1.0, 1.0), 0.0, 1.0)
        lines[at] = replace(line, lower_slope=np.where(moves, slope, line.lower_slope))


def _urge(pairs: Pairs, outputs: Rows) -> Float64[np.ndarray, "pairs r"]:
    """How far each inequality is from holding, as a share of the farthest."""
    gap = np.einsum("pro,po->pr", pairs.rows, outputs) - pairs.limits
    gap = np.where(pairs.valid & np.isfinite(gap), gap, 0.0)
    size = abs(gap).max(axis=1, keepdims=True)
    return gap / np.where(size > 0, size, 1.0)


def _normal(score: Float64[np.ndarray, "pairs r"], usable: Bool[np.ndarray, "pairs r"]) -> np.ndarray:
    top = np.where(usable, score, -np.inf).max(axis=1, keepdims=True)
    share = np.where(usable, np.exp(score - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = share.sum(axis=1, keepdims=True)
    return share / np.where(total > 0, total, 1.0)


def pairs_of(aim: Goal, conjunctions: Int64[np.ndarray, " pairs"]) -> Pairs:
    """The inequalities of some conjunctions."""
    rows, valid = listed(aim)
    chosen = rows[conjunctions]
    return Pairs(aim.rows[chosen], aim.bounds[chosen], valid[conjunctions])
