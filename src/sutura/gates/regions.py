"""What became of each region of a repair, and how the regions are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from sutura.certificate.schema import Counts
from sutura.gates.cells import Box32, Tree, boxes_of, cells
from sutura.gates.gate import Gate, NeuronGate, OutputGate
from sutura.gates.problem import Problem


@dataclass(frozen=True, slots=True)
class Open:
    """A region without gate and without proof: only a published method leaves any."""


Label = Gate | Open | None
"""What holds in a region; None: the network is proved there as it is."""


@dataclass(frozen=True, slots=True)
class Mended:
    """One cell of the layout after the work, with the boxes bounded for it."""

    tree: Tree[Label]
    boxes: int = 0
    fallbacks: int = 0


@dataclass(frozen=True, slots=True)
class Regions:
    """Cells of the repaired network's proof tree: proved as they are, with neuron gates, given output gates,
    left open.

    `fallbacks` counts regions where no neuron gate could be proved, so that they got output gates.
    `proved_share` is the share of the properties' boxes, by volume, that is proved without a gate.
    """

    proved: int
    neuron_gated: int
    output_gated: int
    fallbacks: int
    rows: int
    neurons_held: int
    proved_share: float
    open: int = 0


def counts(problem: Problem, tree: Tree[Label], rows: int) -> Counts:
    """As the checker will count them."""
    outside = sum(not label for label in cells(problem.layout))
    gated = sum(isinstance(label, OutputGate) for label in cells(tree))
    leaves = len(cells(tree))
    return Counts(leaves=leaves, proved=leaves - gated - outside, gated=gated, outside=outside, rows=rows)


def regions(problem: Problem, mended: Mapping[int, Mended], gates: Sequence[Gate]) -> Regions:
    """Count them."""
    inside = [(mended[place.number], place.box) for place in problem.places()]
    labels = [label for m, _ in inside for label in cells(m.tree)]
    weights = _volumes([box for _, box in inside])
    shares = [_share(m.tree, box) for m, box in inside]
    return Regions(
        proved=sum(label is None for label in labels),
        neuron_gated=sum(isinstance(label, NeuronGate) for label in labels),
        output_gated=sum(isinstance(label, OutputGate) for label in labels),
        fallbacks=sum(m.fallbacks for m, _ in inside),
        rows=len(gates) + 1,
        neurons_held=sum(g.neurons for g in gates if isinstance(g, NeuronGate)),
        proved_share=float(np.dot(weights, shares)) if inside else 1.0,
        open=sum(isinstance(label, Open) for label in labels),
    )


def _share(tree: Tree[Label], box: Box32) -> float:
    """Volume of what is proved as it is, relative to the box."""
    placed = list(boxes_of(tree, box))
    low, high = np.stack([b.low for _, b in placed]), np.stack([b.high for _, b in placed])
    whole = box.high - box.low
    ratio = (high - low)[:, whole > 0] / whole[whole > 0]
    volume = ratio.prod(axis=1)
    proved = np.array([cell.label is None for cell, _ in placed])
    return float(volume[proved].sum() / volume.sum()) if volume.sum() > 0 else float(proved.mean())


def _volumes(boxes: Sequence[Box32]) -> Float64[np.ndarray, " k"]:
    """Volumes relative to their sum, over sides that have a width (by logarithms: there may be thousands)."""
    widths = np.array([box.high - box.low for box in boxes])
    logs = np.log(np.where(widths > 0, widths, 1.0)).sum(axis=1)
    share = np.exp(logs - logs.max(initial=-np.inf))
    return share / share.sum()
