"""The whole box before any split: every conjunction left open is a root, bounded better stage by stage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.bounds.ascent import Domain, Effort, plain_choice
from sutura.bounds.condensed import condense
from sutura.bounds.crown import Bounds, Checkpoint
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.bounds.tighten import tighten
from sutura.verdict.goal import Goal, refuted
from sutura.verdict.neuron_step import Leaves, Problem, at_unsafe, bounded, floored

ROOT = Effort(steps=30, pace=0.15, decay=0.95)
"""Ascent for the asked rows."""

LAYERS, LONGER = Effort(steps=8, pace=0.4, decay=0.85), Effort(steps=24, pace=0.3, decay=0.95)
"""Ascents for the neurons' own bounds; the longer where the shorter paid."""

PAID, PAYS, AGAIN = 0.5, 0.9, 3
"""Bounds of neurons paid where what lacks to a proof fell below this share; those at the unsafe inputs alone
are found again, at most so many times, while it falls below the other."""


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The problem with the bounds that it has by now, the roots still open, the weight that was settled, and
    inputs where a witness may lie."""

    problem: Problem
    open: Leaves
    settled: float
    points: Float64[np.ndarray, "k inputs"]


def stages(
    scene: tuple[Program, Region, Bounds, Goal],
    mix: Float32[np.ndarray, "k m"],
    share: float,
    checkpoint: Checkpoint,
) -> Iterator[Stage]:
    """Stages, as long as roots are open and the last was worth its time; the first has bounded nothing yet.

    Each root weighs `share`. A root counts as settled only where `leaf` proves it, which is sound for float32
    execution.
    """
    lack = math.inf
    for effort in (None, LAYERS, LONGER):
        problem = _problem(scene, effort, checkpoint)
        scene = problem.program, problem.region, problem.bounds, problem.aim
        roots = _roots(problem, mix, share)
        if effort is None:
            yield Stage(problem, roots, 0.0, np.zeros((0, problem.program.inputs)))
        stage = _bounded(problem, roots, checkpoint)
        yield stage
        before, lack = lack, _lack(stage.open)
        kept = stage.open.choice.mix
        assert kept is not None
        mix = kept
        if not lack or (effort is LAYERS and lack > PAID * before):
            break
    for _ in range(AGAIN):
        if not lack:
            break
        stage = _bounded(stage.problem, at_unsafe(stage.problem, stage.open, checkpoint), checkpoint)
        yield stage
        before, lack = lack, _lack(stage.open)
        if lack > PAYS * before:
            break


def _bounded(problem: Problem, roots: Leaves, checkpoint: Checkpoint) -> Stage:
    found = bounded(problem, roots, (ROOT,), roots.take(slice(0, 0)), checkpoint)
    return Stage(problem, floored(problem, found.open, checkpoint), found.settled, found.points)


def _lack(open_: Leaves) -> float:
    """How far below zero the bounds are, in all."""
    return float(np.maximum(-open_.value, 0.0).sum(dtype=np.float64))


def open_mix(aim: Goal, value: Float64[np.ndarray, "1 m"]) -> Float32[np.ndarray, "k m"]:
    """For each conjunction that is not refuted an even mixture of its rows, half of it the highest row."""
    members = aim.members[~refuted(aim, value)[0]]
    even = members / members.sum(axis=1, keepdims=True)
    gap = np.where(members, value[0] - aim.bounds, -np.inf)
    highest = np.eye(members.shape[1])[gap.argmax(axis=1)]
    return ((even + highest) / 2.0).astype(np.float32)


def _problem(
    scene: tuple[Program, Region, Bounds, Goal], effort: Effort | None, checkpoint: Checkpoint
) -> Problem:
    """The condensed problem; with an effort, the neurons' bounds are tightened first."""
    program, region, bounds, aim = scene
    net = condense(program, region, bounds, aim.rows, checkpoint)
    if effort is not None:
        bounds = tighten(program, region, bounds, net, effort, checkpoint)
        net = condense(program, region, bounds, aim.rows, checkpoint)
    return Problem(program, region, bounds, net, aim)


def _roots(problem: Problem, mix: Float32[np.ndarray, "k m"], share: float) -> Leaves:
    net, count = problem.net, len(mix)
    domain = Domain(np.repeat(net.low[None], count, axis=0), np.repeat(net.high[None], count, axis=0))
    choice = replace(plain_choice(net.blocks, domain), mix=mix)
    unknown = np.full(count, -np.inf)
    return Leaves(
        domain,
        choice,
        unknown.astype(np.float32),
        np.full(count, share),
        np.full((count, 1), -1),
        unknown,
    )
