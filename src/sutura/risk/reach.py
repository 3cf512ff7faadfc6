"""The range of an output over a box: attained from inside by search, enclosed from outside by proof.

Inside: batched multi-start ascent. Outside: with few inputs branch and bound, the box that may go farthest
first; with many, `verify` is asked whether the output can go farther than what was attained by a small share
of the range.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.bounds.crown import crown
from sutura.bounds.region import Region
from sutura.network.read import Loaded
from sutura.property.build import box, output_bound
from sutura.risk.ball import Domain, inside
from sutura.risk.branch import FEW_INPUTS
from sutura.risk.deepquant import values
from sutura.risk.model import Model, model
from sutura.risk.pattern import PatternConfig, pattern_search
from sutura.risk.safety import Reachability, check_outputs
from sutura.verdict.deadline import Deadline, OutOfTimeError, within
from sutura.verdict.frontier import advance, together, waiting
from sutura.verdict.goal import Goal
from sutura.verdict.narrow import narrow
from sutura.verdict.outcome import Proved, Violated
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify
from sutura.verdict.workers import KEPT

CHUNK = 64
"""Boxes bounded together."""

CORNERS = 10
"""Inputs up to which all corners of the box are samples."""

FIRST_SHARE = 0.5
LOOSER = 2.0
BLIND = PatternConfig(
    mesh=0.25, expansion=1.5, contraction=0.5, tolerance=1e-5, iterations=80, directions="orthogonal"
)


@dataclass(frozen=True, slots=True)
class RangeConfig:
    """Samples, ascents from the best of them and their steps; the share of the range by which the enclosure
    may lie outside of what was attained, at each end; wall seconds for the proofs."""

    samples: int = 4000
    starts: int = 64
    steps: int = 80
    gap: float = 0.009
    budget: float = 30.0
    workers: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Extreme:
    """One end of a range: `attained` at `witness` in ONNX Runtime, and `certified`: the output never goes
    farther, in any float32 execution (infinite where nothing could be shown)."""

    attained: float
    certified: float
    witness: Float32[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class OutputRange:
    """certified low <= attained low <= attained high <= certified high."""

    low: Extreme
    high: Extreme

    @property
    def enclosure_excess(self) -> float:
        """By how much the certified range is wider, as a share of the attained one."""
        width = self.high.attained - self.low.attained
        return float((self.high.certified - self.low.certified - width) / width) if width > 0 else np.inf


def output_range(
    loaded: Loaded, index: int, limits: Domain, config: RangeConfig | None = None
) -> OutputRange:
    """The range of output `index` over the box of a domain, from both sides.

    Certified ends are sound for float32 execution, attained ones were seen in ONNX Runtime. Raises
    MismatchError where there is no such output.
    """
    risk, config = Reachability(index), config or RangeConfig()
    check_outputs(risk, loaded.network.output_size)
    return range_of(model(loaded, risk), index, limits, config)


def range_of(seen: Model, index: int, limits: Domain, config: RangeConfig) -> OutputRange:
    """As `output_range`; `seen` must be the model of a Reachability risk."""
    lowest, highest = (_attained(seen, index, limits, sign, config) for sign in (-1.0, 1.0))
    deadline = within(config.budget)
    if seen.program is not None and seen.program.inputs <= FEW_INPUTS:
        return _farthest_first(seen, index, limits, OutputRange(lowest, highest), (deadline, config))
    both = [lowest, highest]
    for turn, sign in enumerate((-1.0, 1.0)):
        width = both[1].attained - both[0].attained
        share = within((deadline.at - time.monotonic()) * (FIRST_SHARE if turn == 0 else 1.0))
        both[turn] = _enclosed(seen, (index, sign), limits, (both[turn], width), (share, config))
    return OutputRange(both[0], both[1])


def _attained(seen: Model, index: int, limits: Domain, sign: float, config: RangeConfig) -> Extreme:
    """The farthest output found in one direction, in ONNX Runtime."""
    size, random = len(limits.low), np.random.default_rng(config.seed)
    share = random.random((config.samples, size))
    if size <= CORNERS:
        share = np.concatenate([np.array(list(itertools.product((0.0, 1.0), repeat=size))), share])
    x = inside(limits, limits.low + share * (limits.high - limits.low))
    reached = sign * values(seen, x)[:, index]
    x = x[np.argsort(-reached, kind="stable")[: config.starts]]
    x = _climbed(seen, index, limits, sign, x, config)
    x = inside(limits, x)
    outputs = sign * seen.run(x.astype(np.float32))[:, index].astype(np.float64)
    best = int(outputs.argmax())
    return Extreme(sign * float(outputs[best]), sign * np.inf, x[best].astype(np.float32))


def _climbed(
    seen: Model,
    index: int,
    limits: Domain,
    sign: float,
    x: Float64[np.ndarray, "batch n"],
    config: RangeConfig,
) -> Float64[np.ndarray, "batch n"]:
    """Ascent by gradients with steps that grow where they help and shrink where not, or pattern search."""
    if seen.slopes is None:

        def objective(points: Float64[np.ndarray, "batch n"]) -> Float64[np.ndarray, " batch"]:
            return -sign * values(seen, points)[:, index]

        return pattern_search(objective, limits, x, BLIND).x
    width, pace = limits.high - limits.low, np.full(len(x), 0.1)
    outputs, pull = seen.slopes(x)
    best = sign * outputs[:, index]
    seed = np.zeros_like(outputs)
    seed[:, index] = sign
    slope = pull(seed)
    for _ in range(config.steps):
        # Scaled to the box; the largest entry moves by the pace.
        step = slope * width
        step = step / np.maximum(abs(step).max(axis=1, keepdims=True), 1e-300)
        tried = np.clip(x + pace[:, None] * step * width, limits.low, limits.high)
        outputs, pull = seen.slopes(tried)
        found = sign * outputs[:, index]
        better = found > best
        slope = np.where(better[:, None], pull(seed), slope)
        x, best = np.where(better[:, None], tried, x), np.where(better, found, best)
        pace = np.where(better, np.minimum(2.0 * pace, 0.5), 0.5 * pace)
    return x


def _enclosed(
    seen: Model,
    end: tuple[int, float],
    limits: Domain,
    known: tuple[Extreme, float],
    how: tuple[Deadline, RangeConfig],
) -> Extreme:
    """The tightest enclosure that `verify` proves, from `gap` of the width on, looser after each failure."""
    (index, sign), (extreme, width), (deadline, config) = end, known, how
    outermost = _outermost(seen, index, sign, limits)
    region = box(limits.low, limits.high)
    gap, outputs = config.gap * max(width, 1e-6), seen.head.network.output_size
    while not deadline.passed:
        limit = extreme.attained + sign * gap
        if sign * limit >= sign * outermost:
            break
        ends = {"upper": limit} if sign > 0 else {"lower": limit}
        prop = output_bound(region, index, **ends, outputs=outputs, name="range")
        seconds = max(0.05, 0.6 * (deadline.at - time.monotonic()))
        verdict = verify(seen.head, prop, VerifyConfig(seconds, config.workers, config.seed)).verdict
        if isinstance(verdict, Proved):
            return replace(extreme, certified=limit)
        if isinstance(verdict, Violated):
            witness = verdict.witness
            extreme = Extreme(float(witness.output[index]), extreme.certified, witness.input)
        else:
            gap *= LOOSER
    return replace(extreme, certified=outermost)


def _farthest_first(
    seen: Model, index: int, limits: Domain, known: OutputRange, how: tuple[Deadline, RangeConfig]
) -> OutputRange:
    """Halve the boxes that may go farthest beyond either end until none passes `gap`: both ends share them.

    Sound whenever it is stopped: a margin says by how much a box may pass the ends asked for when it was
    bounded, and those only move outward.
    """
    (deadline, config), program = how, seen.program
    assert program is not None
    np.empty(KEPT, dtype=np.uint8)
    spare = config.gap * max(known.high.attained - known.low.attained, 1e-6)
    aim = _both_ends(known, index, program.outputs, spare)
    try:
        whole = Region(limits.low[None], limits.high[None])
        state = waiting(narrow(program, aim, whole, None, deadline.check), np.ones(1))
    except OutOfTimeError:
        return _certified(known, lambda sign, _: _outermost(seen, index, sign, limits))
    while len(state.region) and not deadline.passed:
        order = np.argsort(state.margin, kind="stable")
        chosen, rest = state.take(order[:CHUNK]), state.take(order[CHUNK:])
        try:
            done = advance(program, aim, chosen, deadline.check)
        except OutOfTimeError:
            break
        if done.stuck:
            break
        known = _farther(seen, index, limits, known, done.corners)
        aim = _both_ends(known, index, program.outputs, spare)
        state = together([rest, done.open])
    beyond = spare - float(state.margin.min(initial=0.0))
    return _certified(known, lambda sign, at: at + sign * (beyond + 2.0**-40 * (abs(at) + beyond)))


def _both_ends(known: OutputRange, index: int, outputs: int, spare: float) -> Goal:
    """Refuted where the output goes no farther than `spare` beyond what was attained, at either end."""
    rows = np.zeros((2, outputs))
    rows[:, index] = 1.0, -1.0
    bounds = np.array([known.low.attained - spare, -known.high.attained - spare])
    return Goal(rows, bounds, np.zeros(2, dtype=np.bool_), np.eye(2, dtype=np.bool_))


def _certified(known: OutputRange, limit: Callable[[float, float], float]) -> OutputRange:
    """Both ends certified: `limit` takes the end's sign and what was attained there."""
    low, high = known.low, known.high
    return OutputRange(
        replace(low, certified=limit(-1.0, low.attained)), replace(high, certified=limit(1.0, high.attained))
    )


def _farther(
    seen: Model, index: int, limits: Domain, known: OutputRange, corners: Float64[np.ndarray, "k n"]
) -> OutputRange:
    """The farthest of what is known and of some points at each end, in ONNX Runtime."""
    if not len(corners):
        return known
    points = inside(limits, corners).astype(np.float32)
    outputs = seen.run(points)[:, index].astype(np.float64)
    low, high, lowest, highest = known.low, known.high, int(outputs.argmin()), int(outputs.argmax())
    if outputs[lowest] < low.attained:
        low = Extreme(float(outputs[lowest]), low.certified, points[lowest])
    if outputs[highest] > high.attained:
        high = Extreme(float(outputs[highest]), high.certified, points[highest])
    return OutputRange(low, high)


def _outermost(seen: Model, index: int, sign: float, limits: Domain) -> float:
    """What linear bounds of the whole box say."""
    if seen.program is None:
        return sign * np.inf
    with np.errstate(all="ignore"):
        found = crown(seen.program, Region(limits.low[None], limits.high[None]))
    ends = found.high[-1] if sign > 0 else found.low[-1]
    return float(ends[0, index])
