"""One property cut into parts that are jobs of their own, and their verdicts joined to one.

The input boxes are halved where the bounds promise most, as the search does it, until enough are open; what
is proved on the way needs no job. Together the parts hold every float32 input that is not proved yet, so the
property is proved where all of them are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float64

from sutura.bounds.lower import lower
from sutura.bounds.profile import EXECUTIONS, under
from sutura.bounds.program import Program
from sutura.bounds.region import Region
from sutura.campaign.executor import Ended, Executor, carried_out
from sutura.campaign.task import Limits, Task, task
from sutura.certificate.claim import claim
from sutura.errors import CampaignError
from sutura.network.read import load
from sutura.progress import Listener, Progress, silent
from sutura.property.spec import Box, Case, Property, violates
from sutura.property.write import write
from sutura.verdict.deadline import Deadline, within
from sutura.verdict.frontier import advance, waiting
from sutura.verdict.goal import goal
from sutura.verdict.narrow import narrow
from sutura.verdict.outcome import Account, Outcome, Proved, Unknown, Verdict, Violated, Witness
from sutura.verdict.search import VerifyConfig, check_fit
from sutura.verdict.strategy import FEW_INPUTS, varying
from sutura.verdict.verify import verify

Answer = Mapping[str, Any]
"""A document of `sutura.campaign.task.decide`."""

LOOK = 1.0
"""Seconds of ordinary search before a property is cut: most are decided by then."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a property: the case of the whole that it belongs to, and the share that it stands for."""

    property: Property
    case: int
    share: float


@dataclass(frozen=True, slots=True)
class Cut:
    """A property cut up: the parts left open, the share proved on the way, and the boxes bounded for it."""

    parts: tuple[Part, ...]
    settled: float
    boxes: int


def verify_split(
    network: tuple[bytes, str],
    prop: Property,
    executor: Executor,
    config: VerifyConfig,
    *,
    parts: int,
    listen: Listener = silent,
) -> Outcome:
    """Decide as `verify` does, the hard properties in at least `parts` parts. `network` is a file's bytes and
    its name. Give it an executor of its own, and close that when it returns: after a violated part nothing
    else is waited for.

    Proved is sound for every execution of the profile of `config`: all parts are, and what was proved on the
    way, under the same profile. A witness is replayed in ONNX Runtime by its part, and tested against the
    whole property exactly. Raises as `verify` does, and CampaignError where many inputs vary, whose search
    splits neurons instead, or a worker refuses.
    """
    started, deadline = time.monotonic(), within(config.timeout)
    if varying(prop) > FEW_INPUTS:
        raise CampaignError(
            f"{prop.name} has {varying(prop)} varying inputs; --split serves up to {FEW_INPUTS}, leave it out"
        )
    loaded = load(network[0], name=network[1])
    look = replace(config, timeout=LOOK if config.timeout is None else min(LOOK, config.timeout))
    first = verify(loaded, prop, look, listen=listen)
    if not isinstance(first.verdict, Unknown) or deadline.passed:
        return first
    operators = {type(node.op).__name__ for node in loaded.network.nodes}
    found = cut(under(lower(loaded.network), EXECUTIONS[config.profile], operators), prop, parts)
    answers = _answered(found, _tasks(found, network, config, deadline), executor, (prop, listen))
    verdict = joined(prop, found, answers)
    if isinstance(verdict, Proved):
        verdict = Proved(claim(config.profile, operators, config.runtime))
    return Outcome(verdict, _account(prop, found, answers, time.monotonic() - started))


def cut(program: Program, prop: Property, least: int) -> Cut:
    """Halve the boxes of every case until `least` parts of it are open, or none, or one cannot be halved."""
    check_fit(program, prop)
    parts: list[Part] = []
    settled, boxes = 0.0, 0
    for at, case in enumerate(prop.cases):
        aim = goal(case.unsafe, prop.outputs)
        if not len(aim.members):
            settled += 1.0
            continue
        low, high = (v.astype(np.float64)[None] for v in case.box.float32_hull())
        now = waiting(narrow(program, aim, Region(low, high)), np.ones(1))
        boxes += 1
        while 0 < len(now.region) < least:
            after = advance(program, aim, now, lambda: None)
            if after.stuck:
                break
            now, boxes = after.open, boxes + after.boxes
        found = [
            Part(_piece(prop, case, low, high, f"{prop.name}.{at}.{row}"), at, float(share))
            for row, (low, high, share) in enumerate(
                zip(now.region.low, now.region.high, now.share, strict=True)
            )
        ]
        parts += found
        settled += 1.0 - sum(part.share for part in found)
    return Cut(tuple(parts), settled, boxes)


def joined(prop: Property, found: Cut, answers: Sequence[Answer | None]) -> Verdict:
    """Violated if a part is; proved if all are (holds-real counts, and the claim says so); else unknown.

    A part without an answer is unknown. Raises CampaignError where a part could not be decided as it is.
    """
    open_parts = 0
    reason = ""
    for part, said in zip(found.parts, answers, strict=True):
        word = "unknown" if said is None else said["verdict"]
        if said is not None and word == "error":
            raise CampaignError(f"{part.property.name}, a part, could not be decided: {said['reason']}")
        if said is not None and word == "violated":
            witness = _witness(said, part.case)
            if violates(prop, witness.input, witness.output):
                return Violated(witness)
            word, said = "unknown", {**said, "reason": "a witness lies beside the box, within rounding"}
        if word == "unknown":
            open_parts += 1
            reason = reason or ("it was not begun" if said is None else said["reason"])
    if open_parts:
        return Unknown(f"{open_parts} of {len(found.parts)} parts are undecided; the first: {reason}")
    return Proved()


def _tasks(
    found: Cut, network: tuple[bytes, str], config: VerifyConfig, deadline: Deadline
) -> Iterator[Task]:
    """A task for each part, in order, with the time that is left when it is asked for; none after that."""
    data, name = network
    for part in found.parts:
        left = None if config.timeout is None else deadline.at - time.monotonic()
        if left is not None and left <= 0:
            return
        limits = Limits(left, config.seed, config.profile, config.runtime)
        yield task(data, part.property.text, (name, part.property.name), limits)


def _answered(
    found: Cut, tasks: Iterator[Task], executor: Executor, telling: tuple[Property, Listener]
) -> list[Answer | None]:
    """The answer of each part, None where there is none: time is up, or another part is violated."""
    prop, listen = telling
    place: dict[str, int] = {}

    def numbered() -> Iterator[Task]:
        for at, job in enumerate(tasks):
            place[job.key] = at
            yield job

    answers: list[Answer | None] = [None] * len(found.parts)
    with closing(carried_out(numbered(), executor)) as steps:
        for event in (event for step in steps for event in step if isinstance(event, Ended)):
            answers[place[event.key]] = event.answer
            listen(_moment(prop, found, answers))
            if event.answer["verdict"] == "violated":
                break
    return answers


def _moment(prop: Property, found: Cut, answers: Sequence[Answer | None]) -> Progress:
    now = _account(prop, found, answers, 0.0)
    return Progress(prop.name, now.boxes, sum(a is None for a in answers), now.proved_share, now.bound)


def _account(prop: Property, found: Cut, answers: Sequence[Answer | None], seconds: float) -> Account:
    said = [answer or {} for answer in answers]
    proved = [a.get("proved_share", 0.0) for a in said]
    share = found.settled + sum(part.share * p for part, p in zip(found.parts, proved, strict=True))
    bounds = [a["bound"] for a in said if a.get("bound") is not None]
    boxes = found.boxes + sum(a.get("boxes", 0) for a in said)
    whole = all(p == 1.0 for p in proved)  # then the sum is 1 but for its rounding
    return Account(
        boxes,
        1.0 if whole else share / len(prop.cases),
        seconds,
        None if whole else min(bounds, default=None),
    )


def _piece(
    prop: Property, case: Case, low: Float64[np.ndarray, " n"], high: Float64[np.ndarray, " n"], name: str
) -> Property:
    """The property on a box of float32 ends, less what lies beyond the case's own box if that leaves a box.

    Its ends round outward to the float32 ends again, so that no float32 input is missed.
    """
    lower_ends = [max(Fraction(v), end) for v, end in zip(low.tolist(), case.box.lower, strict=True)]
    upper_ends = [min(Fraction(v), end) for v, end in zip(high.tolist(), case.box.upper, strict=True)]
    sides = [
        (a, b) if a <= b else (Fraction(v), Fraction(w))
        for a, b, v, w in zip(lower_ends, upper_ends, low.tolist(), high.tolist(), strict=True)
    ]
    cases = (Case(Box(tuple(a for a, _ in sides), tuple(b for _, b in sides)), case.unsafe),)
    text = write(prop.inputs, prop.outputs, cases)
    return Property(name, prop.inputs, prop.outputs, cases, text)


def _witness(said: Answer, case: int) -> Witness:
    given = said["witness"]
    x = np.array([float.fromhex(v) for v in given["input_hex"]], dtype=np.float32)
    return Witness(x, np.array(given["output"], dtype=np.float32), case)
