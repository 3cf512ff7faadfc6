"""A pool of processes: a dead worker costs the one job it held, and a fresh one takes its place.

The standard library's pool is broken as a whole once a process of it dies, and does not say which job it was.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import final

from sutura.campaign.executor import MOST_DEATHS, Ended, Event, Executor, Lost, Started
from sutura.campaign.task import Task
from sutura.campaign.worker import send, serve

GRACE = 60.0
"""Seconds beyond twice its limit after which a job is taken for stuck; limits end jobs in good time."""


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    """A process and our end of its pipe."""

    process: SpawnProcess
    pipe: Connection


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """The worker that has a job, and the moment (monotonic clock) at which it is ended if it still has."""

    worker: _Worker
    until: float


@final
class Pool(Executor):
    """`workers` processes of one thread each, started when there is something for them to do."""

    def __init__(self, workers: int) -> None:
        self._count = workers
        self._idle: list[_Worker] = []
        self._busy: dict[str, _Held] = {}
        self._news: list[Event] = []

    @property
    def room(self) -> int:
        """One task a worker."""
        return self._count

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return tuple(w.process.pid or 0 for w in self._all())

    def submit(self, job: Task) -> None:
        """Give the task to an idle worker, or to a new one."""
        self._idle = [worker for worker in self._idle if worker.process.is_alive()]
        worker = self._idle.pop() if self._idle else _started()
        limit = job.limits.timeout
        self._busy[job.key] = _Held(
            worker, math.inf if limit is None else time.monotonic() + 2 * limit + GRACE
        )
        self._news.append(Started(job.key, f"process {worker.process.pid}"))
        with contextlib.suppress(OSError):  # a worker that has just died: its pipe says so when it is read
            send(worker.pipe, job)

    def events(self, within: float) -> list[Event]:
        """What began, ended or was lost; waits at most so many seconds."""
        for held in self._busy.values():
            if time.monotonic() > held.until:
                held.worker.process.kill()
        pipes = {held.worker.pipe: key for key, held in self._busy.items()}
        ready = wait(list(pipes), 0.0 if self._news else within)
        happened = [*self._news, *(self._heard(pipes[pipe]) for pipe in pipes if pipe in ready)]
        self._news = []
        return happened

    def close(self) -> None:
        """Kill every worker: what they hold is not recorded, and will be done again."""
        workers = self._all()
        self._busy, self._idle = {}, []
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()

    def _heard(self, key: str) -> Event:
        held = self._busy.pop(key)
        worker = held.worker
        try:
            answer = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            worker.process.join()
            worker.pipe.close()
            if time.monotonic() > held.until:
                return Lost(key, "ended, twice its limit and a minute late", MOST_DEATHS)
            return Lost(key, _ending(worker.process.exitcode))
        self._idle.append(worker)
        return Ended(key, answer)

    def _all(self) -> list[_Worker]:
        return [*(held.worker for held in self._busy.values()), *self._idle]


def _started() -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    with _interrupts_held():
        process.start()
    theirs.close()  # so that the pipe ends with the worker
    return _Worker(process, ours)


@contextlib.contextmanager
def _interrupts_held() -> Generator[None]:
    """Ctrl-C waits; a process started in the block never hears it, from its first moment on."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"a worker ended with code {code}"
    names = {int(s): s.name for s in signal.Signals}
    hint = "; the system does so when memory runs out" if -code == signal.SIGKILL else ""
    return f"a worker was ended by {names.get(-code, f'signal {-code}')}{hint}"
