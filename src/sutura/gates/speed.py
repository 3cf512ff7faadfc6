"""How much longer a repaired network runs than the original, in ONNX Runtime."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from sutura.network.run import Session

ROUNDS = {1: 400, 1024: 60}
"""Interleaved runs by batch size, at least: the least time of each network counts."""

SECONDS = 0.5
"""CPU time to go on for: the least of a few runs of a small network is that of a busy moment."""

BURST = 32
"""Samples run in one measurement, at least."""


@dataclass(frozen=True, slots=True)
class Speed:
    """CPU seconds of one run before and after the repair, one thread, and their ratio."""

    batch: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before


def speed(sessions: tuple[Session, Session], x: Float32[np.ndarray, "batch n"]) -> Speed:
    """Least CPU time of interleaved runs of both networks on a batch of flat inputs: an estimate."""
    best = [np.inf, np.inf]
    repeats = max(1, BURST // len(x))
    rounds, began = 0, time.thread_time()
    while rounds < ROUNDS.get(len(x), 60) or time.thread_time() - began < SECONDS:
        rounds += 1
        for at, session in enumerate(sessions):
            shaped = x.reshape(len(x), *session.input_shape)
            started = time.thread_time()
            for _ in range(repeats):
                session.runtime.run([session.output], {session.input: shaped})
            best[at] = min(best[at], (time.thread_time() - started) / repeats)
    return Speed(len(x), best[0], best[1])
