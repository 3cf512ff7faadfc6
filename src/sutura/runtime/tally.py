"""What a guard has counted: plain numbers, added up and never taken back."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

from sutura.runtime.alarm import CAUSES, Alarm


@dataclass(frozen=True, slots=True)
class Tally:
    """Calls and samples; samples in some certified box; alarms by cause (each was answered by the fallback);
    breaches.

    `gate_rows[r]` counts the samples that met row r of the gate tables (0: no gate). Seconds are wall time of
    ONNX Runtime and of all that the guard adds. `refused_calls` had another type or shape. `unlogged` counts
    breaches that could not be written to the log.
    """

    calls: int
    refused_calls: int
    samples: int
    inside: int
    breaches: int
    unlogged: int
    alarms: Mapping[str, int]
    gate_rows: tuple[int, ...]
    inference_seconds: float
    guard_seconds: float

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@final
class Meter:
    """Adds up what happens, from several threads."""

    def __init__(self, rows: int) -> None:
        self._lock = threading.Lock()
        self._calls = self._refused = self._samples = self._inside = self._breaches = self._unlogged = 0
        self._alarms = dict.fromkeys(CAUSES, 0)
        self._rows = [0] * rows
        self._inference = self._guard = 0.0

    def refused(self) -> None:
        """A call of another type or shape."""
        with self._lock:
            self._calls += 1
            self._refused += 1

    def sample(self, inside: bool, row: int, inference: float, guard: float) -> None:
        """One sample that was handed on."""
        with self._lock:
            self._calls += 1
            self._samples += 1
            self._inside += inside
            self._rows[row] += 1
            self._inference += inference
            self._guard += guard

    def batch(self, inside: int, rows: Sequence[int], inference: float, guard: float) -> None:
        """A batch, by the rows that its samples met (-1: never asked)."""
        with self._lock:
            self._calls += 1
            self._samples += len(rows)
            self._inside += inside
            for row in rows:
                if row >= 0:
                    self._rows[row] += 1
            self._inference += inference
            self._guard += guard

    def alarms(self, found: Sequence[Alarm], unlogged: int) -> None:
        """Samples that were not handed on."""
        with self._lock:
            self._unlogged += unlogged
            for alarm in found:
                self._alarms[alarm.cause] += 1
                self._breaches += alarm.breach

    @property
    def breaches(self) -> int:
        """How many there were."""
        return self._breaches

    def tally(self) -> Tally:
        """All of it at one moment."""
        with self._lock:
            return Tally(
                self._calls,
                self._refused,
                self._samples,
                self._inside,
                self._breaches,
                self._unlogged,
                dict(self._alarms),
                tuple(self._rows),
                self._inference,
                self._guard,
            )
