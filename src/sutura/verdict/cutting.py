"""Refute a conjunction by cuts: each plane leaves less of the box, where alone the next bounds must hold.

Output-constrained bounds (INVPROP, Kotha et al., NeurIPS 2023), the plane taken anew in each round. No neuron
and no input is split, so that the cost grows with neither.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from sutura.bounds.crown import Bounds, Checkpoint, crown
from sutura.bounds.cut import Cut
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.verdict.ascend import ascend, pairs_of
from sutura.verdict.goal import Goal

ROUNDS = 12

WORTH = 0.95
"""A round that leaves more than this share of what the plane before it lacked is the last."""


def cut_off(
    program: Program,
    aim: Goal,
    scene: tuple[Region, Bounds],
    conjunction: tuple[int, Float64[np.ndarray, " r"]],
    checkpoint: Checkpoint,
) -> Bounds | None:
    """None where the conjunction is refuted on the one box, else bounds that hold wherever it holds.

    `conjunction` is its place in the goal, and weights of its inequalities (in the order of `listed`) from
    which ascents start. Sound for float32 execution.
    """
    (region, bounds), (place, weights) = scene, conjunction
    box, pairs = Region(region.low, region.high), pairs_of(aim, np.array([place]))
    lacked = -np.inf
    for _ in range(ROUNDS):
        checkpoint()
        plane = ascend(program, (box, bounds), pairs, weights[None])
        least = float(plane.least[0])
        if least > 0:
            return None
        if not np.isfinite(least) or least < WORTH * lacked:
            break
        lacked = least
        cut = Cut(box.low, box.high, plane.slopes, -plane.least)
        left = Region(box.low, box.high, cut)
        bounds = crown(program, left, bounds.enclosure(program), checkpoint=checkpoint)
    return bounds
