"""Certified radii by linear bounds with optimised slopes, one ball at a time, where plain CROWN ends.

The slopes of alpha-CROWN (Xu et al., ICLR 2021), for the neurons' own bounds and then for what is asked; what
they leave open, cuts by planes of the output (`sutura.verdict.cutting`). The box of a ball is what is
bounded, so that balls of L1 and L2 gain little.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from sutura.bounds.ascent import Domain, plain_choice
from sutura.bounds.condensed import Condensed, condense
from sutura.bounds.crown import Bounds, Checkpoint, crown
from sutura.bounds.maxima import without_maxima
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.bounds.tighten import tighten
from sutura.risk.ball import Column, regions
from sutura.risk.boundary import Asked
from sutura.risk.safety import Claim
from sutura.verdict.cutting import cut_off
from sutura.verdict.deadline import OutOfTimeError
from sutura.verdict.goal import Goal, listed
from sutura.verdict.neuron_roots import LAYERS, ROOT
from sutura.verdict.neuron_step import Leaves, Problem, bounded
from sutura.verdict.strategy import bends

BISECTIONS = 6
"""Of the way from what CROWN shows to the ceiling: to a part in 64 of it."""


def stretched(
    program: Program, asked: Asked, claimed: Claim, span: tuple[Column, Column], checkpoint: Checkpoint
) -> Column:
    """Certified radii from those that are shown already, `span[0]`, towards the ceilings `span[1]`.

    Sound for float32 execution. What is not bounded when `checkpoint` raises OutOfTimeError is not shown.
    """
    shown, ceiling = span
    if not bends(program):
        return shown
    whole, radius = without_maxima(program), shown.copy()
    for i in range(len(radius)):
        row = np.array([i])
        one, said, above = asked.take(row), claimed.take(row), float(ceiling[i])
        for _ in range(BISECTIONS if radius[i] < above < np.inf else 0):
            tried = (radius[i] + above) / 2.0
            try:
                holds = shown_with_slopes(whole, one, said, tried, checkpoint)
            except OutOfTimeError:
                return radius
            radius[i], above = (tried, above) if holds else (radius[i], tried)
    return radius


def shown_with_slopes(
    program: Program, asked: Asked, claimed: Claim, radius: float, checkpoint: Checkpoint
) -> bool:
    """Whether bounds with optimised slopes show the claim on the ball of one input. Sound as they are."""
    ball = regions(asked.domain, "linf", asked.centre, np.array([radius]))
    region, aim = Region(ball.low, ball.high), claimed_goal(claimed)
    with np.errstate(all="ignore"):
        bounds = crown(program, region, checkpoint=checkpoint)
        net = condense(program, region, bounds, aim.rows, checkpoint)
        bounds = tighten(program, region, bounds, net, LAYERS, checkpoint)
        net = condense(program, region, bounds, aim.rows, checkpoint)
        mix = _still_open(Problem(program, region, bounds, net, aim), checkpoint)
        return all(_cut_shown(program, (region, bounds), aim, weights, checkpoint) for weights in mix)


def _still_open(problem: Problem, checkpoint: Checkpoint) -> Float64[np.ndarray, "k m"]:
    """For each conjunction that an ascent over the whole box leaves open, the last mixture of its rows."""
    roots = _roots(problem.net, problem.aim)
    mix = bounded(problem, roots, (ROOT,), roots.take(slice(0, 0)), checkpoint).open.choice.mix
    assert mix is not None
    return mix.astype(np.float64)


def _cut_shown(
    program: Program,
    scene: tuple[Region, Bounds],
    aim: Goal,
    weights: Float64[np.ndarray, " m"],
    checkpoint: Checkpoint,
) -> bool:
    """Whether cuts refute the conjunction of these rows, or one more ascent with the bounds they leave."""
    place = int(((weights > 0) @ aim.members.T.astype(np.float64)).argmax())
    rows, valid = listed(aim)
    bounds = cut_off(
        program, aim, scene, (place, np.where(valid[place], weights[rows[place]], 0.0)), checkpoint
    )
    if bounds is None:
        return True
    one = replace(aim, members=aim.members[place : place + 1])
    net = condense(program, scene[0], bounds, aim.rows, checkpoint)
    return not len(_still_open(Problem(program, scene[0], bounds, net, one), checkpoint))


def claimed_goal(claimed: Claim) -> Goal:
    """What is to be refuted on the ball of one input: any row's negation, or all of them at once."""
    rows, bounds = claimed.rows[0], claimed.bounds[0]
    members = np.eye(len(rows), dtype=np.bool_) if claimed.every else np.ones((1, len(rows)), np.bool_)
    return Goal(rows, bounds, np.zeros(len(rows), np.bool_), members)


def _roots(net: Condensed, aim: Goal) -> Leaves:
    mix: Float64[np.ndarray, "k m"] = aim.members / aim.members.sum(axis=1, keepdims=True)
    count = len(mix)
    domain = Domain(np.repeat(net.low[None], count, axis=0), np.repeat(net.high[None], count, axis=0))
    choice = replace(plain_choice(net.blocks, domain), mix=mix.astype(np.float32))
    least, share = np.full(count, -np.inf, np.float32), np.full(count, 1.0 / count)
    return Leaves(domain, choice, least, share, np.full((count, 1), -1), np.full(count, -np.inf))
