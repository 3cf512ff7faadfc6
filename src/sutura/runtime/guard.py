"""The guard: checks what goes into a certified network and what comes out, and answers where it fails.

A certificate says that the property holds under its assumptions; the guard tests the property itself on every
output, so that it holds even where an assumption does not. Where an input lies in a certified box and its
output is unsafe all the same, an assumption was breached: the fallback answers, and the breach is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Float32, Int64

from sutura.errors import GuardError, MismatchError, NetworkError
from sutura.network.budget import shown_shape
from sutura.network.run import open_session, run
from sutura.property.spec import Property
from sutura.runtime.alarm import Alarm, open_log, write_log
from sutura.runtime.binding import Source, bind
from sutura.runtime.condition import Conditions, conditions
from sutura.runtime.rows import dispatcher
from sutura.runtime.single import single
from sutura.runtime.tally import Meter, Tally

Fallback = Literal["raise"] | Sequence[float] | Float32[np.ndarray, "*output_shape"] | Callable[[Alarm], Any]
"""What answers for a sample that is not handed on: an exception, one safe output, or a function of the alarm
that returns an output."""

KEPT = 1000
"""Breaches kept in memory; all are counted and logged."""

FLOAT32 = np.dtype(np.float32)

NOT_ASKED = -1
"""Row of a sample that never reached the network."""


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """`inputs`: whether samples outside every certified box are handed to the network ("any": of these the
    certificate says nothing) or answered by the fallback ("certified"). `stop`: after a breach everything is
    answered by the fallback. `log`: a file that gets a line for every breach, and that makes a guard started
    later remember them. `check`: prove the certificate again at the start (else compare digests only, which
    is enough for files that were checked before). `threads`: of ONNX Runtime. `optimise`: let ONNX Runtime
    rewrite the graph, which the certificate does not speak of."""

    inputs: Literal["any", "certified"] = "any"
    stop: bool = False
    log: Path | None = None
    check: bool = True
    threads: int = 1
    optimise: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Outputs for a batch; for each sample the gate row it met (NOT_ASKED where it never reached the network)
    and whether the output is the fallback's; the alarms, one for each such sample, in order."""

    outputs: Float32[np.ndarray, "batch *output_shape"]
    rows: Int64[np.ndarray, " batch"]
    fallback: Bool[np.ndarray, " batch"]
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """A batch: the cases that each input lies in, the cause of its alarm ("" where there is none), output."""

    x: Float32[np.ndarray, "batch *input_shape"]
    inside: Bool[np.ndarray, "batch cases"]
    causes: tuple[str, ...]
    outputs: Float32[np.ndarray, "batch m"]
    rows: Int64[np.ndarray, " batch"]


@final
class Guard:
    """A certified network in ONNX Runtime, watched: `guard(x)` gives outputs, each safe where it must be.

    `Guard("fixed.onnx", "fixed.cert.json")` finds the properties beside the certificate, or takes their files
    (or Property objects). Float32 batches go in (batch first), float32 batches come out. An input that is not
    finite, an output that is not, and an output that is unsafe in a box (rounded outward to float32) that
    holds its input are never handed on; comparisons are exact, so the guarantee rests on no arithmetic. Safe
    for several threads. Raises GuardError at the start where files do not belong together or the certificate
    is refused, MismatchError where the fallback's output is unsafe in some case or has another size.
    """

    def __init__(
        self,
        network: Source,
        certificate: Source,
        properties: Sequence[Path | str | Property] | None = None,
        *,
        fallback: Fallback = "raise",
        config: GuardConfig | None = None,
    ) -> None:
        self.config = config or GuardConfig()
        bound = bind(network, certificate, properties, prove=self.config.check)
        self.certificate = bound.digest
        self.properties = bound.properties
        self._session = open_session(
            bound.network, threads=self.config.threads, optimise=self.config.optimise, gated=True
        )
        self.input_shape = self._session.input_shape
        self.names = (self._session.input, self._session.output)
        self._size = bound.properties[0].outputs
        self._tested = conditions(bound.properties)
        self._single = single(self._tested)
        self._rows = dispatcher(bound.network)
        self._meter = Meter(self._rows.rows)
        self._fallback = _prepared(fallback, self._tested, self._size)
        self._breaches: tuple[Alarm, ...] = ()
        self._earlier = 0 if self.config.log is None else open_log(self.config.log)
        probe = run(self._session, np.zeros((1, *self.input_shape), np.float32))
        self.output_shape: tuple[int, ...] = probe.shape[1:]
        _check_sizes(bound.properties[0], math.prod(self.input_shape), probe.size)

    def __call__(self, x: Float32[np.ndarray, "batch *input_shape"]) -> Float32[np.ndarray, "batch *shape"]:
        """The outputs alone; see `answer`."""
        found = self._served(x)
        return found.outputs if isinstance(found, Answer) else found[0]

    def answer(self, x: Float32[np.ndarray, "batch *input_shape"]) -> Answer:
        """Run a batch under guard.

        Raises MismatchError for another shape or type than float32 in batches, and GuardError where a sample
        is not handed on and the fallback is to raise, or gives an output that is itself unsafe.
        """
        found = self._served(x)
        if isinstance(found, Answer):
            return found
        outputs, row = found
        return Answer(outputs, np.array([row], np.int64), np.zeros(1, np.bool_), ())

    @property
    def tally(self) -> Tally:
        """What was counted so far."""
        return self._meter.tally()

    @property
    def breaches(self) -> tuple[Alarm, ...]:
        """The first breaches of this guard, at most KEPT of them; they stay."""
        return self._breaches

    @property
    def breached(self) -> bool:
        """Whether there was ever a breach, in this guard or in an earlier one with the same log; stays."""
        return self._earlier > 0 or self._meter.breaches > 0

    @property
    def ready(self) -> bool:
        """Whether the network still answers: False once a breach has stopped it."""
        return not (self.config.stop and self.breached)

    def document(self) -> dict[str, Any]:
        """Counters as one JSON object, with what they belong to."""
        return {
            "schema": "sutura/guard",
            "version": 1,
            "certificate": self.certificate,
            "properties": [p.name for p in self.properties],
            "ready": self.ready,
            "breached": self.breached,
            "earlier_breaches": self._earlier,
            **self.tally.document(),
        }

    def _check_shape(self, x: Any) -> None:
        fits = isinstance(x, np.ndarray) and x.dtype == FLOAT32 and x.shape[1:] == self.input_shape
        if fits and x.ndim and len(x):
            return
        self._meter.refused()
        got = f"{x.dtype} of shape {shown_shape(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        raise MismatchError(
            f"inputs are {got}; the guarded network takes float32 in batches of "
            f"{shown_shape(self.input_shape)}"
        )

    def _served(
        self, x: Float32[np.ndarray, "batch *input_shape"]
    ) -> Answer | tuple[Float32[np.ndarray, "1 *output_shape"], int]:
        """An answer; or outputs and gate row of one sample that the quick tests hand on. Where one of these
        fails, the tests of a batch say what is wrong."""
        began = time.perf_counter()
        self._check_shape(x)
        if len(x) != 1 or self._single is None or not self.ready:
            return self._batch(x, began)
        flat = x.reshape(-1)
        point: list[float] = flat.tolist()
        cases = self._single.holding(flat, point)
        if cases is None or not (cases or self.config.inputs == "any"):
            return self._batch(x, began)
        raw, inference = self._raw(x)
        if raw is None or not self._single.passes(cases, raw.tolist()):
            return self._batch(x, began, (raw, inference))
        row = self._rows.of(point)
        self._meter.sample(bool(cases), row, inference, time.perf_counter() - began - inference)
        return raw.reshape(1, *self.output_shape), row

    def _batch(
        self,
        x: Float32[np.ndarray, "batch *input_shape"],
        began: float,
        ran: tuple[Float32[np.ndarray, " numbers"] | None, float] | None = None,
    ) -> Answer:
        """Any batch; `ran` is what the network already gave for all of it, with the seconds it took."""
        judged, inference = self._judged(x, ran)
        alarms = self._alarms(judged) if any(judged.causes) else ()
        inside, rows = int(judged.inside.any(axis=1).sum()), judged.rows.tolist()
        self._meter.batch(inside, rows, inference, time.perf_counter() - began - inference)
        if alarms:
            self._latch(alarms)
            judged.outputs[judged.rows == NOT_ASKED] = np.nan
        outputs = self._substituted(judged, alarms) if alarms else judged.outputs
        fallback = np.array([cause != "" for cause in judged.causes])
        return Answer(outputs.reshape(len(x), *self.output_shape), judged.rows, fallback, alarms)

    def _raw(
        self, x: Float32[np.ndarray, "batch *input_shape"]
    ) -> tuple[Float32[np.ndarray, " numbers"] | None, float]:
        """What ONNX Runtime gives, flat, None where it is no float32 output of the right size; seconds."""
        began = time.perf_counter()
        try:
            raw: Any = run(self._session, x)
        except NetworkError:
            raw = None
        inference = time.perf_counter() - began
        if raw is None or raw.dtype != FLOAT32 or raw.size != len(x) * self._size:
            return None, inference
        return raw.reshape(-1), inference

    def _judged(
        self,
        x: Float32[np.ndarray, "batch *input_shape"],
        ran: tuple[Float32[np.ndarray, " numbers"] | None, float] | None,
    ) -> tuple[_Judged, float]:
        """Check the inputs, run those that may go in, check the outputs; also the seconds of the run."""
        flat = x.reshape(len(x), -1)
        inside = self._tested.boxes.holding(flat)
        causes = self._refused(flat, np.logical_or.reduce(inside, axis=1))
        asked = np.flatnonzero(causes == "")
        outputs = np.full((len(x), self._size), np.nan, np.float32)
        rows = np.full(len(x), NOT_ASKED, np.int64)
        raw, inference = None, 0.0
        if len(asked):
            rows[asked] = self._rows(flat[asked])
            raw, inference = ran or self._raw(x if len(asked) == len(x) else x[asked])
            if raw is None:
                causes[asked] = "inference_failed"
            else:
                outputs[asked] = raw = raw.reshape(len(asked), -1)
                causes[asked] = self._verdicts(inside[asked], raw)
        return _Judged(x, inside, tuple(causes.tolist()), outputs, rows), inference

    def _refused(
        self, flat: Float32[np.ndarray, "batch n"], certified: Bool[np.ndarray, " batch"]
    ) -> np.ndarray:
        """For each input why it does not go in, "" where it does."""
        causes = np.full(len(flat), "", dtype=object)
        if self.config.inputs == "certified":
            causes[~certified] = "input_outside"
        causes[~np.isfinite(flat).all(axis=1)] = "input_not_finite"
        if not self.ready:
            causes[:] = "stopped"
        return causes

    def _verdicts(
        self, inside: Bool[np.ndarray, "batch cases"], y: Float32[np.ndarray, "batch m"]
    ) -> np.ndarray:
        """For each output why it is not handed on, "" where it is."""
        causes = np.full(len(y), "", dtype=object)
        causes[self._tested.broken(inside, y)] = "output_unsafe"
        causes[~np.isfinite(y).all(axis=1)] = "output_not_finite"
        return causes

    def _alarms(self, judged: _Judged) -> tuple[Alarm, ...]:
        now = time.time()
        flat = judged.x.reshape(len(judged.x), -1)
        found: list[Alarm] = []
        for at, cause in enumerate(judged.causes):
            if not cause:
                continue
            output = judged.outputs[at].copy() if cause.startswith("output") else None
            name = "" if output is None else self._tested.first_broken(judged.inside[at], output)
            breach = cause in BREACHES and bool(judged.inside[at].any())
            found.append(Alarm(cause, name, flat[at].copy(), output, int(judged.rows[at]), now, breach))
        return tuple(found)

    def _latch(self, alarms: Sequence[Alarm]) -> None:
        """Count alarms and keep breaches; they are on the disk before this returns."""
        latched = tuple(alarm for alarm in alarms if alarm.breach)
        log = self.config.log
        lost = latched and log is not None and not write_log(log, latched)
        self._breaches = (*self._breaches, *latched)[:KEPT]
        self._meter.alarms(alarms, len(latched) if lost else 0)

    def _substituted(self, judged: _Judged, alarms: Sequence[Alarm]) -> Float32[np.ndarray, "batch m"]:
        """The outputs, with those of the fallback where there is an alarm."""
        places = [at for at, cause in enumerate(judged.causes) if cause]
        if isinstance(self._fallback, str):
            raise GuardError(f"sample {places[0]} of {len(judged.x)} is not handed on: {alarms[0]}")
        outputs = judged.outputs.copy()
        for at, alarm in zip(places, alarms, strict=True):
            outputs[at] = self._substitute(alarm, judged.inside[at])
        return outputs

    def _substitute(self, alarm: Alarm, inside: Bool[np.ndarray, " cases"]) -> Float32[np.ndarray, " m"]:
        if not callable(self._fallback):
            return self._fallback
        given: Any = np.asarray(self._fallback(alarm))
        if given.dtype.kind not in "fiu" or given.size != self._size:
            raise GuardError(
                f"the fallback gives {given.dtype} of shape {shown_shape(given.shape)} where {self._size} "
                f"numbers are needed ({alarm})"
            )
        with np.errstate(over="ignore"):
            output = given.astype(np.float32).reshape(-1)
        name = self._tested.first_broken(inside, output)
        if name or not np.isfinite(output).all():
            raise GuardError(f"the fallback's own output is {'unsafe' if name else 'not finite'} ({alarm})")
        return output


def _check_sizes(prop: Property, inputs: int, outputs: int) -> None:
    if (prop.inputs, prop.outputs) != (inputs, outputs):
        raise MismatchError(
            f"property '{prop.name}' speaks of {prop.inputs} inputs and {prop.outputs} outputs, but the "
            f"network has {inputs} and {outputs}; is it the right pair of files?"
        )


def _prepared(fallback: Any, tested: Conditions, size: int) -> Any:
    """The fallback; an output is checked against every case, since it may have to serve in each."""
    if callable(fallback) or (isinstance(fallback, str) and fallback == "raise"):
        return fallback
    try:
        output = np.array(fallback, dtype=np.float32).reshape(-1)
    except (TypeError, ValueError):
        raise MismatchError(
            f"the fallback {fallback!r} is unknown; give 'raise', an output, or a function of the alarm"
        ) from None
    if len(output) != size or not np.isfinite(output).all():
        raise MismatchError(
            f"the safe output has {len(output)} numbers, or one that is not finite; the network gives {size}"
        )
    if name := tested.unsafe_somewhere(output):
        raise MismatchError(
            f"the safe output is unsafe in property '{name}'; choose another, or give a function of the alarm"
        )
    return output


BREACHES = frozenset({"output_unsafe", "output_not_finite", "inference_failed"})
"""Causes that, for an input in a certified box, mean that an assumption of the certificate was breached."""
