"""What a repair hands over: the exported network, its certificate, and an account of both."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

from sutura.display import Displayed
from sutura.errors import RepairError
from sutura.gates.cells import Cell, Tree, cells, everything, explicit, graft, merged
from sutura.gates.certify import certify
from sutura.gates.gate import Gate, NeuronGate, OutputGate
from sutura.gates.gated_model import Gated, gated_model
from sutura.gates.problem import Means, Problem
from sutura.gates.regions import Label, Mended, Regions, counts
from sutura.gates.safe_set import SafeSet
from sutura.progress import Progress


@dataclass(frozen=True, slots=True)
class Trials:
    """The figures by which the published method is judged: boxes of the grid, those with a counterexample,
    those repaired and proved, those left open because no counterexample was found, and those never looked at
    for want of time; of the tries, the mean number of gates (of those repaired), changes and seconds."""

    boxes: int
    counterexamples: int
    repaired: int
    unsettled: int
    skipped: int
    gates: float
    changes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Repair(Displayed):
    """A repaired network and why it may be believed.

    `onnx` and `certificate` are the files' bytes; the independent checker accepted the certificate, which is
    empty where the method proved less than the properties (`note` says what). `exact` says that moved outputs
    go to the nearest safe output. `note` also says where the repair did less than asked, and why; mostly it
    is empty. Seconds are wall times. `trials` belongs to the published method.
    """

    onnx: bytes
    certificate: bytes
    regions: Regions
    exact: bool
    note: str
    search_seconds: float
    check_seconds: float
    method: str = "default"
    trials: Trials | None = None

    @property
    def certified(self) -> bool:
        """Whether every property is proved of every input."""
        return bool(self.certificate)


@dataclass(frozen=True, slots=True)
class Delivered:
    """An exported network with its certificate; `refusal` says why the checker does not accept it."""

    model: Gated
    certificate: bytes
    refusal: str
    gates: tuple[Gate, ...]


def deliver(problem: Problem, mended: Mapping[int, Mended], means: Means) -> Delivered:
    """Export the gates, write the certificate, and ask the checker."""
    tree = whole(problem, mended)
    model, gates = export(problem, mended)
    means.listen(Progress("check", 0, len(cells(tree)), 0.0))
    counted = counts(problem, tree, len(gates) + 1)
    certificate, refusal = certify(
        model.onnx, problem.original, problem.properties, (tree, counted), means.workers
    )
    return Delivered(model, certificate, refusal, gates)


def whole(problem: Problem, mended: Mapping[int, Mended]) -> Tree[Label]:
    """The layout with what became of each cell, by its number, in place; the others lie outside all boxes."""
    grown: dict[int, Tree[Label]] = {
        # Cuts in the middle are those of the place's box, whatever cell it stands in.
        place.number: tree if place.whole else explicit(tree, place.box)
        for place in problem.places()
        for tree in [mended[place.number].tree]
    }
    outside: Tree[Label] = (Cell(None),)
    return graft(problem.layout, lambda number, _: grown.get(number, outside))


def export(problem: Problem, mended: Mapping[int, Mended]) -> tuple[Gated, tuple[Gate, ...]]:
    """The network with all gates at work, and the gates in the order of their rows: those that ask for the
    same stand together."""
    tree = whole(problem, mended)
    found = list(dict.fromkeys(g for g in cells(tree) if isinstance(g, NeuronGate | OutputGate)))
    alike: dict[SafeSet | NeuronGate, int] = {}
    order = [alike.setdefault(g.safe if isinstance(g, OutputGate) else g, len(alike)) for g in found]
    gates = tuple(g for _, g in sorted(zip(order, found, strict=True), key=operator.itemgetter(0)))
    rows: dict[Label, int] = {gate: row for row, gate in enumerate(gates, start=1)}
    dispatch = merged(graft(tree, lambda _, label: (Cell(rows.get(label, 0)),)), operator.eq)
    inputs = problem.network.input_size
    return gated_model(problem.network, explicit(dispatch, everything(inputs)), gates), gates


def refused(reason: str) -> RepairError:
    """What to raise where the checker does not accept what was meant to be proved."""
    return RepairError(
        "the independent checker refuses the repaired network, so nothing is handed over; "
        f"please report it: {reason}"
    )
