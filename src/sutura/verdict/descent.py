"""Look for a witness on the condensed network: sign-gradient descent, each conjunction by itself.

Inside its box the condensed network is the network itself, up to float32 rounding, at a fraction of the cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from sutura.bounds.condensed import Block, Condensed
from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.bounds.gradient import SLOPES
from sutura.bounds.program import ACTIVATIONS
from sutura.verdict.goal import Goal, listed

MOMENTUM = 0.75
PATIENCE = 5
"""Steps from one look at the margins to the next."""

Rows = Float32[np.ndarray, "batch n"]


@dataclass(frozen=True, slots=True)
class Descent:
    """How hard to look: starts for each conjunction (at most `most` in all), steps, the first as a share of
    the box, and the seed of the starts."""

    starts: int = 8
    steps: int = 20
    most: int = 512
    pace: float = 0.25
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Points to move and the conjunction that each is to satisfy."""

    points: Rows
    conjunction: Int64[np.ndarray, " batch"]


def starts(net: Condensed, conjunctions: Int64[np.ndarray, " k"], config: Descent) -> Wanted:
    """Random points and corners of the box, and its middle, for each conjunction."""
    count = max(1, min(config.starts, config.most // max(1, len(conjunctions))))
    random = np.random.default_rng(config.seed)
    share = random.uniform(-1.0, 1.0, (count * len(conjunctions), len(net.varying))).astype(np.float32)
    share[1::2] = np.sign(share[1::2])
    share[::count] = 0.0
    return Wanted(net.centre + share * net.radius, np.repeat(conjunctions, count))


def descend(
    net: Condensed, aim: Goal, wanted: Wanted, config: Descent, checkpoint: Checkpoint = no_checkpoint
) -> Float64[np.ndarray, "k inputs"]:
    """Whole inputs, most unsafe first: the best point seen from each start. Estimates until replayed.

    Stops early once a point looks unsafe.
    """
    x, low, high = wanted.points, net.centre - net.radius, net.centre + net.radius
    best, record = x, np.full(len(x), np.inf, np.float32)
    speed = np.zeros_like(x)
    for count in range(config.steps + 1):
        checkpoint()
        z, f = forward(net, x)
        margin, row = _worst(net, aim, (x, f), wanted.conjunction)
        better = margin < record
        best, record = np.where(better[:, None], x, best), np.where(better, margin, record)
        if count == config.steps or (count % PATIENCE == 0 and record.min(initial=np.inf) < 0):
            break
        slope = _gradient(net, z, row)
        speed = MOMENTUM * speed + slope / np.maximum(abs(slope).mean(axis=1, keepdims=True), 1e-30)
        pace = np.float32(config.pace * 2.0 * (1.0 - count / config.steps) ** 1.5)
        x = np.clip(x - pace * net.radius * np.sign(speed), low, high)
    return net.inputs(best[np.argsort(record, kind="stable")])


def forward(net: Condensed, x: Rows) -> tuple[Rows, Rows]:
    """z and f(z) of the open neurons."""
    z = x @ net.from_inputs.T + net.bias
    f = np.empty_like(z)
    for block in net.blocks:
        span = block.span
        if block.start:
            z[:, span] += f[:, : block.start] @ net.from_neurons[span, : block.start].T
        f[:, span] = ACTIVATIONS[type(block.op)](z[:, span], block.op)
    return z, f


def _worst(
    net: Condensed, aim: Goal, values: tuple[Rows, Rows], conjunction: Int64[np.ndarray, " batch"]
) -> tuple[Float32[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
    """How far each point's conjunction is from being satisfied, and the row to blame."""
    x, f = values
    gap = x @ net.rows_inputs.T + f @ net.rows_neurons.T + (net.rows_bias - aim.bounds.astype(np.float32))
    rows, valid = listed(aim)
    asked = rows[conjunction]
    mine = np.where(valid[conjunction], np.take_along_axis(gap, asked, axis=1), -np.inf)
    worst = mine.argmax(axis=1)
    at = np.arange(len(x))
    return mine[at, worst], asked[at, worst]


def _gradient(net: Condensed, z: Rows, row: Int64[np.ndarray, " batch"]) -> Rows:
    flowing = net.rows_neurons[row]
    for block in reversed(net.blocks):
        span = block.span
        flowing[:, span] *= _slope(block, z[:, span])
        if block.start:
            flowing[:, : block.start] += flowing[:, span] @ net.from_neurons[span, : block.start]
    return net.rows_inputs[row] + flowing @ net.from_inputs


def _slope(block: Block, z: Rows) -> Rows:
    return SLOPES[type(block.op)](z, block.op).astype(np.float32)
