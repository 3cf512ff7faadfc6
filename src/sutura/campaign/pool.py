"""A pool of processes: a dead worker costs the one job it held, and a fresh one takes its place.

The standard library's pool is broken as a whole once a process of it dies, and does not say which job it was.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import sys
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import final

from sutura.campaign.executor import Ended, Event, Executor, Lost, Started
from sutura.campaign.task import Task
from sutura.campaign.worker import send, serve


@dataclass(frozen=True, slots=True, eq=False)
class _Worker:
    """A process and our end of its pipe."""

    process: SpawnProcess
    pipe: Connection


@final
class Pool(Executor):
    """`workers` processes of one thread each, started when there is something for them to do."""

    def __init__(self, workers: int) -> None:
        self._count = workers
        self._idle: list[_Worker] = []
        self._busy: dict[str, _Worker] = {}
        self._news: list[Event] = []

    @property
    def room(self) -> int:
        """One task a worker."""
        return self._count

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return tuple(w.process.pid or 0 for w in (*self._busy.values(), *self._idle))

    def submit(self, job: Task) -> None:
        """Give the task to an idle worker, or to a new one."""
        self._idle = [worker for worker in self._idle if worker.process.is_alive()]
        worker = self._idle.pop() if self._idle else _started()
        self._busy[job.key] = worker
        self._news.append(Started(job.key, f"process {worker.process.pid}"))
        with contextlib.suppress(OSError):  # a worker that has just died: its pipe says so when it is read
            send(worker.pipe, job)

    def events(self, within: float) -> list[Event]:
        """What began, ended or was lost; waits at most so many seconds."""
        pipes = {worker.pipe: key for key, worker in self._busy.items()}
        ready = wait(list(pipes), 0.0 if self._news else within)
        happened = [*self._news, *(self._heard(pipes[pipe]) for pipe in pipes if pipe in ready)]
        self._news = []
        return happened

    def close(self) -> None:
        """Kill every worker: what they hold is not recorded, and will be done again."""
        workers = [*self._busy.values(), *self._idle]
        self._busy, self._idle = {}, []
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()

    def _heard(self, key: str) -> Event:
        worker = self._busy.pop(key)
        try:
            answer = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            worker.process.join()
            worker.pipe.close()
            return Lost(key, _ending(worker.process.exitcode))
        self._idle.append(worker)
        return Ended(key, answer)


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
