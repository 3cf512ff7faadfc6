"""A subproblem whose every neuron is on one line is a linear program, which settles what ascents leave open.

A point that breaks every inequality is a candidate witness. Otherwise the dual solution is a mixture of rows
and a multiplier for each neuron, with which `leaf` proves the bound; nothing else it says is believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import linprog

from sutura.bounds.ascent import Choice
from sutura.bounds.crown import Checkpoint
from sutura.bounds.slopes import FIXED, RANGES
from sutura.verdict.neuron_step import Leaves, Problem

SECONDS = 10.0
"""Limit of one linear program."""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """Which leaves are proved, and inputs where a witness may lie."""

    closed: Bool[np.ndarray, " batch"]
    points: Float64[np.ndarray, "k inputs"]


@dataclass(frozen=True, slots=True, eq=False)
class _Affine:
    """weight @ x + offset."""

    weight: Float64[np.ndarray, "k v"]
    offset: Float64[np.ndarray, " k"]


def settle(problem: Problem, leaves: Leaves, checkpoint: Checkpoint) -> Settled:
    """Solve each leaf. `closed` is sound for float32 execution."""
    closed = np.zeros(len(leaves), dtype=bool)
    points: list[Float64[np.ndarray, " inputs"]] = []
    for at in range(len(leaves)):
        checkpoint()
        leaf = leaves.take(np.array([at]))
        solved = _solved(problem, leaf)
        if solved is None:
            continue
        x, choice = solved
        points.append(problem.net.inputs(x[None].astype(np.float32))[0])
        closed[at] = problem.certified(leaf.domain, choice, checkpoint)[0] > 0
    whole = np.stack(points) if points else np.zeros((0, problem.program.inputs))
    return Settled(closed, whole)


def _solved(problem: Problem, leaf: Leaves) -> tuple[Float64[np.ndarray, " v"], Choice] | None:
    """The point where the largest inequality is least, and the choice that its multipliers make.

    In an empty leaf, the point that breaks the neurons' bounds least, and the multipliers that show it empty.
    """
    mix = leaf.choice.mix
    assert mix is not None
    member = np.flatnonzero(mix[0] > 0)
    neurons, rows = _forms(problem, leaf)
    low, high = (v[0].astype(np.float64) for v in (leaf.domain.low, leaf.domain.high))
    weight = np.concatenate([rows.weight[member], neurons.weight, -neurons.weight])
    limit = np.concatenate([-rows.offset[member], high - neurons.offset, neurons.offset - low])
    asked = np.arange(len(limit)) < len(member)
    for slack in (asked, ~asked):
        kept = slack | ~asked
        found = _least_slack(problem, weight[kept], slack[kept], limit[kept])
        if found is not None:
            price = np.zeros(len(limit))
            price[kept] = found[1]
            weights = np.zeros_like(mix)
            weights[0, member] = price[: len(member)]
            over, short = np.split(price[len(member) :], 2)
            pull = (short - over)[None].astype(np.float32)
            return found[0], Choice(leaf.choice.lower, leaf.choice.upper, pull, weights)
    return None


def _least_slack(
    problem: Problem,
    weight: Float64[np.ndarray, "k v"],
    slack: Bool[np.ndarray, " k"],
    limit: Float64[np.ndarray, " k"],
) -> tuple[Float64[np.ndarray, " v"], Float64[np.ndarray, " k"]] | None:
    """min t with weight @ x - t slack <= limit in the box: x, and the price of each constraint."""
    centre, radius = (v.astype(np.float64) for v in (problem.net.centre, problem.net.radius))
    found = linprog(
        np.append(np.zeros(len(centre)), 1.0),
        A_ub=np.concatenate([weight, -slack[:, None].astype(np.float64)], axis=1),
        b_ub=limit,
        bounds=[*zip(centre - radius, centre + radius, strict=True), (None, None)],
        method="highs",
        options={"time_limit": SECONDS},
    )
    return (found.x[:-1], np.maximum(-found.ineqlin.marginals, 0.0)) if found.status == 0 else None


def _forms(problem: Problem, leaf: Leaves) -> tuple[_Affine, _Affine]:
    """The neurons' z and the rows, as affine functions of the inputs inside the leaf."""
    net, start = problem.net, problem.start
    weight = net.from_inputs.astype(np.float64)
    offset = net.bias.astype(np.float64)
    bent = np.zeros((net.neurons, 2))
    for block in net.blocks:
        span = block.span
        low, high = leaf.domain.low[:, span], leaf.domain.high[:, span]
        if block.start:
            earlier = net.from_neurons[span, : block.start].astype(np.float64)
            scale = bent[: block.start, 0]
            weight[span] += earlier @ (scale[:, None] * weight[: block.start])
            offset[span] += earlier @ (scale * offset[: block.start] + bent[: block.start, 1])
        below = RANGES.get(type(block.op), FIXED)(low, high, block.op)[0]
        bent[span, 0], bent[span, 1] = below.least[0], below.offset[0]
    rows = start.neurons.astype(np.float64)
    scale = bent[:, 0]
    return _Affine(weight, offset), _Affine(
        start.inputs + rows @ (scale[:, None] * weight),
        start.constant + rows @ (scale * offset + bent[:, 1]),
    )
