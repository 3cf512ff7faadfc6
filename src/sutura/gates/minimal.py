"""Minimal modification of the last layer: Goldberger, Katz, Adi, Keshet, Minimal Modifications of Deep Neural
Networks using Verification (LPAR 2020), the second baseline of the published method.

The smallest change (largest absolute entry) of the last affine layer that repairs a set of counterexamples
is a linear program, since what the layer reads does not change. Counterexamples that a search still finds
join the set, until none is found; then the boxes are put to a proof.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.optimize import linprog
from scipy.sparse import block_array, csr_array, eye_array

from sutura.bounds.lower import lower_traced
from sutura.bounds.program import run
from sutura.errors import MismatchError
from sutura.gates.cells import Cell, Tree, graft
from sutura.gates.cover import Budget, cover
from sutura.gates.deliver import Repair, deliver, export
from sutura.gates.evaluate import uniform
from sutura.gates.problem import Means, Place, Problem, means
from sutura.gates.regions import Label, Mended, Open, regions
from sutura.gates.safe_set import Alternative, alternatives, safe_set, shortfall
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.progress import Listener, Progress, silent
from sutura.verdict.attack import AttackConfig, attack
from sutura.verdict.goal import unsafe_margin

LOOK = AttackConfig(starts=64, steps=30)
DRAWN = 4096
"""Points of a box tried beside those that a gradient search ends in."""

NEW_POINTS = 16
"""Counterexamples that join the set in one round, for each box searched."""

MOST_LEAVES = 16
"""Boxes without proof that are searched once more."""


@dataclass(frozen=True, slots=True)
class MinimalConfig:
    """Most rounds of counterexamples; the margin kept from the unsafe set, relative to the largest output;
    boxes bounded for a proof; wall seconds (None: no limit); worker threads."""

    rounds: int = 40
    margin: float = 1e-3
    boxes: int = 8_000
    timeout: float | None = None
    workers: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A counterexample: what the last layer reads there, its output, and the safe pieces it may go to."""

    read: Float64[np.ndarray, " k"]
    output: Float64[np.ndarray, " m"]
    pieces: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Last:
    """The last affine layer: the node of its weight, that of its bias (None: there is none)."""

    weight: Node
    bias: Node | None

    @property
    def biased(self) -> bool:
        """Whether it adds a bias that can be changed."""
        return self.bias is not None or (
            isinstance(self.weight.op, ops.Gemm) and self.weight.op.bias is not None
        )


def minimal(problem: Problem, config: MinimalConfig, listen: Listener = silent) -> Repair:
    """Change the last layer as little as the counterexamples found allow.

    The changed network answers otherwise everywhere, not only in the boxes. There is a certificate only where
    the boxes are then proved whole. Raises MismatchError where the network does not end in an affine layer.
    """
    started = time.monotonic()
    last = last_layer(problem.network)
    network, note = problem.network, ""
    points: list[Point] = []
    with means(config.workers, config.timeout, listen, problem.track) as used:
        for number in range(config.rounds):
            found = _counterexamples(problem, problem.of(network), last)
            listen(Progress("minimal", len(points), len(found), number / config.rounds))
            if not found or used.deadline.passed:
                break
            points += found
            change = smallest_change(points, (problem.network.output_size, last.biased), config.margin)
            if change is None:
                note = f"no change of the last layer repairs all of {len(points):,} counterexamples"
                break
            network = changed(problem.network, last, change)
        else:
            note = f"counterexamples were still found after {config.rounds} rounds"
        asked = problem.of(network)
        places = problem.places()
        share = config.boxes // max(1, len(places))
        mended = {place.number: _proof(asked, place, share, used) for place in places}
    return _account(asked, mended, note, (used, started))


def _account(asked: Problem, mended: Mapping[int, Mended], note: str, how: tuple[Means, float]) -> Repair:
    used, started = how
    searched = time.monotonic()
    certificate = b""
    left = sum(
        isinstance(cell.label, Open) for m in mended.values() for cell in m.tree if isinstance(cell, Cell)
    )
    if left:
        model, gates = export(asked, mended)
        note = f"{note or 'no counterexample is found any more'}; {left:,} regions are not proved"
    else:
        found = deliver(asked, mended, used)
        model, gates, certificate = found.model, found.gates, found.certificate
        if found.refusal:
            certificate, note = b"", f"the checker cannot re-prove this repair: {found.refusal}"
    said = "the last layer is changed for every input, in the boxes and outside"
    return Repair(
        model.onnx,
        certificate,
        regions(asked, mended, gates),
        False,
        f"{note}; {said}" if note else said,
        searched - started,
        time.monotonic() - searched,
        "minimal",
    )


def last_layer(network: Network) -> Last:
    """Raises MismatchError where the network does not end in MatMul, MatMul and Add, or Gemm."""
    *before, node = network.nodes
    bias = None
    if isinstance(node.op, ops.AddConstant) and before:
        bias, node = node, before[-1]
    if not isinstance(node.op, ops.MatMul | ops.Gemm) or len(network.output_shape) != 1:
        raise MismatchError(
            f"minimal modification needs a network that ends in an affine layer; {network.name} ends in "
            f"{type(node.op).__name__}"
        )
    return Last(node, bias)


def _counterexamples(was: Problem, now: Problem, last: Last) -> list[Point]:
    """Unsafe points of the network as it is now, with what the network as it was has there."""
    found: list[Point] = []
    original, at = lower_traced(was.network)
    for place in now.places():
        aim, box = now.aim(place.active), place.box
        found_by_slope = attack(now.program, aim, box.low, box.high, LOOK).astype(np.float32)
        ends = box.low.astype(np.float32), box.high.astype(np.float32)
        x = np.concatenate([found_by_slope, uniform(*ends, DRAWN, len(found))])
        x = np.clip(x.astype(np.float64), box.low, box.high)
        wrong = unsafe_margin(aim, run(now.program, x)[-1]).min(axis=1) <= 0
        x = np.unique(x[wrong], axis=0)[:NEW_POINTS]
        values = run(original, x)
        pieces = alternatives(safe_set(c for i in sorted(place.active) for c in was.cases[i][1].unsafe))
        read = values[at[last.weight.inputs[0]]]
        found += [Point(h, y, pieces) for h, y in zip(read, values[-1], strict=True)]
    return found


def smallest_change(
    points: Sequence[Point], layer: tuple[int, bool], margin: float
) -> Float64[np.ndarray, "k+1 outputs"] | None:
    """The change of weights (the last row: of the bias) of least largest entry that makes all points safe
    by a margin, each in the piece it is nearest to; None where there is none (by linear programming).

    `layer`: how many outputs it has, and whether it has a bias.
    """
    outputs, biased = layer
    scale = max(float(abs(p.output).max()) for p in points)
    k = len(points[0].read) + 1
    rows: list[Float64[np.ndarray, " n"]] = []
    limits: list[float] = []
    for point in points:
        piece = min(point.pieces, key=lambda p: shortfall(p, point.output))
        read = np.append(point.read, 1.0)
        for literal in piece:
            row = literal.row(outputs)
            rows.append(-np.outer(read, row).reshape(-1))
            limits.append(row @ point.output - float(literal.bound) - margin * scale * abs(row).sum())
    size = k * outputs
    one, eye = np.ones((size, 1)), eye_array(size)
    blocks: Any = [[csr_array(np.array(rows)), None], [eye, -one], [-eye, -one]]
    cost = np.append(np.zeros(size), 1.0)
    limit = np.concatenate([limits, np.zeros(2 * size)])
    free = [(None, None) if biased else (0, 0)] * outputs
    ends = [(None, None)] * (size - outputs) + free + [(0, None)]
    found = linprog(cost, A_ub=block_array(blocks), b_ub=limit, bounds=ends, method="highs")
    return found.x[:-1].reshape(k, outputs) if found.status == 0 else None


def changed(network: Network, last: Last, change: Float64[np.ndarray, "k+1 outputs"]) -> Network:
    """The network with the change added to its last layer (the bias only where it has one)."""
    weight, shift = change[:-1], change[-1]
    swap: dict[str, ops.Op] = {}
    op = last.weight.op
    if isinstance(op, ops.Gemm):
        delta = (weight.T if op.transposed else weight) / op.alpha
        bias = None if op.bias is None else (op.bias + shift / op.beta).astype(np.float32)
        swap[last.weight.output] = replace(op, weight=(op.weight + delta).astype(np.float32), bias=bias)
    elif isinstance(op, ops.MatMul):
        swap[last.weight.output] = replace(op, weight=(op.weight + weight).astype(np.float32))
    if last.bias is not None and isinstance(last.bias.op, ops.AddConstant):
        value = (last.bias.op.value + shift).astype(np.float32)
        swap[last.bias.output] = replace(last.bias.op, value=value)
    nodes = tuple(replace(n, op=swap.get(n.output, n.op)) for n in network.nodes)
    other = replace(network, nodes=nodes)
    return replace(other, sha256=hashlib.sha256(write_onnx(other)).hexdigest())


def _proof(asked: Problem, place: Place, boxes: int, used: Means) -> Mended:
    run_with = (used.pool, used.listen)
    budget = Budget(boxes, used.deadline)
    done = cover(asked.program, asked.aim(place.active), place.box, budget, run_with)
    return Mended(_labelled(done.tree), done.boxes)


def _labelled(tree: Tree[bool]) -> Tree[Label]:
    return graft(tree, lambda _, safe: (Cell(None if safe else Open()),))
