"""Bounds with free slopes and multipliers, improved by gradient ascent: alpha-CROWN (Xu et al. 2021) and
beta-CROWN (Wang et al. 2021), on a condensed network, in float32.

For a row c the bound is  min over x of c . y  with every neuron between its two lines, plus
sum_j -pull_j z_j + min over [low_j, high_j] of pull_j z:  a multiplier on the neuron's own bounds, which are
those of the box or, after a split, of one side of it. beta-CROWN has multipliers for splits alone; for these
`pull` is its S beta. The gradient needs no tape: it is one pass forward of the point that attains the bound.
An estimate: `leaf` evaluates the same choice soundly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Int64

from sutura.bounds.condensed import Block, Condensed
from sutura.bounds.crown import Checkpoint, no_checkpoint
from sutura.bounds.relaxation import LINES
from sutura.bounds.slopes import CURVES, FIXED, RANGES, Range, support

Rows = Float32[np.ndarray, "batch n"]
Column = Float32[np.ndarray, " batch"]

Picked = Int64[np.ndarray, " k"] | Bool[np.ndarray, " batch"] | slice

MEMORY = 0.9, 0.99
"""Decay of Adam's means of gradients and of their squares."""

GENTLE = 0.25
"""Steps for a neuron with a curve, as a share of those with a kink: its lines move away as they turn."""

Moments = tuple[tuple[Rows, Rows], ...]
Units = Float32[np.ndarray, "2 batch 1"]


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """Bounds of the open neurons, for each subproblem of a batch."""

    low: Rows
    high: Rows

    def take(self, rows: Picked) -> Domain:
        """Some of the subproblems."""
        return Domain(self.low[rows], self.high[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What the ascent is free to choose: where in their ranges the slopes lie (0 to 1), multipliers, and
    which mixture of the asked rows is bounded (weights of sum one; those that are zero stay so), and how
    much of the start's `aid` is added (none is negative)."""

    lower: Rows
    upper: Rows
    pull: Rows
    mix: Float32[np.ndarray, "batch r"] | None = None
    lean: Column | None = None

    def take(self, rows: Picked) -> Choice:
        """That of some of the subproblems."""
        mix = None if self.mix is None else self.mix[rows]
        lean = None if self.lean is None else self.lean[rows]
        return Choice(self.lower[rows], self.upper[rows], self.pull[rows], mix, lean)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """The rows to bound: inputs . x + neurons . f(z) + constant, over the first neurons of the network.

    One for each subproblem, or those that each subproblem mixes. `aid` holds a row for each subproblem that
    is not positive at any point of interest, so that any multiple of it may be added.
    """

    inputs: Rows
    neurons: Rows
    constant: Column
    aid: Start | None = None

    def chosen(self, choice: Choice) -> Start:
        """The row of each subproblem."""
        if choice.mix is not None:
            return Start(choice.mix @ self.inputs, choice.mix @ self.neurons, choice.mix @ self.constant)
        if self.aid is None or choice.lean is None:
            return self
        lean = choice.lean[:, None]
        rows = self.inputs + lean * self.aid.inputs, self.neurons + lean * self.aid.neurons
        return Start(*rows, self.constant + choice.lean * self.aid.constant)

    def height(self, x: Rows, f: Rows) -> Column:
        """Of each subproblem's row, at a point."""
        return (self.inputs * x).sum(axis=1) + (self.neurons * f).sum(axis=1) + self.constant


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One evaluation: the bound, the coefficients of inputs and of f(z), and the lines around f."""

    value: Column
    inputs: Rows
    neurons: Rows
    slopes: tuple[Rows, Rows]
    offsets: tuple[Rows, Rows]
    contacts: tuple[Rows, Rows]


@dataclass(frozen=True, slots=True, eq=False)
class Ascent:
    """The best bound met, the choice that gave it, its coefficients of f(z), and where it was attained: the
    inputs, the z and the relaxed f(z) of that point."""

    value: Column
    choice: Choice
    neurons: Rows
    inputs: Rows
    z: Rows
    f: Rows

    def take(self, rows: Picked) -> Ascent:
        """That of some of the subproblems."""
        kept = (self.neurons[rows], self.inputs[rows], self.z[rows], self.f[rows])
        return Ascent(self.value[rows], self.choice.take(rows), *kept)


@dataclass(frozen=True, slots=True)
class Effort:
    """Steps, the length of the first (of a range, and of a neuron's usual coefficient), and its decay."""

    steps: int = 20
    pace: float = 0.1
    decay: float = 0.95


def ranges(blocks: Sequence[Block], domain: Domain) -> tuple[Range, Range]:
    """Of all neurons of the blocks, those of the lower and of the upper lines."""
    parts = [
        RANGES.get(type(b.op), FIXED)(domain.low[:, b.span], domain.high[:, b.span], b.op) for b in blocks
    ]
    return _beside([p[0] for p in parts], domain), _beside([p[1] for p in parts], domain)


def _beside(parts: Sequence[Range], domain: Domain) -> Range:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        empty = domain.low[:, :0]
        return Range(empty, empty, empty)
    return Range(
        np.concatenate([p.least for p in parts], axis=1),
        np.concatenate([p.most for p in parts], axis=1),
        np.concatenate([p.offset for p in parts], axis=1),
    )


def plain_choice(blocks: Sequence[Block], domain: Domain) -> Choice:
    """The slopes that plain CROWN takes, as shares of their ranges."""
    lower, upper = np.zeros_like(domain.low), np.zeros_like(domain.low)
    below, above = ranges(blocks, domain)
    for block in blocks:
        span = block.span
        low, high = domain.low[:, span].astype(np.float64), domain.high[:, span].astype(np.float64)
        plain = LINES[type(block.op)](low, high, block.op)
        lower[:, span] = _share(plain.lower_slope, below, span)
        upper[:, span] = _share(plain.upper_slope, above, span)
    return Choice(lower, upper, np.zeros_like(lower), None)


def _share(slope: np.ndarray, between: Range, span: slice) -> Rows:
    width = (between.most - between.least)[:, span]
    share = (slope - between.least[:, span]) / np.where(width > 0, width, 1)
    return np.clip(share, 0, 1).astype(np.float32)


def evaluate(
    net: Condensed, blocks: Sequence[Block], domain: Domain, choice: Choice, start: Start,
    between: tuple[Range, Range] | None = None,
) -> Pass:  # fmt: skip
    """Lower bounds of the rows of `start` for one choice. An estimate: float32, without execution error."""
    start = start.chosen(choice)
    below, above = between or ranges(blocks, domain)
    slopes = below.slope(choice.lower), above.slope(choice.upper)
    offsets, contacts = _lines(blocks, domain, slopes, (below.offset, above.offset))
    coefficients = start.neurons.copy()
    passed = np.empty_like(coefficients)
    for block in reversed(blocks):
        span = block.span
        positive = np.maximum(coefficients[:, span], 0)
        negative = coefficients[:, span] - positive
        passed[:, span] = positive * slopes[0][:, span] + negative * slopes[1][:, span] - choice.pull[:, span]
        if block.start:
            coefficients[:, : block.start] += passed[:, span] @ net.from_neurons[span, : block.start]
    count = coefficients.shape[1]
    inputs = start.inputs + passed @ net.from_inputs[:count]
    positive = np.maximum(coefficients, 0)
    value = start.constant + passed @ net.bias[:count] + inputs @ net.centre - abs(inputs) @ net.radius
    value += (positive * offsets[0] + (coefficients - positive) * offsets[1]).sum(axis=1)
    gained = np.maximum(choice.pull, 0)
    value += (gained * domain.low + (choice.pull - gained) * domain.high).sum(axis=1)
    return Pass(value, inputs, coefficients, slopes, offsets, contacts)


def _lines(
    blocks: Sequence[Block], domain: Domain, slopes: tuple[Rows, Rows], offsets: tuple[Rows, Rows]
) -> tuple[tuple[Rows, Rows], tuple[Rows, Rows]]:
    """Offsets of both lines, and where each touches the curve (zero for a line through a kink)."""
    touches = np.zeros_like(slopes[0]), np.zeros_like(slopes[0])
    curved = [b for b in blocks if type(b.op) in CURVES]
    found = tuple(o.copy() for o in offsets) if curved else offsets
    for block in curved:
        for side, sign in enumerate((1.0, -1.0)):
            span = block.span
            low, high = domain.low[:, span], domain.high[:, span]
            at = support(CURVES[type(block.op)], slopes[side][:, span], low, high, sign)
            found[side][:, span], touches[side][:, span] = at
    return (found[0], found[1]), touches


def attained(net: Condensed, blocks: Sequence[Block], passed: Pass) -> tuple[Rows, Rows, Rows]:
    """The inputs where the bound is attained, and the z and relaxed f(z) there."""
    x = net.centre - np.sign(passed.inputs) * net.radius
    count = passed.neurons.shape[1]
    z = x @ net.from_inputs[:count].T + net.bias[:count]
    f = np.empty_like(z)
    for block in blocks:
        span = block.span
        if block.start:
            z[:, span] += f[:, : block.start] @ net.from_neurons[span, : block.start].T
        up = passed.neurons[:, span] < 0
        below = passed.slopes[0][:, span] * z[:, span] + passed.offsets[0][:, span]
        above = passed.slopes[1][:, span] * z[:, span] + passed.offsets[1][:, span]
        f[:, span] = np.where(up, above, below)
    return x, z, f


def ascend(
    net: Condensed, blocks: Sequence[Block], domain: Domain, begin: tuple[Start, Choice], effort: Effort,
    checkpoint: Checkpoint = no_checkpoint,
) -> Ascent:  # fmt: skip
    """Adam on slopes and multipliers, projected. Keeps the best choice met; the first is the one given."""
    start, choice = begin
    between = ranges(blocks, domain)
    free = [b.most - b.least for b in between]
    moments: Moments = ()
    gentle = _gentle(blocks, domain)
    best: Ascent | None = None
    pace, units = effort.pace, np.ones((2, len(choice.lower), 1), np.float32)
    for count in range(1, effort.steps + 2):
        checkpoint()
        passed = evaluate(net, blocks, domain, choice, start, between)
        x, z, f = attained(net, blocks, passed)
        here = Ascent(passed.value, choice, passed.neurons, x, z, f)
        best = here if best is None else _better(best, here)
        if count > effort.steps:
            break
        if count == 1:
            units = _units(net, passed)
        slopes = _gradients(passed, z, free, choice.pull, domain)
        if start.aid is not None:
            slopes = (*slopes, start.aid.height(x, f)[:, None])
        steps, moments = _adam(moments, slopes, count)
        mix = _remixed(choice.mix, start, x, f, 4.0 * pace)
        steps = [pace * s for s in (*(gentle * s for s in steps[:3]), *steps[3:])]
        choice = _moved(replace(choice, mix=mix), steps, units)
        pace *= effort.decay
    assert best is not None
    return best


def _gentle(blocks: Sequence[Block], domain: Domain) -> Float32[np.ndarray, " n"]:
    """How long each neuron's steps are."""
    lengths = np.ones(domain.low.shape[1], np.float32)
    for block in blocks:
        if type(block.op) in CURVES:
            lengths[block.span] = GENTLE
    return lengths


def _units(net: Condensed, passed: Pass) -> Units:
    """A neuron's usual coefficient, and what the row varies by directly."""
    usual = abs(passed.neurons).mean(axis=1, keepdims=True) if passed.neurons.shape[1] else 1.0
    reach = (abs(passed.inputs) @ net.radius)[:, None]
    return np.stack([np.maximum(usual, np.float32(1e-12)) + np.zeros_like(reach), reach])


def _moved(choice: Choice, steps: Sequence[Rows], units: Units) -> Choice:
    """The choice after steps of the slopes in their ranges and of the multipliers in their units."""
    pull = choice.pull + steps[2] * units[0]
    # A multiplier stops at zero, where the bound has a kink, before it changes sign.
    pull = np.where(pull * choice.pull < 0, 0, pull)
    ends = np.clip(choice.lower + steps[0], 0, 1), np.clip(choice.upper + steps[1], 0, 1)
    lean = choice.lean
    if lean is not None and len(steps) > 3:
        lean = np.maximum(lean + (steps[3] * units[1])[:, 0], 0)
    return Choice(*ends, pull, choice.mix, lean)


def _remixed(
    mix: Float32[np.ndarray, "batch r"] | None, start: Start, x: Rows, f: Rows, pace: float
) -> Float32[np.ndarray, "batch r"] | None:
    """A step of exponentiated gradient towards the rows that are high where the bound is attained."""
    if mix is None or int(np.count_nonzero(mix, axis=1).max(initial=0)) < 2:
        return mix
    height = x @ start.inputs.T + f @ start.neurons.T + start.constant
    height = height - (mix * height).sum(axis=1, keepdims=True)
    spread = np.maximum(np.where(mix > 0, abs(height), 0).max(axis=1, keepdims=True), 1e-30)
    moved = mix * np.exp(np.clip(pace * height / spread, -1, 1))
    return moved / moved.sum(axis=1, keepdims=True)


def _gradients(passed: Pass, z: Rows, free: Sequence[Rows], pull: Rows, domain: Domain) -> tuple[Rows, ...]:
    """Of slopes below, slopes above, and multipliers."""
    positive = np.maximum(passed.neurons, 0)
    negative = passed.neurons - positive
    short, over = domain.low - z, domain.high - z
    # At zero either side may gain: only where the point breaks a bound is there anything to gain.
    resting = np.maximum(short, 0) + np.minimum(over, 0)
    return (
        positive * (z - passed.contacts[0]) * free[0],
        negative * (z - passed.contacts[1]) * free[1],
        np.where(pull > 0, short, np.where(pull < 0, over, resting)),
    )


def _adam(moments: Moments, slopes: Sequence[Rows], count: int) -> tuple[list[Rows], Moments]:
    """Steps of length about one, and the running means of gradients and of their squares."""
    first, second = MEMORY
    known = moments or tuple((np.zeros_like(s), np.zeros_like(s)) for s in slopes)
    later = tuple(
        (first * m + (1 - first) * s, second * v + (1 - second) * s * s)
        for (m, v), s in zip(known, slopes, strict=True)
    )
    scale = 1 - first**count, 1 - second**count
    return [m / scale[0] / (np.sqrt(v / scale[1]) + 1e-12) for m, v in later], later


def _better(best: Ascent, here: Ascent) -> Ascent:
    won = here.value > best.value
    if not won.any():
        return best
    if won.all():
        return here

    def pick(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(won[:, None], a, b)

    ours, theirs = here.choice, best.choice
    mix = None if ours.mix is None or theirs.mix is None else pick(ours.mix, theirs.mix)
    kept = pick(ours.lower, theirs.lower), pick(ours.upper, theirs.upper), pick(ours.pull, theirs.pull)
    lean = None if ours.lean is None or theirs.lean is None else np.where(won, ours.lean, theirs.lean)
    choice = Choice(*kept, mix, lean)
    rest = (pick(getattr(here, n), getattr(best, n)) for n in ("neurons", "inputs", "z", "f"))
    return Ascent(np.where(won, here.value, best.value), choice, *rest)
