"""decide(): attack first, then branch and bound on inputs, depth first, batches of boxes on all cores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from sutura.bounds.crown import join
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.errors import MismatchError
from sutura.progress import Listener, Progress, silent
from sutura.property.spec import Property
from sutura.verdict.ahead import Advance, Waiting, advance, waiting
from sutura.verdict.attack import AttackConfig, attack
from sutura.verdict.deadline import Deadline, OutOfTimeError, within
from sutura.verdict.goal import Goal, goal
from sutura.verdict.outcome import Account, Outcome, Proved, Unknown, Verdict, Violated
from sutura.verdict.replay import Runner, replay
from sutura.verdict.step import step
from sutura.verdict.workers import workers

CHUNK = 32
"""Open boxes halved together."""

ROUND = 8
"""Chunks taken from the stack at once. Both are fixed: results do not depend on the number of workers."""


RULES = (3, 2, 1)
"""Levels from one look ahead to the next (see `advance`): one rule after the other."""

FIRST_TRY = 8_000
"""Boxes of a first try under a rule."""

EFFORTS = (AttackConfig(starts=8, steps=8), AttackConfig())
"""A short attack, then one bound of the whole box (often enough on large networks), then a long attack."""


@dataclass(frozen=True, slots=True)
class VerifyConfig:
    """Limits of a verification: wall seconds (None: no limit), worker threads (None: all cores), seed, and
    how many boxes may wait at once before the search gives up (bounds memory). `profile` is the execution
    that is proved (see `sutura.bounds.profile`)."""

    timeout: float | None = None
    workers: int | None = None
    seed: int = 0
    waiting: int = 2_000_000
    profile: str = "float32-any-order"


@dataclass(frozen=True, slots=True)
class Tally:
    """Running figures of a search."""

    boxes: int = 0
    settled: float = 0.0


def decide(
    program: Program,
    runner: Runner,
    prop: Property,
    config: VerifyConfig | None = None,
    *,
    listen: Listener = silent,
) -> Outcome:
    """Decide whether the network has the property. Proved is sound for every float32 execution.

    `program` is the lowered network and `runner` the same network in ONNX Runtime. A witness is a float32
    point of the box whose replay is unsafe exactly. Raises MismatchError where the sizes do not fit.
    """
    config = config or VerifyConfig()
    check_fit(program, prop)
    started = time.monotonic()
    deadline = within(config.timeout)
    tally = Tally()
    verdict: Verdict = Proved()
    with workers(config.workers) as pool:
        for case in range(len(prop.cases)):
            found, tally = _decide_case(
                (program, runner, prop, case), config, deadline, (pool, tally, listen)
            )
            if isinstance(found, Violated):
                verdict = found
                break
            verdict = verdict if isinstance(found, Proved) else found
    share = tally.settled / max(1, len(prop.cases))
    return Outcome(verdict, Account(tally.boxes, share, time.monotonic() - started))


def check_fit(program: Program, prop: Property) -> None:
    """Raise MismatchError unless the property speaks of as many inputs and outputs as the network has."""
    if (program.inputs, program.outputs) != (prop.inputs, prop.outputs):
        raise MismatchError(
            f"property '{prop.name}' speaks of {prop.inputs} inputs and {prop.outputs} outputs, but the "
            f"network has {program.inputs} and {program.outputs}; is it the right pair of files?"
        )


def _decide_case(
    problem: tuple[Program, Runner, Property, int],
    config: VerifyConfig,
    deadline: Deadline,
    run: tuple[ThreadPoolExecutor, Tally, Listener],
) -> tuple[Verdict, Tally]:
    program, runner, prop, case = problem
    aim = goal(prop.cases[case].unsafe, prop.outputs)
    if not len(aim.members):
        return Proved(), replace(run[1], settled=run[1].settled + 1.0)
    low, high = (v.astype(np.float64) for v in prop.cases[case].box.float32_hull())
    whole = Region(low[None], high[None])
    start: list[Waiting] = []
    try:
        for effort in EFFORTS:
            found = attack(program, aim, low, high, replace(effort, seed=config.seed), deadline.check)
            witness = replay(runner, prop, case, found)
            if witness is not None:
                return Violated(witness), run[1]
            if effort is EFFORTS[0]:
                first = step(program, aim, whole, None, deadline.check)
                start = [waiting(whole, first, np.zeros(1, dtype=np.int64))]
                if first.safe.all():
                    return Proved(), Tally(run[1].boxes + 1, run[1].settled + 1.0)
    except OutOfTimeError:
        return _timed_out(config), run[1]
    tally = run[1]
    for every, most in schedule():
        rule = (every, tally.boxes + most)
        verdict, ended = _search(problem, aim, start, rule, (config, deadline, run[0], tally, run[2]))
        if verdict is not None:
            return verdict, ended
        tally = replace(tally, boxes=ended.boxes)
    raise AssertionError("the schedule never ends")


def schedule() -> Iterator[tuple[int, int]]:
    """Rules of branching in turn, each with the boxes it is given before the next starts afresh.

    How long a search takes under one rule has a heavy tail: a short try under another rule is often quicker
    than a long one.
    """
    most = FIRST_TRY
    while True:
        for every in RULES:
            yield every, most
        most *= 4


def _search(
    problem: tuple[Program, Runner, Property, int],
    aim: Goal,
    stack: list[Waiting],
    rule: tuple[int, int],
    run: tuple[VerifyConfig, Deadline, ThreadPoolExecutor, Tally, Listener],
) -> tuple[Verdict | None, Tally]:
    """Branch and bound under one rule; no verdict where its boxes are used up."""
    config, deadline, pool, tally, listen = run
    program, runner, prop, case = problem
    every, most = rule

    def halve(batch: Waiting) -> Advance:
        return advance(program, aim, batch, every, deadline.check)

    stuck = 0
    while stack:
        if tally.boxes > most:
            return None, tally
        if deadline.passed:
            return _timed_out(config), tally
        if sum(len(w.region) for w in stack) > config.waiting:
            return Unknown(f"more than {config.waiting:,} boxes wait: the memory limit of the search"), tally
        batches, stack = _pop(stack, CHUNK, ROUND)
        try:
            done = list(pool.map(halve, batches))
        except OutOfTimeError:
            return _timed_out(config), tally
        points = np.concatenate([d.corners for d in done])
        witness = replay(runner, prop, case, points) if len(points) else None
        if witness is not None:
            return Violated(witness), tally
        stack = [*stack, *(d.open for d in done if len(d.open.region))]
        stuck += sum(d.stuck for d in done)
        tally = Tally(tally.boxes + sum(d.boxes for d in done), tally.settled + sum(d.settled for d in done))
        count = sum(len(w.region) for w in stack)
        listen(Progress(prop.name, tally.boxes, count, tally.settled / len(prop.cases)))
    if stuck:
        return Unknown(f"{stuck} single points lie within float32 rounding of the unsafe set"), tally
    return Proved(), tally


def _timed_out(config: VerifyConfig) -> Unknown:
    return Unknown(f"timed out after {config.timeout:g} s")


def _pop(stack: Sequence[Waiting], size: int, most: int) -> tuple[list[Waiting], list[Waiting]]:
    """Up to `most` chunks of `size` boxes from the top of the stack, and what remains."""
    rest, taken = list(stack), []
    while rest and len(taken) < most:
        parts, count = [], 0
        while rest and count < size:
            top = rest.pop()
            keep = len(top.region) - (size - count)
            if keep > 0:
                rest.append(top.take(np.arange(keep)))
                top = top.take(np.arange(keep, len(top.region)))
            parts.append(top)
            count += len(top.region)
        taken.append(_joined(parts))
    return taken, rest


def _joined(parts: Sequence[Waiting]) -> Waiting:
    if len(parts) == 1:
        return parts[0]
    return Waiting(
        Region(np.concatenate([p.region.low for p in parts]), np.concatenate([p.region.high for p in parts])),
        join([p.known for p in parts]),
        np.concatenate([p.depth for p in parts]),
        np.concatenate([p.promise for p in parts]),
    )
