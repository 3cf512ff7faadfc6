"""Decide by neurons: bounds with free slopes on the whole box, then branch and bound on neurons."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.bounds.crown import crown, lower_planes
from sutura.bounds.maxima import without_maxima
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.progress import Listener, Progress, silent
from sutura.property.spec import Property, unsafe_mask
from sutura.verdict.deadline import Deadline, OutOfTimeError, within
from sutura.verdict.descent import Descent, Wanted, descend, starts
from sutura.verdict.goal import goal
from sutura.verdict.linear_leaf import Settled, settle
from sutura.verdict.neuron_roots import Stage, open_mix, stages
from sutura.verdict.neuron_step import Advance, Leaves, Problem, advance, join
from sutura.verdict.outcome import Account, Outcome, Proved, Unknown, Verdict, Violated
from sutura.verdict.replay import Runner, replay
from sutura.verdict.search import VerifyConfig, check_fit
from sutura.verdict.workers import workers

BATCH = 64
"""Subproblems split together."""

ROUND = 2
"""Batches taken from the stack at once. Both are fixed: results do not depend on the number of workers."""

NO_POINT = (
    "no float32 input lies exactly in the box, so there is no witness; float32 inputs beside it, to which "
    "its numbers are rounded, are unsafe"
)

MEMORY = 1 << 30
"""Bytes that waiting subproblems may take."""

FIRST, SECOND = Descent(starts=4, steps=10), Descent(starts=24, steps=50)
"""An attack before the root is bounded well, and one before the search."""

FROM_LEAVES, EVERY = Descent(steps=10, pace=0.1), 8
"""An attack from where the bounds of open leaves are attained, once in so many rounds."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Running figures of a search; `bound` is the least margin certified for what stays open: infinite where
    nothing does, minus infinity where nothing is known of it."""

    bounded: int = 0
    settled: float = 0.0
    bound: float = math.inf
    batch: int = BATCH

    @property
    def known_bound(self) -> float | None:
        """The bound, where there is one."""
        return self.bound if math.isfinite(self.bound) else None

    def after(self, bounded: int, settled: float) -> Tally:
        """With more done."""
        return replace(self, bounded=self.bounded + bounded, settled=self.settled + settled)

    def raised(self, bound: float) -> Tally:
        """With another bound of what is left open, or of less, where it is better."""
        return replace(self, bound=max(self.bound, bound))


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What every part of a search needs; `inside` is the case's `float32_inside`, `holds_point`
    whether that truly lies in its box."""

    runner: Runner
    prop: Property
    case: int
    config: VerifyConfig
    deadline: Deadline
    pool: Executor
    listen: Listener
    inside: tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]
    holds_point: bool

    def shown(self, points: Float64[np.ndarray, "k inputs"]) -> Violated | Unknown | None:
        """What the points show: a violation, or that neither verdict can be reached, or nothing."""
        if not len(points):
            return None
        witness = replay(self.runner, self.prop, self.case, points, self.inside)
        if witness is not None:
            return Violated(witness)
        if self.holds_point:
            return None
        case = self.prop.cases[self.case]
        near = np.clip(points.astype(np.float32), *self.inside)
        return Unknown(NO_POINT) if unsafe_mask(case, self.runner(near)).any() else None


def decide_by_neurons(
    program: Program,
    runner: Runner,
    prop: Property,
    config: VerifyConfig | None = None,
    *,
    listen: Listener = silent,
) -> Outcome:
    """Decide whether the network has the property. Proved is sound for every float32 execution.

    As `search.decide`, which it complements: the boxes stay whole, neurons are split.
    """
    config = config or VerifyConfig()
    check_fit(program, prop)
    started, deadline, tally = time.monotonic(), within(config.timeout), Tally()
    verdict: Verdict = Proved()
    whole = without_maxima(program)
    with workers(config.workers) as pool:
        for case in range(len(prop.cases)):
            inside = prop.cases[case].box.float32_inside()
            holds_point = prop.cases[case].box.contains(inside[0])
            run = Run(runner, prop, case, config, deadline, pool, listen, inside, holds_point)
            found, tally = _decide_case(whole, run, tally)
            if isinstance(found, Violated):
                verdict = found
                break
            verdict = verdict if isinstance(found, Proved) else found
    share, spent = tally.settled / max(1, len(prop.cases)), time.monotonic() - started
    return Outcome(verdict, Account(tally.bounded, share, spent, tally.known_bound, tally.batch))


def _decide_case(program: Program, run: Run, tally: Tally) -> tuple[Verdict, Tally]:
    aim = goal(run.prop.cases[run.case].unsafe, run.prop.outputs)
    if not len(aim.members):
        return Proved(), tally.after(0, 1.0)
    low, high = (v.astype(np.float64) for v in run.prop.cases[run.case].box.float32_hull())
    region, check, share = Region(low[None], high[None]), run.deadline.check, 1.0 / len(aim.members)
    attacks, others, stage = [SECOND, FIRST], tally.bound, None
    tally = replace(tally, bound=-math.inf)
    try:
        with np.errstate(all="ignore"):
            bounds = crown(program, region, checkpoint=check)
            planes = lower_planes(program, region, bounds, aim.rows)
        mix = open_mix(aim, planes.value)
        tally = tally.after(1, 1.0 - share * len(mix))
        if not len(mix):
            return Proved(), replace(tally, bound=others)
        for stage in stages((program, region, bounds, aim), mix, share, check):
            tally = tally.after(0, stage.settled).raised(min(others, _least([stage.open])))
            _tell(run, tally, len(stage.open))
            shown = run.shown(stage.points)
            if shown is None and attacks and len(stage.open):
                shown = _attacked(stage, run, attacks.pop())
            if shown is not None:
                return shown, tally
        assert stage is not None
        return _search(stage.problem, stage.open, run, (tally, others))
    except OutOfTimeError:
        return _timed_out(run.config), tally


def _least(parts: Sequence[Leaves]) -> float:
    """The least certified margin of open leaves; infinite where there are none."""
    return min((float(part.floor.min(initial=math.inf)) for part in parts), default=math.inf)


def _attacked(stage: Stage, run: Run, how: Descent) -> Violated | Unknown | None:
    """Descend towards the conjunctions that are open."""
    problem, mix = stage.problem, stage.open.choice.mix
    assert mix is not None
    conjunctions = np.flatnonzero((problem.aim.members[:, None, :] & (mix[None] > 0)).any(axis=(1, 2)))
    begin = starts(problem.net, conjunctions, replace(how, seed=run.config.seed))
    return run.shown(descend(problem.net, problem.aim, begin, how, run.deadline.check))


def _search(problem: Problem, roots: Leaves, run: Run, reached: tuple[Tally, float]) -> tuple[Verdict, Tally]:
    """Branch and bound, least bound first; `reached` is the tally and the bound of other cases."""
    heaps, stuck, rounds = [_sorted(roots)], roots.take(slice(0, 0)), 0
    tally, others = reached
    most = min(run.config.waiting, MEMORY // (20 * problem.net.neurons + 1))

    def halve(part: Leaves) -> tuple[Advance, Settled]:
        done = advance(problem, part, run.deadline.check)
        return done, settle(problem, done.stuck, run.deadline.check)

    while any(map(len, heaps)):
        if run.deadline.passed:
            return _timed_out(run.config), tally
        waiting = sum(map(len, heaps))
        if waiting > most:
            return Unknown(f"{waiting:,} subproblems wait: the memory limit of the search"), tally
        batches, rest = _pop(heaps, tally.batch, deep=waiting > most // 2)
        try:
            done = list(run.pool.map(halve, batches))
        except OutOfTimeError:
            return _timed_out(run.config), tally
        except MemoryError:
            if tally.batch == 1:
                return Unknown("out of memory while bounding a single subproblem"), tally
            tally = replace(tally, batch=tally.batch // 2)
            _tell(run, tally, waiting, f"out of memory: batches of {tally.batch} from here on")
            continue
        rounds += 1
        shown = _looked_at(problem, run, done, rounds % EVERY == 0)
        if shown is not None:
            return shown, tally
        heaps = [*rest, *(_sorted(d.open) for d, _ in done if len(d.open))]
        stuck = join([stuck, *(d.stuck.take(~s.closed) for d, s in done)])
        settled = sum(d.settled + float(d.stuck.weight[s.closed].sum()) for d, s in done)
        tally = tally.after(sum(d.bounded for d, _ in done), settled)
        tally = tally.raised(min(others, _least([stuck, *heaps])))
        _tell(run, tally, sum(map(len, heaps)))
    if len(stuck):
        return Unknown(f"{len(stuck)} subproblems lie within float32 rounding of the unsafe set"), tally
    return Proved(), tally


def _tell(run: Run, tally: Tally, waiting: int, note: str = "") -> None:
    share = tally.settled / len(run.prop.cases)
    run.listen(Progress(run.prop.name, tally.bounded, waiting, share, tally.known_bound, note))


def _looked_at(
    problem: Problem, run: Run, done: Sequence[tuple[Advance, Settled]], closely: bool
) -> Violated | Unknown | None:
    """Replay the points that a round gave; looked at closely, each also leads to others nearby."""
    points = np.concatenate([part.points for pair in done for part in pair])
    shown = run.shown(points)
    if shown is not None or not closely:
        return shown
    mixes = [d.open.choice.mix for d, _ in done if d.open.choice.mix is not None]
    mix = np.concatenate(mixes)
    begin = np.concatenate([d.points for d, _ in done])[:, problem.net.varying].astype(np.float32)
    asked = ((mix > 0) @ problem.aim.members.T.astype(np.float64)).argmax(axis=1)
    found = descend(problem.net, problem.aim, Wanted(begin, asked), FROM_LEAVES, run.deadline.check)
    return run.shown(found)


def _sorted(leaves: Leaves) -> Leaves:
    """Least bound first."""
    return leaves.take(np.argsort(leaves.value, kind="stable"))


def _timed_out(config: VerifyConfig) -> Unknown:
    return Unknown(f"timed out after {config.timeout:g} s")


def _pop(heaps: Sequence[Leaves], size: int, deep: bool) -> tuple[list[Leaves], list[Leaves]]:
    """Up to ROUND batches of `size` leaves of least bound, nearly, and what remains. Heaps are sorted and
    give their first leaves; where memory is short the newest heap gives its last, which are the nearest to
    being closed."""
    rest, taken, missing = [h for h in heaps if len(h)], [], size * ROUND
    while rest and missing:
        at = len(rest) - 1 if deep else min(range(len(rest)), key=lambda i: rest[i].value[0])
        heap = rest.pop(at)
        cut = len(heap) - missing if deep else missing
        parts = heap.take(slice(0, max(0, cut))), heap.take(slice(max(0, cut), None))
        kept, given = parts if deep else parts[::-1]
        if len(kept):
            rest.insert(at, kept)
        taken.append(given)
        missing -= len(given)
    whole = join(taken)
    step = -(-len(whole) // ROUND)
    return [whole.take(slice(i, i + step)) for i in range(0, len(whole), step)], rest
