"""repair(): prove what can be proved, gate the rest, prove the result, and certify it."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal as Choice

import numpy as np
from jaxtyping import Float64

from sutura.bounds.lower import lower
from sutura.bounds.program import Program, run
from sutura.certificate.schema import Counts
from sutura.errors import MismatchError, RepairError
from sutura.gates.cells import (
    Box32,
    Cell,
    Tree,
    box32,
    boxes_of,
    cells,
    depths,
    everything,
    explicit,
    graft,
    merged,
    partition,
)
from sutura.gates.certify import certify
from sutura.gates.conflict import conflict
from sutura.gates.cover import Budget, cover
from sutura.gates.gate import Gate, NeuronGate, OutputGate
from sutura.gates.gated_model import Gated, gated_model
from sutura.gates.neuron_gate import NeuronConfig, hold_neurons
from sutura.gates.safe_set import SafeSet, inner_point, safe_set
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded
from sutura.progress import Listener, Progress, silent
from sutura.property.spec import Case, Property
from sutura.verdict.deadline import Deadline, within
from sutura.verdict.goal import Goal, goal
from sutura.verdict.search import check_fit
from sutura.verdict.workers import workers


@dataclass(frozen=True, slots=True)
class RepairConfig:
    """Gate kind; boxes to bound in all, apart from those of `neuron`; regions tried with neuron gates;
    wall seconds for the search (None: no limit; the checker's own time comes on top); worker threads;
    neuron gate parameters.

    With `boxes` 0 nothing is searched, and each property's whole box gets an output gate.
    """

    gate: Choice["output", "neuron"] = "output"
    boxes: int = 20_000
    regions: int = 64
    timeout: float | None = None
    workers: int | None = None
    neuron: NeuronConfig = field(default_factory=NeuronConfig)


@dataclass(frozen=True, slots=True)
class Regions:
    """Cells of the repaired network's proof tree: proved as they are, with neuron gates, given output gates.

    `fallbacks` counts regions where no neuron gate could be proved, so that they got output gates.
    `proved_share` is the share of the properties' boxes, by volume, that needs no gate.
    """

    proved: int
    neuron_gated: int
    output_gated: int
    fallbacks: int
    rows: int
    neurons_held: int
    proved_share: float


@dataclass(frozen=True, slots=True)
class Repair:
    """A repaired network and why it may be believed.

    `onnx` and `certificate` are the files' bytes; the independent checker accepted the certificate. `exact`
    says that moved outputs go to the nearest safe output. `note` says where the repair did less than asked,
    and why; mostly it is empty. Seconds are wall times.
    """

    onnx: bytes
    certificate: bytes
    regions: Regions
    exact: bool
    note: str
    search_seconds: float
    check_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What all steps of one repair share."""

    network: Network
    program: Program
    cases: tuple[tuple[Property, Case], ...]
    config: RepairConfig
    deadline: Deadline
    pool: Executor
    listen: Listener


@dataclass(frozen=True, slots=True)
class Mended:
    """One cell of the partition after the work: a tree whose cells hold None (proved) or a gate."""

    tree: Tree[Gate | None]
    boxes: int
    fallbacks: int


def repair(
    loaded: Loaded,
    properties: Sequence[Property],
    config: RepairConfig | None = None,
    *,
    listen: Listener = silent,
) -> Repair:
    """A network that provably has all the properties and equals the loaded one outside their boxes.

    It comes with its certificate. Raises MismatchError where sizes do not fit or no property is given, and
    RepairError where no output satisfies the properties of a region (naming them and the region), or where
    the checker refuses the result.
    """
    if not properties:
        raise MismatchError("no property is given; a repair needs at least one")
    config = config or RepairConfig()
    started = time.monotonic()
    network = loaded.network
    original = loaded.original if loaded.original is not None else write_onnx(network)
    program = lower(network)
    for prop in properties:
        check_fit(program, prop)
    cases = tuple((prop, case) for prop in properties for case in prop.cases)
    layout = partition([box32(*case.box.float32_hull()) for _, case in cases], network.input_size)
    with workers(config.workers) as pool:
        work = Work(network, program, cases, config, within(config.timeout), pool, listen)
        mended = _mend_cells(work, layout)
    searched = time.monotonic()
    found = _delivered(work, layout, mended, original, properties)
    note = ""
    if found.refusal:
        note = f"the checker cannot re-prove regions of this network, so all are gated: {found.refusal}"
        mended = _all_gated(work, layout)
        found = _delivered(work, layout, mended, original, properties)
    if found.refusal:
        raise RepairError(
            "the independent checker refuses the repaired network, so nothing is handed over; "
            f"please report it: {found.refusal}"
        )
    regions = _regions(layout, mended, found.gates, network.input_size)
    checked = time.monotonic() - searched
    return Repair(
        found.model.onnx, found.certificate, regions, found.model.exact, note, searched - started, checked
    )


@dataclass(frozen=True, slots=True)
class Delivered:
    """An exported network with its certificate; `refusal` says why the checker does not accept it."""

    model: Gated
    certificate: bytes
    refusal: str
    gates: tuple[Gate, ...]


def _delivered(
    work: Work,
    layout: Tree[frozenset[int]],
    mended: Sequence[Mended],
    original: bytes,
    properties: Sequence[Property],
) -> Delivered:
    """Export the gates, write the certificate, and ask the checker."""
    tree = graft(layout, lambda number, _: mended[number].tree)
    gates = tuple(dict.fromkeys(label for label in cells(tree) if label is not None))
    rows = {gate: row for row, gate in enumerate(gates, start=1)}
    dispatch = merged(graft(tree, lambda _, gate: (Cell(0 if gate is None else rows[gate]),)), operator.eq)
    model = gated_model(work.network, explicit(dispatch, everything(work.network.input_size)), gates)
    work.listen(Progress("check", 0, len(cells(tree)), 0.0))
    counts = _counts(layout, tree, len(gates) + 1)
    certificate, refusal = certify(model.onnx, original, properties, (tree, counts), work.config.workers)
    return Delivered(model, certificate, refusal, gates)


def _all_gated(work: Work, layout: Tree[frozenset[int]]) -> list[Mended]:
    """An output gate in every cell that lies in some box."""
    placed = list(boxes_of(layout, everything(work.network.input_size)))
    gate_of = _output_gates(work, placed)
    return [Mended((Cell(gate_of[c.label] if c.label else None),), 0, 0) for c, _ in placed]


def _mend_cells(work: Work, layout: Tree[frozenset[int]]) -> list[Mended]:
    """Work through the cells of the partition; the boxes that one leaves unused go to the next."""
    placed = list(boxes_of(layout, everything(work.network.input_size)))
    left, waiting = work.config.boxes, sum(bool(cell.label) for cell, _ in placed)
    gate_of = _output_gates(work, placed)
    done: list[Mended] = []
    for cell, box in placed:
        if not cell.label:
            done.append(Mended((Cell(None),), 0, 0))
            continue
        mended = _mend(work, cell.label, box, (left // waiting, gate_of[cell.label]))
        left, waiting = max(0, left - mended.boxes), waiting - 1
        done.append(mended)
    return done


def _mend(work: Work, active: frozenset[int], box: Box32, given: tuple[int, OutputGate]) -> Mended:
    budget, gate = given
    aim = goal([c for i in sorted(active) for c in work.cases[i][1].unsafe], work.network.output_size)
    if work.config.gate == "output":
        covered = cover(work.program, aim, box, Budget(budget, work.deadline), (work.pool, work.listen))
        return Mended(_gated(covered.tree, gate), covered.boxes, 0)
    return _mend_with_neurons(work, aim, box, given)


def _mend_with_neurons(work: Work, aim: Goal, box: Box32, given: tuple[int, OutputGate]) -> Mended:
    """Cut the box into a few regions; each that is not proved gets a neuron gate, or else output gates."""
    budget, gate = given
    first = min(budget, 2 * work.config.regions - 1)
    coarse = cover(work.program, aim, box, Budget(first, work.deadline), (work.pool, work.listen))
    regions = list(boxes_of(coarse.tree, box))
    spent, fallbacks = coarse.boxes, 0
    grown: list[Tree[Gate | None]] = []
    for number, (region, part) in enumerate(regions):
        if region.label:
            grown.append((Cell(None),))
            continue
        held = None
        if budget:
            held = hold_neurons(work.network, aim, part, work.config.neuron, (work.pool, work.deadline))
        work.listen(
            Progress("neuron gates", number + 1, len(regions) - number - 1, (number + 1) / len(regions))
        )
        if held is not None:
            grown.append(graft(held.proof, _labelled(held.gate)))
            continue
        share = (budget - spent) // (len(regions) - number)
        fine = cover(work.program, aim, part, Budget(share, work.deadline), (work.pool, work.listen))
        spent, fallbacks = spent + fine.boxes, fallbacks + (not all(cells(fine.tree)))
        grown.append(_gated(fine.tree, gate))
    return Mended(graft(coarse.tree, lambda number, _: grown[number]), spent, fallbacks)


def _labelled(gate: Gate) -> Callable[[int, bool], Tree[Gate | None]]:
    return lambda _, __: (Cell(gate),)


def _both_open(a: bool, b: bool) -> bool:
    return not a and not b


def _gated(tree: Tree[bool], gate: OutputGate) -> Tree[Gate | None]:
    """Open cells get the gate; open siblings become one cell."""
    return graft(merged(tree, _both_open), lambda _, proved: (Cell(None if proved else gate),))


def _output_gates(
    work: Work, placed: Sequence[tuple[Cell[frozenset[int]], Box32]]
) -> dict[frozenset[int], OutputGate]:
    """One gate for every set of cases that hold together somewhere."""
    gates: dict[frozenset[int], OutputGate] = {}
    shared: dict[SafeSet, OutputGate] = {}
    for cell, box in placed:
        if not cell.label or cell.label in gates:
            continue
        safe = safe_set(c for i in sorted(cell.label) for c in work.cases[i][1].unsafe)
        if safe not in shared:
            near = _typical(work.program, box)
            constant = inner_point(safe, near)
            if constant is None:
                raise conflict(work.cases, cell.label, box, near)
            shared[safe] = OutputGate(safe, constant)
        gates[cell.label] = shared[safe]
    return gates


def _typical(program: Program, box: Box32) -> Float64[np.ndarray, " m"]:
    return run(program, ((box.low + box.high) / 2.0)[None])[-1][0]


def _counts(layout: Tree[frozenset[int]], tree: Tree[Gate | None], rows: int) -> Counts:
    """As the checker will count them."""
    outside = sum(not label for label in cells(layout))
    gated = sum(isinstance(label, OutputGate) for label in cells(tree))
    leaves = len(cells(tree))
    return Counts(leaves=leaves, proved=leaves - gated - outside, gated=gated, outside=outside, rows=rows)


def _regions(
    layout: Tree[frozenset[int]], mended: Sequence[Mended], gates: Sequence[Gate], inputs: int
) -> Regions:
    placed = boxes_of(layout, everything(inputs))
    inside = [(m, box) for m, (cell, box) in zip(mended, placed, strict=True) if cell.label]
    labels = [label for m, _ in inside for label in cells(m.tree)]
    weights = _volumes([box for _, box in inside])
    shares = [sum(2.0**-d for cell, d in depths(m.tree) if cell.label is None) for m, _ in inside]
    return Regions(
        proved=sum(label is None for label in labels),
        neuron_gated=sum(isinstance(label, NeuronGate) for label in labels),
        output_gated=sum(isinstance(label, OutputGate) for label in labels),
        fallbacks=sum(m.fallbacks for m in mended),
        rows=len(gates) + 1,
        neurons_held=sum(g.neurons for g in gates if isinstance(g, NeuronGate)),
        proved_share=float(np.dot(weights, shares)) if inside else 1.0,
    )


def _volumes(boxes: Sequence[Box32]) -> Float64[np.ndarray, " k"]:
    """Volumes relative to their sum, over sides that have a width (by logarithms: there may be thousands)."""
    widths = np.array([box.high - box.low for box in boxes])
    logs = np.log(np.where(widths > 0, widths, 1.0)).sum(axis=1)
    share = np.exp(logs - logs.max(initial=-np.inf))
    return share / share.sum()
