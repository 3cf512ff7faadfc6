"""decide(): attack first, then branch and bound on inputs, depth first, batches of boxes on all cores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from sutura.bounds.program import Program
from sutura.bounds.program import run as values
from sutura.bounds.region import Region
from sutura.errors import MismatchError
from sutura.journal import Track
from sutura.progress import Listener, Progress, silent
from sutura.property.spec import Property
from sutura.verdict.attack import AttackConfig, attack
from sutura.verdict.deadline import Deadline, OutOfTimeError, within
from sutura.verdict.frontier import Advance, Waiting, advance, pop, waiting
from sutura.verdict.goal import Goal, goal, unsafe_margin
from sutura.verdict.narrow import narrow
from sutura.verdict.outcome import Account, Outcome, Proved, Unknown, Verdict, Violated, Witness
from sutura.verdict.replay import Runner, replay
from sutura.verdict.workers import workers

CHUNK = 32
"""Open boxes halved together, fewer where a network is large: see `_chunk`."""

ROUND = 8
"""Chunks taken from the stack at once. Fixed as the chunk is: results do not depend on the workers."""

ENTRIES = 1 << 20
"""Most numbers in the values of a chunk."""

EFFORTS = (AttackConfig(starts=8, steps=8), AttackConfig())
"""A short attack, then one bound of the whole box (often enough on large networks), then a long attack."""

REPLAYED = 32
"""Points of a round that are run in ONNX Runtime, one after the other where a file takes one at a time."""

FIRST_ATTACK, STARTS_PER_BOX = 256, 0.125
"""Each time the boxes bounded have doubled, from the first number on, an attack with this many new starts."""


@dataclass(frozen=True, slots=True)
class VerifyConfig:
    """Limits of a verification: wall seconds (None: no limit), worker threads (None: all cores), seed, and
    how many boxes may wait at once before the search gives up (bounds memory). `profile` is the execution
    that is proved (see `sutura.bounds.profile`), and `runtime` whose it is, where that was measured."""

    timeout: float | None = None
    workers: int | None = None
    seed: int = 0
    waiting: int = 2_000_000
    profile: str = "float32-any-order"
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Running figures of a search."""

    boxes: int = 0
    settled: float = 0.0
    bound: float | None = None
    chunk: int = CHUNK


def decide(
    program: Program,
    runner: Runner,
    prop: Property,
    config: VerifyConfig | None = None,
    *,
    listen: Listener = silent,
    track: Track | None = None,
) -> Outcome:
    """Decide whether the network has the property. Proved is sound for every float32 execution.

    `program` is the lowered network and `runner` the same network in ONNX Runtime. A witness is a float32
    point of the box whose replay is unsafe exactly. The search goes on from what `track` holds of it. Raises
    MismatchError where the sizes do not fit.
    """
    config = config or VerifyConfig()
    check_fit(program, prop)
    started = time.monotonic()
    deadline = within(config.timeout)
    tally = Tally(chunk=_chunk(program))
    verdict: Verdict = Proved()
    with workers(config.workers, track) as pool:
        for case in range(len(prop.cases)):
            found, tally = _decide_case(
                (program, runner, prop, case), config, deadline, (pool, tally, listen)
            )
            if isinstance(found, Violated):
                verdict = found
                break
            verdict = verdict if isinstance(found, Proved) else found
    share = tally.settled / max(1, len(prop.cases))
    seconds = time.monotonic() - started
    return Outcome(verdict, Account(tally.boxes, share, seconds, tally.bound, tally.chunk))


def check_fit(program: Program, prop: Property) -> None:
    """Raise MismatchError unless the property speaks of as many inputs and outputs as the network has."""
    if (program.inputs, program.outputs) != (prop.inputs, prop.outputs):
        raise MismatchError(
            f"property '{prop.name}' speaks of {prop.inputs} inputs and {prop.outputs} outputs, but the "
            f"network has {program.inputs} and {program.outputs}; is it the right pair of files?"
        )


def _chunk(program: Program) -> int:
    """How many boxes to halve together: bounded by memory, whatever the machine."""
    return max(1, min(CHUNK, ENTRIES // (2 * sum(program.sizes))))


@dataclass(frozen=True, slots=True)
class Problem:
    """One case of a property, with what it takes to decide it."""

    program: Program
    runner: Runner
    prop: Property
    case: int
    aim: Goal
    low: Float64[np.ndarray, " n"]
    high: Float64[np.ndarray, " n"]

    def attacked(self, config: AttackConfig, deadline: Deadline) -> Witness | None:
        """A witness, where an attack finds one."""
        found = attack(self.program, self.aim, self.low, self.high, config, deadline.check)
        return self.replayed([found])

    def replayed(self, parts: Sequence[Float64[np.ndarray, "k n"]]) -> Witness | None:
        """The first that ONNX Runtime finds unsafe, of the few points nearest to it in float64."""
        points = np.concatenate(parts) if parts else np.empty((0, len(self.low)))
        if not len(points):
            return None
        with np.errstate(all="ignore"):
            margin = unsafe_margin(self.aim, values(self.program, points)[-1]).min(axis=1)
        nearest = np.argsort(margin, kind="stable")[:REPLAYED]
        return replay(self.runner, self.prop, self.case, points[nearest])


def _decide_case(
    problem: tuple[Program, Runner, Property, int],
    config: VerifyConfig,
    deadline: Deadline,
    run: tuple[Executor, Tally, Listener],
) -> tuple[Verdict, Tally]:
    program, runner, prop, case = problem
    tally = run[1]
    aim = goal(prop.cases[case].unsafe, prop.outputs)
    if not len(aim.members):
        return Proved(), replace(tally, settled=tally.settled + 1.0)
    low, high = (v.astype(np.float64) for v in prop.cases[case].box.float32_hull())
    asked = Problem(program, runner, prop, case, aim, low, high)
    try:
        witness = asked.attacked(replace(EFFORTS[0], seed=config.seed), deadline)
        if witness is not None:
            return Violated(witness), tally
        first = narrow(program, aim, Region(low[None], high[None]), None, deadline.check)
        if first.safe.all():
            return Proved(), replace(tally, boxes=tally.boxes + 1, settled=tally.settled + 1.0)
        witness = asked.attacked(replace(EFFORTS[1], seed=config.seed), deadline)
        if witness is not None:
            return Violated(witness), tally
    except OutOfTimeError:
        return _timed_out(config), tally
    start = waiting(first, np.ones(1))
    tally = replace(tally, boxes=tally.boxes + 1, settled=tally.settled + 1.0 - float(start.share.sum()))
    return _search(asked, [start], config, deadline, (run[0], tally, run[2]))


def _search(
    problem: Problem,
    stack: list[Waiting],
    config: VerifyConfig,
    deadline: Deadline,
    run: tuple[Executor, Tally, Listener],
) -> tuple[Verdict, Tally]:
    """Branch and bound; whatever ends it, the tally says how far it came."""
    pool, tally, listen = run
    start, stuck, next_attack = tally.boxes, 0, FIRST_ATTACK
    try:
        while stack:
            tally = replace(tally, bound=min(float(w.margin.min()) for w in stack))
            waits = sum(len(w.region) for w in stack)
            listen(_moment(problem.prop, tally, waits))
            deadline.check()
            if waits > config.waiting:
                reason = f"more than {config.waiting:,} boxes wait: the memory limit of the search"
                return Unknown(reason), tally
            witness = None
            if tally.boxes - start >= next_attack:
                effort = AttackConfig(int(next_attack * STARTS_PER_BOX), seed=config.seed + next_attack)
                next_attack *= 2
                witness = problem.attacked(effort, deadline)
            batches, rest = pop(stack, tally.chunk, ROUND)
            done = [] if witness is not None else _halved(problem, batches, deadline, pool)
            if done is None:
                if tally.chunk == 1:
                    return Unknown("memory ran out with a single box"), tally
                tally = replace(tally, chunk=tally.chunk // 2)
                listen(_moment(problem.prop, tally, waits, f"memory ran out; chunks of {tally.chunk} now"))
                continue
            witness = witness or problem.replayed([d.corners for d in done])
            if witness is not None:
                return Violated(witness), tally
            stack = [*rest, *(d.open for d in done if len(d.open.region))]
            stuck += sum(d.stuck for d in done)
            boxes, settled = sum(d.boxes for d in done), sum(d.settled for d in done)
            tally = replace(tally, boxes=tally.boxes + boxes, settled=tally.settled + settled)
    except OutOfTimeError:
        return _timed_out(config), tally
    tally = replace(tally, bound=None, settled=tally.settled if stuck else float(round(tally.settled)))
    listen(_moment(problem.prop, tally, 0))
    if stuck:
        return Unknown(f"{stuck} single points lie within float32 rounding of the unsafe set"), tally
    return Proved(), tally


def _halved(
    problem: Problem, batches: Sequence[Waiting], deadline: Deadline, pool: Executor
) -> list[Advance] | None:
    """Every batch advanced; None where memory ran out."""

    def halve(batch: Waiting) -> Advance:
        return advance(problem.program, problem.aim, batch, deadline.check)

    try:
        return list(pool.map(halve, batches))
    except MemoryError:
        return None


def _moment(prop: Property, tally: Tally, waits: int, note: str = "") -> Progress:
    return Progress(prop.name, tally.boxes, waits, tally.settled / len(prop.cases), tally.bound, note)


def _timed_out(config: VerifyConfig) -> Unknown:
    return Unknown(f"timed out after {config.timeout:g} s")
