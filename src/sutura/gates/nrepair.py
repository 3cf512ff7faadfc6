"""The published method: Dong, Sun, Wang, Wang, Dai, Towards Repairing Neural Networks Correctly (QRS 2021).

A grid of boxes; in each with a counterexample the neuron of the largest |gradient| is held at
max(0, value - eta * gradient), again and again, until the counterexample is repaired and the box is proved
with the held neurons in place. Outside of the boxes so repaired the network answers as it did. Bounds are
DeepPoly with bisection, as published; below the published depth they go on in the place of a MILP solver.
Boxes without counterexample and without proof are left alone, as published: so the property as a whole is
proved only where no such box is left, and only then is there a certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from sutura.bounds.gradient import gradients
from sutura.bounds.lower import Hold, lower, lower_traced
from sutura.bounds.program import Program, run
from sutura.gates.cells import Box32, Cell, Tree, boxes_of, cells, graft
from sutura.gates.cover import Budget, cover
from sutura.gates.cross_entropy import Push, loss_gradient, push
from sutura.gates.deliver import Repair, Trials, deliver, export
from sutura.gates.evaluate import uniform
from sutura.gates.gate import NeuronGate
from sutura.gates.neuron_gate import no_holds, with_neuron
from sutura.gates.problem import Means, Problem, means
from sutura.gates.regions import Label, Mended, Open, regions
from sutura.gates.smear import grid
from sutura.progress import Listener, Progress, silent
from sutura.verdict.attack import AttackConfig, attack
from sutura.verdict.deadline import within
from sutura.verdict.goal import Goal, unsafe_margin

Point = Float64[np.ndarray, " n"]

LOOK = AttackConfig(starts=32, steps=25)
"""How a counterexample is looked for in a box, before bounds are computed."""

DRAWN = 256
"""Points of a box tried beside the end of a gradient search."""

MOST_LEAVES = 8
"""Leaves without proof that are looked into for a counterexample."""


@dataclass(frozen=True, slots=True)
class NRepairConfig:
    """As published: share of the hidden neurons that may be held (alpha), changes a neuron (beta), rate of a
    change (eta), pieces of the grid, depth of bisection, seconds for each box. `leaf_boxes`: boxes bounded
    below that depth. Seconds for all (None: no limit), and worker threads.
    """

    share: float = 0.05
    changes: int = 50
    rate: float = 0.35
    pieces: int = 20
    depth: int = 10
    leaf_boxes: int = 512
    box_timeout: float = 3600.0
    timeout: float | None = None
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class Try:
    """What became of a box of the grid: its tree, and where it had a counterexample, the effort."""

    tree: Tree[Label]
    counterexample: bool = False
    repaired: bool = False
    skipped: bool = False
    gates: int = 0
    changes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One cell of the layout: what is asked of it, and how counterexamples are pushed."""

    problem: Problem
    aim: Goal
    wanted: Push
    config: NRepairConfig
    means: Means


def nrepair(problem: Problem, config: NRepairConfig, listen: Listener = silent) -> Repair:
    """Repair as published; sound for float32 execution in every box that counts as repaired or proved.

    There is a certificate only where no box is left open and the checker accepts it; `note` says which are.
    """
    started, problem = time.monotonic(), problem.cut_out()
    tries: list[Try] = []
    with means(config.workers, config.timeout, listen, problem.track) as used:
        mended: dict[int, Mended] = {}
        for place in problem.places():
            unsafe = [c for i in sorted(place.active) for c in problem.cases[i][1].unsafe]
            wanted = push(unsafe, problem.network.output_size)
            task = Task(problem, problem.aim(place.active), wanted, config, used)
            cut = grid(problem.program, task.aim, place.box, config.pieces)
            done = _each(task, [part for _, part in boxes_of(cut, place.box)])
            tries += done
            mended[place.number] = Mended(graft(cut, _trees(done)))
    return _account(problem, mended, tries, (used, started))


def _trees(done: Sequence[Try]) -> Callable[[int, None], Tree[Label]]:
    return lambda number, _: done[number].tree


def _account(
    problem: Problem, mended: Mapping[int, Mended], tries: Sequence[Try], how: tuple[Means, float]
) -> Repair:
    used, started = how
    searched = time.monotonic()
    left = [t for t in tries if any(isinstance(label, Open) for label in cells(t.tree))]
    certificate, note = b"", _left_open(left, len(tries))
    if left:
        model, gates = export(problem, mended)
    else:
        found = deliver(problem, mended, used)
        model, gates, certificate = found.model, found.gates, found.certificate
        if found.refusal:
            certificate, note = b"", f"the checker cannot re-prove this repair: {found.refusal}"
    return Repair(
        model.onnx,
        certificate,
        regions(problem, mended, gates),
        False,
        note,
        searched - started,
        time.monotonic() - searched,
        "nrepair",
        _trials(tries),
    )


def _left_open(left: Sequence[Try], boxes: int) -> str:
    if not left:
        return ""
    failed, skipped = sum(t.counterexample for t in left), sum(t.skipped for t in left)
    return (
        f"{len(left):,} of {boxes:,} boxes of the grid are left as they were, without gate or proof: in "
        f"{failed:,} no gates could be proved, in {len(left) - failed - skipped:,} no counterexample was "
        f"found, {skipped:,} were not reached in time"
    )


def _trials(tries: Sequence[Try]) -> Trials:
    tried = [t for t in tries if t.counterexample]
    repaired = [t for t in tried if t.repaired]
    return Trials(
        boxes=len(tries),
        counterexamples=len(tried),
        repaired=len(repaired),
        unsettled=sum(not t.counterexample and not t.skipped and isinstance(_first(t), Open) for t in tries),
        skipped=sum(t.skipped for t in tries),
        gates=_mean([t.gates for t in repaired]),
        changes=_mean([t.changes for t in tried]),
        seconds=_mean([t.seconds for t in tried]),
    )


def _first(one: Try) -> Label:
    """The label that stands for the whole box: Open where any of it is."""
    return next((label for label in cells(one.tree) if isinstance(label, Open)), None)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _each(task: Task, parts: Sequence[Box32]) -> list[Try]:
    """Boxes where a search finds a counterexample at once come first: what time is left goes to proofs."""
    points = [_counterexample(task, task.problem.program, part) for part in parts]
    done: dict[int, Try] = {}
    for number in sorted(range(len(parts)), key=lambda n: points[n] is None):
        if task.means.deadline.passed:
            done[number] = Try((Cell(Open()),), skipped=True)
        else:
            done[number] = _box(task, parts[number], points[number])
        count = len(done)
        task.means.listen(Progress("nrepair", count, len(parts) - count, count / len(parts)))
    return [done[number] for number in range(len(parts))]


def _box(task: Task, box: Box32, point: Point | None) -> Try:
    """Prove a box, or repair it at a counterexample, or leave it."""
    started = time.monotonic()
    if point is None:
        proof, point = _examine(task, task.problem.program, box)
        if point is None:
            return Try(graft(proof, lambda _, safe: (Cell(None if safe else Open()),)))
    gate, proof, changes = _hold(task, box, point)
    if gate is None and task.means.deadline.passed:
        return Try((Cell(Open()),), skipped=True)
    if gate is None:
        seconds = time.monotonic() - started
        return Try((Cell(Open()),), counterexample=True, changes=changes, seconds=seconds)
    return Try(
        graft(proof, lambda _, __: (Cell(gate),)),
        counterexample=True,
        repaired=True,
        gates=gate.neurons,
        changes=changes,
        seconds=time.monotonic() - started,
    )


def _examine(task: Task, program: Program, box: Box32) -> tuple[Tree[bool], Point | None]:
    """A proof tree over the box (cells say whether they are proved), or a counterexample."""
    budget = Budget(2 ** (task.config.depth + 1) - 1 + task.config.leaf_boxes, task.means.deadline)
    covered = cover(program, task.aim, box, budget, (task.means.pool, silent))
    left = [part for cell, part in boxes_of(covered.tree, box) if not cell.label]
    for part in left[:MOST_LEAVES]:
        point = _counterexample(task, program, part)
        if point is not None:
            return (Cell(False),), point
    return covered.tree, None


def _counterexample(task: Task, program: Program, box: Box32) -> Point | None:
    """The most unsafe float32 input that a gradient search and a few draws find before the deadline."""
    if task.means.deadline.passed:
        return None
    ends = box.low.astype(np.float32), box.high.astype(np.float32)
    found = attack(program, task.aim, box.low, box.high, LOOK)[:1].astype(np.float32)
    found = np.concatenate([found, uniform(*ends, DRAWN, 0)]).astype(np.float64)
    found = np.clip(found, box.low, box.high)
    margin = unsafe_margin(task.aim, run(program, found)[-1]).min(axis=1)
    return found[margin.argmin()] if margin.min() <= 0 else None


def _hold(task: Task, box: Box32, point: Point) -> tuple[NeuronGate | None, Tree[bool], int]:
    """Hold neurons until the point is safe and the box proved: the gate, its proof, and the changes made."""
    network, config = task.problem.network, task.config
    holds = no_holds(network)
    most = config.share * sum(len(hold.mask) for hold in holds.values())
    changed: dict[tuple[str, int], int] = {}
    limit = within(config.box_timeout)
    while len(changed) <= most and not limit.passed and not task.means.deadline.passed:
        program, at = lower_traced(network, holds)
        values = run(program, point[None])
        if changed and unsafe_margin(task.aim, values[-1])[0].min() > 0:
            gate = NeuronGate({name: hold for name, hold in holds.items() if hold.mask.any()})
            repaired = lower(network, gate.holds)
            if _counterexample(task, repaired, box) is None:
                proof, other = _examine(task, repaired, box)
                if other is None and all(cells(proof)):
                    return gate, proof, sum(changed.values())
        flow = gradients(program, values, loss_gradient(task.wanted, values[-1][0])[None])
        choice = _largest(flow, {name: at[name] for name in holds}, (holds, changed, config.changes))
        if choice is None:
            break
        name, neuron, slope = choice
        start = holds[name].value[neuron] if holds[name].mask[neuron] else values[at[name]][0, neuron]
        changed[name, neuron] = changed.get((name, neuron), 0) + 1
        holds = {
            **holds,
            name: with_neuron(holds[name], neuron, max(0.0, float(start - config.rate * slope))),
        }
    return None, (Cell(False),), sum(changed.values())


def _largest(
    flow: Mapping[int, np.ndarray],
    at: Mapping[str, int],
    state: tuple[Mapping[str, Hold], Mapping[tuple[str, int], int], int],
) -> tuple[str, int, float] | None:
    """The neuron of largest |gradient|, passing over those changed too often and those at zero already."""
    holds, changed, most = state
    best: tuple[str, int, float] | None = None
    for name, place in at.items():
        slope = flow[place][0] if place in flow else np.zeros(len(holds[name].mask))
        stuck = holds[name].mask & (holds[name].value <= 0) & (slope > 0)
        for (other, neuron), count in changed.items():
            stuck[neuron] |= other == name and count > most
        neuron = int(np.where(stuck, 0.0, abs(slope)).argmax())
        if not stuck[neuron] and abs(slope[neuron]) > (abs(best[2]) if best else 0.0):
            best = (name, neuron, float(slope[neuron]))
    return best
