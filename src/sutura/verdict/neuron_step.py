"""A step of branch and bound on neurons: split the subproblems of a batch, bound the halves, close leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from sutura.bounds.ascent import Ascent, Choice, Domain, Effort, Picked, Start, ascend, evaluate
from sutura.bounds.condensed import Condensed
from sutura.bounds.crown import Bounds, Checkpoint
from sutura.bounds.leaf import Place, mixed, sound_outputs
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.bounds.retighten import Case, retighten
from sutura.verdict.branching import NONE, candidates, intercepts, look_ahead, split
from sutura.verdict.goal import Goal

EFFORTS = (Effort(steps=3, pace=0.2, decay=0.85), Effort(steps=8, pace=0.1, decay=0.9))
"""Two ascents: many halves are closed after the first."""

NEURONS, PRODUCTS = Effort(steps=20, pace=0.2, decay=0.9), 1 << 34
"""Ascents for bounds of neurons at the unsafe inputs alone: as many as these multiplications pay for."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A program on one box, its sound bounds there, its condensed form, and what is to be refuted."""

    program: Program
    region: Region
    bounds: Bounds
    net: Condensed
    aim: Goal

    @property
    def start(self) -> Start:
        """The rows less their bounds, for the ascent."""
        constant = self.net.rows_bias - self.aim.bounds.astype(np.float32)
        return Start(self.net.rows_inputs, self.net.rows_neurons, constant)

    def certified(
        self, domain: Domain, choice: Choice, checkpoint: Checkpoint
    ) -> Float64[np.ndarray, " batch"]:
        """Lower bounds of the mixed rows @ output - bounds; positive refutes. Sound for float32 execution."""
        assert choice.mix is not None
        mix = choice.mix.astype(np.float64)
        place = Place(self.program, self.region, self.bounds, self.net)
        lower = sound_outputs(place, domain, choice, self.aim.rows, checkpoint)
        return lower - mix @ self.aim.bounds - 1e-14 * (mix @ abs(self.aim.bounds))


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Open subproblems: bounds of neurons, choice, estimated bound, share of the property, what to split, and
    a certified bound (see `floored`)."""

    domain: Domain
    choice: Choice
    value: Float32[np.ndarray, " batch"]
    weight: Float64[np.ndarray, " batch"]
    asked: Int64[np.ndarray, "batch k"]
    floor: Float64[np.ndarray, " batch"]

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: Picked) -> Leaves:
        """Some of them."""
        kept = self.value[rows], self.weight[rows], self.asked[rows], self.floor[rows]
        return Leaves(self.domain.take(rows), self.choice.take(rows), *kept)


def join(parts: Sequence[Leaves]) -> Leaves:
    """One batch out of several."""
    if len(parts) == 1:
        return parts[0]

    def glued(pick: Callable[[Leaves], np.ndarray | None]) -> np.ndarray:
        return np.concatenate([v for v in map(pick, parts) if v is not None])

    return Leaves(
        Domain(glued(lambda p: p.domain.low), glued(lambda p: p.domain.high)),
        Choice(
            glued(lambda p: p.choice.lower),
            glued(lambda p: p.choice.upper),
            glued(lambda p: p.choice.pull),
            glued(lambda p: p.choice.mix),
        ),
        glued(lambda p: p.value),
        glued(lambda p: p.weight),
        glued(lambda p: p.asked),
        glued(lambda p: p.floor),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Advance:
    """What became of a batch: open leaves, the weight that was settled, subproblems bounded, leaves that
    cannot be split, and inputs where a witness may lie."""

    open: Leaves
    settled: float
    bounded: int
    stuck: Leaves
    points: Float64[np.ndarray, "k inputs"]


def advance(problem: Problem, batch: Leaves, checkpoint: Checkpoint) -> Advance:
    """Split each subproblem on the neuron that a look ahead prefers, and bound both halves.

    A leaf counts as settled only where `leaf` proves it, which is sound for float32 execution.
    """
    net = problem.net
    can = batch.asked[:, 0] != NONE
    stuck, batch = batch.take(~can), batch.take(can)
    if not len(batch):
        return Advance(batch, 0.0, 0, stuck, np.zeros((0, problem.program.inputs)))
    neuron = look_ahead(net, batch.domain, batch.choice, problem.start, batch.asked)
    halves = split(net.blocks, batch.domain, neuron)
    both = np.concatenate([np.arange(len(batch))] * 2)
    domain = Domain(*(np.concatenate([getattr(h, n) for h in halves]) for n in ("low", "high")))
    rest = batch.value[both], batch.weight[both] / 2.0, batch.asked[both], batch.floor[both]
    leaves = Leaves(domain, batch.choice.take(both), *rest)
    done = bounded(problem, leaves, EFFORTS, stuck, checkpoint)
    return replace(done, open=floored(problem, done.open, checkpoint))


def floored(problem: Problem, leaves: Leaves, checkpoint: Checkpoint) -> Leaves:
    """With certified bounds, sound for float32 execution: an unsafe input of a leaf would have to lie at or
    above them, which are at least those of the leaf that it is a half of."""
    if not len(leaves):
        return leaves
    found = problem.certified(leaves.domain, leaves.choice, checkpoint)
    return replace(leaves, floor=np.maximum(leaves.floor, found))


def at_unsafe(problem: Problem, leaves: Leaves, checkpoint: Checkpoint) -> Leaves:
    """The leaves with better bounds of the neurons whose relaxation costs most, which hold at every input of
    theirs that is unsafe. Sound for float32 execution (see `retighten`)."""
    net, mix = problem.net, leaves.choice.mix
    assert mix is not None
    passed = evaluate(net, net.blocks, leaves.domain, leaves.choice, problem.start)
    cost = intercepts(net.blocks, leaves.domain, passed.neurons, either=True)
    each = 4 * (NEURONS.steps + 1) * net.neurons * (net.neurons // 2 + len(net.varying))
    most = int(np.clip(PRODUCTS // (each * len(leaves) + 1), 1, net.neurons))
    ranked = np.argsort(-cost, axis=1, kind="stable")[:, :most]
    asked = np.zeros(cost.shape, dtype=bool)
    np.put_along_axis(asked, ranked, np.take_along_axis(cost, ranked, axis=1) > 0, axis=1)
    given = mixed(mix.astype(np.float64), problem.aim.rows, problem.aim.bounds)
    case = Case(leaves.domain, leaves.choice, problem.start.chosen(leaves.choice), given)
    place = Place(problem.program, problem.region, problem.bounds, net)
    return replace(leaves, domain=retighten(place, case, asked, NEURONS, checkpoint))


def bounded(
    problem: Problem, leaves: Leaves, efforts: Sequence[Effort], stuck: Leaves, checkpoint: Checkpoint
) -> Advance:
    """Ascend from each leaf's choice, closing leaves after each effort."""
    settled, count, found = 0.0, len(leaves), None
    for effort in efforts:
        if not len(leaves):
            break
        begin = problem.start, leaves.choice
        # Bounds that cross, of an empty leaf, may be infinite.
        with np.errstate(all="ignore"):
            found = ascend(problem.net, problem.net.blocks, leaves.domain, begin, effort, checkpoint)
        closed = _closed(problem, leaves, found, checkpoint)
        settled += float(leaves.weight[closed].sum())
        leaves = replace(leaves, choice=found.choice, value=found.value).take(~closed)
        found = found.take(~closed)
    assert found is not None
    asked = candidates(problem.net, leaves.domain, found)
    return Advance(replace(leaves, asked=asked), settled, count, stuck, problem.net.inputs(found.inputs))


def _closed(
    problem: Problem, leaves: Leaves, found: Ascent, checkpoint: Checkpoint
) -> Bool[np.ndarray, " batch"]:
    """Leaves that are proved; only those that look so are evaluated. An empty subproblem is one too."""
    closed = np.asarray((leaves.domain.low > leaves.domain.high).any(axis=1))
    likely = np.flatnonzero(~closed & (found.value > 0))
    if len(likely):
        closed[likely] = (
            problem.certified(leaves.domain.take(likely), found.choice.take(likely), checkpoint) > 0
        )
    return closed
