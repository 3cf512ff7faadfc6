"""The default method: prove what can be proved, gate the rest, prove the result, and certify it."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal as Choice

import numpy as np

from sutura.bounds.program import run
from sutura.gates.cells import Box32, Cell, Tree, boxes_of, cells, graft, merged, pruned, thinned
from sutura.gates.conflict import conflict
from sutura.gates.cover import Budget, Covered, cover
from sutura.gates.deliver import Repair, deliver, refused
from sutura.gates.gate import OutputGate
from sutura.gates.neuron_gate import NeuronConfig, counterexample, hold_neurons
from sutura.gates.problem import Means, Place, Problem, means, typical
from sutura.gates.regions import Label, Mended, regions
from sutura.gates.safe_set import SafeSet, inner_point, safe_set
from sutura.network.cost import macs
from sutura.network.graph import Network
from sutura.progress import Listener, Progress, silent
from sutura.verdict.goal import Goal, unsafe_margin

MOST_DISPATCHED = 128
"""Cells of one box that the dispatcher tells apart. More would let fewer proved regions share a gate that
never acts there, which costs no accuracy, but would slow down every batch."""

MOST_BOXES = 8_000
"""Boxes bounded by default, where a whole proof may make a gate needless."""

SKETCHED = 256
"""Boxes bounded by default where an unsafe output is known, so that the gate stays whatever is proved."""

LOOKED_INTO = 16
"""Boxes that a few leave open, in which an unsafe output is looked for."""

SLIVERS = 16
"""How much deeper than an even one a tree is looked into for cells to tell apart."""

LOOK = 1_300
"""Over the network's multiplications, the least share that a cut of the dispatcher proves of what it looks
at. A look takes as long as some 200 of them, so that a proof of the whole box may cost 15 % of the time."""

DEAREST = 0.1
"""That share for networks up to the size of ACAS Xu: in smaller ones other parts of a gate cost more."""


@dataclass(frozen=True, slots=True)
class RepairConfig:
    """Gate kind; boxes to bound in all, apart from those of `neuron`; regions tried with neuron gates;
    wall seconds for the search (None: no limit; the checker's own time comes on top); worker threads;
    neuron gate parameters.

    With `boxes` 0 nothing is searched, and each property's whole box gets an output gate. With None up to
    MOST_BOXES are bounded, but no more than SKETCHED for an output gate that is needed: more of them prove
    the network right in more of the box, and change neither what the gate does nor what it costs.
    """

    gate: Choice["output", "neuron"] = "output"
    boxes: int | None = None
    regions: int = 64
    timeout: float | None = None
    workers: int | None = None
    neuron: NeuronConfig = field(default_factory=NeuronConfig)


@dataclass(frozen=True, slots=True)
class ClampConfig:
    """The plain baseline: an output gate on each property's whole box, nothing searched."""

    workers: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What all steps of one repair share."""

    problem: Problem
    config: RepairConfig
    means: Means


def mend(problem: Problem, config: RepairConfig, listen: Listener = silent) -> Repair:
    """A network that provably has all the properties and equals the given one outside their boxes.

    It comes with its certificate. Raises RepairError where no output satisfies the properties of a region
    (naming them and the region), or where the checker refuses the result.
    """
    started = time.monotonic()
    problem = problem.cut_out() if config.gate == "neuron" else problem
    with means(config.workers, config.timeout, listen, problem.track) as used:
        work = Work(problem, config, used)
        mended = _mend_cells(work)
    searched = time.monotonic()
    found = deliver(problem, mended, used)
    note = ""
    if found.refusal:
        note = f"the checker cannot re-prove regions of this network, so all are gated: {found.refusal}"
        mended = _all_gated(work)
        found = deliver(problem, mended, used)
    if found.refusal:
        raise refused(found.refusal)
    return Repair(
        found.model.onnx,
        found.certificate,
        regions(problem, mended, found.gates),
        found.model.exact,
        note,
        searched - started,
        time.monotonic() - searched,
    )


def clamp(problem: Problem, config: ClampConfig, listen: Listener = silent) -> Repair:
    """See `ClampConfig`; raises as `mend` does."""
    return replace(mend(problem, RepairConfig(boxes=0, workers=config.workers), listen), method="clamp")


def _all_gated(work: Work) -> dict[int, Mended]:
    """An output gate in every cell that lies in some box."""
    places = work.problem.places()
    gate_of = _output_gates(work, places)
    return {place.number: Mended((Cell(gate_of[place.number]),)) for place in places}


def _mend_cells(work: Work) -> dict[int, Mended]:
    """Work through the cells of the layout; the boxes that one leaves unused go to the next."""
    places = work.problem.places()
    left, waiting = MOST_BOXES if work.config.boxes is None else work.config.boxes, len(places)
    gate_of = _output_gates(work, places)
    done: dict[int, Mended] = {}
    for place in places:
        mended = _mend(work, place.active, place.box, (left // waiting, gate_of[place.number]))
        left, waiting = max(0, left - mended.boxes), waiting - 1
        done[place.number] = mended
    return done


def _mend(work: Work, active: frozenset[int], box: Box32, given: tuple[int, OutputGate]) -> Mended:
    budget, gate = given
    aim = work.problem.aim(active)
    if work.config.gate == "output":
        few = None
        if work.config.boxes is None and budget > 4 * SKETCHED:
            few = _cover(work, aim, box, SKETCHED)
        if few is not None and _decides(work, aim, box, few):
            return Mended(_gated(work, few.tree, gate), few.boxes)
        covered = _cover(work, aim, box, budget)
        return Mended(_gated(work, covered.tree, gate), covered.boxes + (few.boxes if few else 0))
    return _mend_with_neurons(work, aim, box, given)


def _decides(work: Work, aim: Goal, box: Box32, few: Covered) -> bool:
    """Whether a few boxes cover all, or leave something open where an unsafe output is found."""
    program = work.problem.program
    left = [part for cell, part in boxes_of(few.tree, box) if not cell.label]
    if not left or counterexample(program, aim, box) is not None:
        return True
    middles = np.array([(part.low + part.high) / 2.0 for part in left])
    near = unsafe_margin(aim, run(program, middles)[-1]).min(axis=1)
    some = (left[i] for i in np.argsort(near, kind="stable")[:LOOKED_INTO])
    return any(counterexample(program, aim, part) is not None for part in some)


def _cover(work: Work, aim: Goal, box: Box32, boxes: int) -> Covered:
    used = work.means
    return cover(work.problem.program, aim, box, Budget(boxes, used.deadline), (used.pool, used.listen))


def _mend_with_neurons(work: Work, aim: Goal, box: Box32, given: tuple[int, OutputGate]) -> Mended:
    """Cut the box into a few regions; each that is not proved gets a neuron gate, or else output gates."""
    budget, gate = given
    first = min(budget, 2 * work.config.regions - 1)
    coarse = _cover(work, aim, box, first)
    parts = list(boxes_of(coarse.tree, box))
    spent, fallbacks = coarse.boxes, 0
    grown: list[Tree[Label]] = []
    for number, (region, part) in enumerate(parts):
        if region.label:
            grown.append((Cell(None),))
            continue
        held = None
        if budget:
            run_with = (work.means.pool, work.means.deadline)
            held = hold_neurons(work.problem.network, aim, part, work.config.neuron, run_with)
        done = number + 1
        work.means.listen(Progress("neuron gates", done, len(parts) - done, done / len(parts)))
        if held is not None:
            grown.append(graft(held.proof, _labelled(held.gate)))
            continue
        share = (budget - spent) // (len(parts) - number)
        fine = _cover(work, aim, part, share)
        spent, fallbacks = spent + fine.boxes, fallbacks + (not all(cells(fine.tree)))
        grown.append(_gated(work, fine.tree, gate))
    return Mended(graft(coarse.tree, lambda number, _: grown[number]), spent, fallbacks)


def _labelled(gate: Label) -> Callable[[int, bool], Tree[Label]]:
    return lambda _, __: (Cell(gate),)


def _gated(work: Work, tree: Tree[bool], gate: OutputGate) -> Tree[Label]:
    """Open cells get the gate, and so do proved ones not worth a look or too many to tell apart."""
    worth = min(DEAREST, LOOK / max(1, _macs(work.problem.network)))
    depths = range(max(1, len(tree)).bit_length() + SLIVERS, -1, -1)
    tried = (thinned(pruned(tree, depth), worth) for depth in depths)
    kept = next(tree for tree in tried if len(cells(merged(tree, operator.eq))) <= MOST_DISPATCHED)
    return graft(merged(kept, _both_open), lambda _, proved: (Cell(None if proved else gate),))


def _macs(network: Network) -> int:
    return sum(macs(node.op, network.shapes[node.output]) for node in network.nodes)


def _both_open(a: bool, b: bool) -> bool:
    return not a and not b


def _output_gates(work: Work, places: Sequence[Place]) -> dict[int, OutputGate]:
    """The gates of all cells: one for every safe set, or for a box where that is less than the cell."""
    gates: dict[int, OutputGate] = {}
    asked: dict[frozenset[int], OutputGate] = {}
    shared: dict[SafeSet, OutputGate] = {}
    boxed: dict[frozenset[int], OutputGate] = {}
    for place in places:
        if place.active not in asked:
            safe = safe_set(c for i in sorted(place.active) for c in work.problem.cases[i][1].unsafe)
            if safe not in shared:
                shared[safe] = _output_gate(work, place, safe)
            asked[place.active] = shared[safe]
        gate = asked[place.active]
        if not place.whole:
            own = replace(gate, box=work.problem.held(place.active))
            gate = boxed.setdefault(place.active, own)
        gates[place.number] = gate
    return gates


def _output_gate(work: Work, place: Place, safe: SafeSet) -> OutputGate:
    near = typical(work.problem.program, place.box)
    constant = inner_point(safe, near)
    if constant is None:
        raise conflict(work.problem.cases, place.active, place.box, near)
    return OutputGate(safe, constant)
