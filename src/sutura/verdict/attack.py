"""Look for a witness first: projected gradient descent on the unsafe margin, from many starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.bounds.gradient import gradients
from sutura.bounds.program import Program, run
from sutura.verdict.goal import Goal

PACE, SHRINK = 0.1, 0.8
"""First step of the descent, as a share of a side, and what each step is of the one before."""

OVER = 0.3
"""Starts are drawn from a box larger by this share on each side, and moved to the faces they lie beyond:
witnesses like faces and corners."""

MOST_POINTS = 4096
"""Points moved together; many conjunctions get fewer starts each."""


@dataclass(frozen=True, slots=True)
class AttackConfig:
    """How hard to look: starts for each conjunction, descent steps, and the seed of the starts."""

    starts: int = 64
    steps: int = 20
    seed: int = 0


def attack(
    program: Program,
    aim: Goal,
    low: Float64[np.ndarray, " n"],
    high: Float64[np.ndarray, " n"],
    config: AttackConfig,
    checkpoint: Checkpoint = no_checkpoint,
) -> Float64[np.ndarray, "k n"]:
    """Inputs of the box, most unsafe first: the best point seen from each start. Estimates until replayed.

    `checkpoint` is called before each step and may raise.
    """
    width = high - low
    conjunctions = len(aim.members)
    starts = max(1, min(config.starts, MOST_POINTS // max(1, conjunctions)))
    random = np.random.default_rng(config.seed)
    share = np.clip((1.0 + 2.0 * OVER) * random.random((starts * conjunctions, len(low))) - OVER, 0.0, 1.0)
    share[-1:] = 0.5
    wanted = np.repeat(np.arange(conjunctions), starts)
    x = low + share * width
    best, record = x, np.full(len(x), np.inf)
    pace = PACE
    for _ in range(config.steps + 1):
        checkpoint()
        with np.errstate(all="ignore"):
            values = run(program, x)
            margin, worst = _worst(aim, values[-1], wanted)
            slope = np.nan_to_num(gradients(program, values, aim.rows[worst])[0]) * width
            step = slope / np.maximum(abs(slope).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        better = margin < record
        best, record = np.where(better[:, None], x, best), np.where(better, margin, record)
        x = np.clip(x - pace * width * step, low, high)
        pace *= SHRINK
    return best[np.argsort(record, kind="stable")]


def _worst(
    aim: Goal, outputs: Float64[np.ndarray, "batch m"], wanted: Int64[np.ndarray, " batch"]
) -> tuple[Float64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
    """For each point, how far its conjunction is from being satisfied, and the inequality to blame."""
    gap = np.where(aim.members[wanted], outputs @ aim.rows.T - aim.bounds, -np.inf)
    return gap.max(axis=1), gap.argmax(axis=1)
