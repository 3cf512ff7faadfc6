"""Decide by neurons: bounds with free slopes on the whole box, then branch and bound on neurons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.bounds.ascent import Domain, Effort, plain_choice
from sutura.bounds.condensed import condense
from sutura.bounds.crown import Bounds, Checkpoint, crown, lower_planes
from sutura.bounds.maxima import without_maxima
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.bounds.tighten import tighten
from sutura.progress import Listener, Progress, silent
from sutura.property.spec import Property, unsafe_mask
from sutura.verdict.deadline import Deadline, OutOfTimeError, within
from sutura.verdict.descent import Descent, Wanted, descend, starts
from sutura.verdict.goal import Goal, goal, refuted
from sutura.verdict.linear_leaf import Settled, settle
from sutura.verdict.neuron_step import Advance, Leaves, Problem, advance, bounded, join
from sutura.verdict.outcome import Account, Outcome, Proved, Unknown, Verdict, Violated
from sutura.verdict.replay import Runner, replay
from sutura.verdict.search import VerifyConfig, check_fit
from sutura.verdict.workers import workers

BATCH = 64
"""Subproblems split together."""

ROUND = 2
"""Batches taken from the stack at once. Both are fixed: results do not depend on the number of workers."""

ROOT = Effort(steps=30, pace=0.15, decay=0.95)
LAYERS = Effort(steps=8, pace=0.2, decay=0.85)
"""Ascents for the asked rows and for the neurons' own bounds."""

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
    """Running figures of a search; `bound` is the least margin certified for a whole box that stays open."""

    bounded: int = 0
    settled: float = 0.0
    bound: float | None = None
    batch: int = BATCH

    def after(self, bounded: int, settled: float) -> Tally:
        """With more done."""
        return replace(self, bounded=self.bounded + bounded, settled=self.settled + settled)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What every part of a search needs; `inside` is the case's `float32_inside`."""

    runner: Runner
    prop: Property
    case: int
    config: VerifyConfig
    deadline: Deadline
    pool: Executor
    listen: Listener
    inside: tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]

    def shown(self, points: Float64[np.ndarray, "k inputs"]) -> Violated | Unknown | None:
        """What the points show: a violation, or that neither verdict can be reached, or nothing."""
        if not len(points):
            return None
        witness = replay(self.runner, self.prop, self.case, points, self.inside)
        if witness is not None:
            return Violated(witness)
        case = self.prop.cases[self.case]
        if case.box.contains(self.inside[0]):
            return None
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
            run = Run(
                runner, prop, case, config, deadline, pool, listen, prop.cases[case].box.float32_inside()
            )
            found, tally = _decide_case(whole, run, tally)
            if isinstance(found, Violated):
                verdict = found
                break
            verdict = verdict if isinstance(found, Proved) else found
    share, bound = tally.settled / max(1, len(prop.cases)), tally.bound
    bound = None if isinstance(verdict, Proved) else bound
    return Outcome(verdict, Account(tally.bounded, share, time.monotonic() - started, bound, tally.batch))


def _decide_case(program: Program, run: Run, tally: Tally) -> tuple[Verdict, Tally]:
    aim = goal(run.prop.cases[run.case].unsafe, run.prop.outputs)
    if not len(aim.members):
        return Proved(), tally.after(0, 1.0)
    low, high = (v.astype(np.float64) for v in run.prop.cases[run.case].box.float32_hull())
    region, others = Region(low[None], high[None]), tally.bound
    check, share = run.deadline.check, 1.0 / len(aim.members)
    try:
        with np.errstate(all="ignore"):
            bounds = crown(program, region, checkpoint=check)
            planes = lower_planes(program, region, bounds, aim.rows)
        mix = _open_mix(aim, planes.value)
        tally = tally.after(1, 1.0 - share * len(mix))
        for deeper in (False, True):
            if not len(mix):
                return Proved(), tally
            problem = _problem(program, region, bounds, aim, (run, deeper))
            bounds = problem.bounds
            shown = _attacked(problem, run, SECOND if deeper else FIRST, mix)
            if shown is not None:
                return shown, tally
            roots = _roots(problem, mix, share)
            first = bounded(problem, roots, (ROOT,), roots.take(slice(0, 0)), check)
            tally = replace(tally.after(0, first.settled), bound=_least(problem, first.open, check, others))
            shown = run.shown(first.points)
            if shown is not None:
                return shown, tally
            mix = first.open.choice.mix
            assert mix is not None
        return _search(problem, first.open, run, tally) if len(mix) else (Proved(), tally)
    except OutOfTimeError:
        return _timed_out(run.config), tally


def _least(problem: Problem, open_: Leaves, checkpoint: Checkpoint, others: float | None) -> float | None:
    """The least certified margin of open leaves and of other cases."""
    if not len(open_):
        return others
    least = float(problem.certified(open_.domain, open_.choice, checkpoint).min())
    return least if others is None else min(least, others)


def _attacked(
    problem: Problem, run: Run, how: Descent, mix: Float32[np.ndarray, "k m"]
) -> Violated | Unknown | None:
    """Descend towards the conjunctions that hold the open rows."""
    conjunctions = np.flatnonzero((problem.aim.members[:, None, :] & (mix[None] > 0)).any(axis=(1, 2)))
    begin = starts(problem.net, conjunctions, replace(how, seed=run.config.seed))
    return run.shown(descend(problem.net, problem.aim, begin, how, run.deadline.check))


def _open_mix(aim: Goal, value: Float64[np.ndarray, "1 m"]) -> Float32[np.ndarray, "k m"]:
    """For each conjunction that is not refuted an even mixture of its rows, half of it the highest row."""
    members = aim.members[~refuted(aim, value)[0]]
    even = members / members.sum(axis=1, keepdims=True)
    gap = np.where(members, value[0] - aim.bounds, -np.inf)
    highest = np.eye(members.shape[1])[gap.argmax(axis=1)]
    return ((even + highest) / 2.0).astype(np.float32)


def _problem(program: Program, region: Region, bounds: Bounds, aim: Goal, how: tuple[Run, bool]) -> Problem:
    """The condensed problem; where asked for, with the neurons' bounds tightened first."""
    run, deeper = how
    check = run.deadline.check
    net = condense(program, region, bounds, aim.rows, check)
    if deeper:
        bounds = tighten(program, region, bounds, net, LAYERS, check)
        net = condense(program, region, bounds, aim.rows, check)
    return Problem(program, region, bounds, net, aim)


def _roots(problem: Problem, mix: Float32[np.ndarray, "k m"], share: float) -> Leaves:
    net, count = problem.net, len(mix)
    domain = Domain(np.repeat(net.low[None], count, axis=0), np.repeat(net.high[None], count, axis=0))
    choice = replace(plain_choice(net.blocks, domain), mix=mix)
    return Leaves(
        domain, choice, np.full(count, -np.inf, np.float32), np.full(count, share), np.full((count, 1), -1)
    )


def _search(problem: Problem, open_: Leaves, run: Run, tally: Tally) -> tuple[Verdict, Tally]:
    """Branch and bound, depth first."""
    stack, stuck, rounds = [open_], 0, 0
    most = min(run.config.waiting, MEMORY // (20 * problem.net.neurons + 1))

    def halve(part: Leaves) -> tuple[Advance, Settled]:
        done = advance(problem, part, run.deadline.check)
        return done, settle(problem, done.stuck, run.deadline.check)

    while stack:
        if run.deadline.passed:
            return _timed_out(run.config), tally
        waiting = sum(len(leaves) for leaves in stack)
        if waiting > most:
            return Unknown(f"{waiting:,} subproblems wait: the memory limit of the search"), tally
        batches, rest = _pop(stack, tally.batch)
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
        stack = [*rest, *(_hopeful_last(d.open) for d, _ in done if len(d.open))]
        stuck += sum(int((~s.closed).sum()) for _, s in done)
        settled = sum(d.settled + float(d.stuck.weight[s.closed].sum()) for d, s in done)
        tally = tally.after(sum(d.bounded for d, _ in done), settled)
        _tell(run, tally, sum(len(leaves) for leaves in stack))
    if stuck:
        return Unknown(f"{stuck} subproblems lie within float32 rounding of the unsafe set"), tally
    return Proved(), tally


def _tell(run: Run, tally: Tally, waiting: int, note: str = "") -> None:
    share = tally.settled / len(run.prop.cases)
    run.listen(Progress(run.prop.name, tally.bounded, waiting, share, tally.bound, note))


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


def _hopeful_last(leaves: Leaves) -> Leaves:
    return leaves.take(np.argsort(leaves.value, kind="stable"))


def _timed_out(config: VerifyConfig) -> Unknown:
    return Unknown(f"timed out after {config.timeout:g} s")


def _pop(stack: Sequence[Leaves], size: int) -> tuple[list[Leaves], list[Leaves]]:
    """Up to ROUND batches of `size` leaves from the top of the stack, and what remains."""
    rest, taken, count = list(stack), [], 0
    while rest and count < size * ROUND:
        top = rest.pop()
        keep = max(0, len(top) - (size * ROUND - count))
        if keep:
            rest.append(top.take(np.arange(keep)))
            top = top.take(np.arange(keep, len(top)))
        taken.append(top)
        count += len(top)
    whole = join(taken)
    step = -(-count // ROUND)
    return [whole.take(np.arange(i, min(count, i + step))) for i in range(0, count, step)], rest
