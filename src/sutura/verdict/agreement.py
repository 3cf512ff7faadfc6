"""Where two networks are proved to decide alike."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from sutura.bounds.crown import Checkpoint, lower_planes
from sutura.bounds.difference import difference_bounds
from sutura.bounds.pair import Pair
from sutura.bounds.program import run
from sutura.bounds.region import Region, halves
from sutura.progress import Listener, Progress
from sutura.verdict.deadline import Deadline, OutOfTimeError
from sutura.verdict.narrowing import BATCH, steepest

Decision = Literal["argmax", "argmin"]


def decided(outputs: Float32[np.ndarray, "batch m"], decision: Decision) -> Int64[np.ndarray, " batch"]:
    """The decision for each row; the first of equal scores."""
    return outputs.argmax(axis=1) if decision == "argmax" else outputs.argmin(axis=1)


def same_share(
    both: Pair, region: Region, decision: Decision, limits: tuple[int, Deadline], listen: Listener
) -> tuple[float, int]:
    """The part of the region on which both are proved to decide alike, and how many boxes that took.

    A half of a box counts half of it; one only where all of the region is proved. Sound for float32
    execution.
    """
    most, deadline = limits
    total = len(region)
    waiting, weight = region, np.ones(total)
    settled, used = 0.0, 0
    while len(waiting) and used < most and not deadline.passed:
        count = min(BATCH, most - used)
        batch, share = waiting.take(slice(0, count)), weight[:count]
        try:
            proved, sides = _alike(both, batch, decision, deadline.check)
        except OutOfTimeError:
            break
        used, settled = used + len(batch), settled + float(share[proved].sum())
        if (~proved & (batch.low == batch.high).all(axis=1)).any():
            break
        left, right = halves(batch.take(~proved), sides[~proved])
        waiting = _joined([waiting.take(slice(count, None)), left, right])
        weight = np.concatenate([weight[count:], np.tile(share[~proved] / 2.0, 2)])
        listen(Progress("decisions", used, len(waiting), settled / total))
    # Shares are sums of powers of two: exact, so that one means all.
    return settled / total, used


def _joined(parts: list[Region]) -> Region:
    return Region(np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts]))


def _alike(
    both: Pair, region: Region, decision: Decision, checkpoint: Checkpoint
) -> tuple[Bool[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
    """Whether both decide all over each box as the first does in its middle, and where to cut if not."""
    scores = _sign(decision) * run(both.first, (region.low + region.high) / 2.0)[-1]
    winner = scores.argmax(axis=1)
    proved, sides = np.zeros(len(region), dtype=bool), np.zeros(len(region), dtype=np.int64)
    for leader in np.unique(winner):
        rows = np.flatnonzero(winner == leader)
        proved[rows], sides[rows] = _led(both, region.take(rows), (int(leader), decision), checkpoint)
    return proved, sides


def _led(
    both: Pair, region: Region, asked: tuple[int, Decision], checkpoint: Checkpoint
) -> tuple[Bool[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
    """The same for boxes with one and the same leader: every margin of both networks is positive."""
    leader, sign = asked[0], _sign(asked[1])
    found = difference_bounds(both, region, checkpoint=checkpoint)
    margins = sign * _margins(leader, both.first.outputs)
    first = lower_planes(both.first, region, found.first, margins)
    second = lower_planes(both.second, region, found.second, margins).value
    low, high = (
        np.minimum(sign * found.low, sign * found.high),
        np.maximum(sign * found.low, sign * found.high),
    )
    # The second's margin is the first's less that of the difference.
    apart = high[:, [leader]] - np.delete(low, leader, axis=1)
    room = 1e-12 * (abs(first.value) + abs(high).max() + abs(low).max())
    second = np.fmax(second, first.value - apart - room)
    proved = np.asarray((np.fmin(first.value, second) > 0).all(axis=1))
    slope = first.slopes[np.arange(len(region)), first.value.argmin(axis=1)]
    return proved, steepest(region, slope)


def _sign(decision: Decision) -> float:
    return 1.0 if decision == "argmax" else -1.0


def _margins(leader: int, outputs: int) -> Float64[np.ndarray, "rows outputs"]:
    """Score of the leader less that of each other output."""
    rows = -np.eye(outputs)
    rows[:, leader] = 1.0
    return np.delete(rows, leader, axis=0)
