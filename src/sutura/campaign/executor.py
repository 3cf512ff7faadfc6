"""Who carries jobs out: one abstract executor, what it reports, and the loop that feeds it.

An executor knows nothing of lists and stores. It is given tasks, and says of each when a worker began it,
when it ended, and when its worker was lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, final

from sutura.campaign.task import Task, decide, given_up

MOST_DEATHS = 3
"""A job that so many workers died of is given up."""

BEAT = 1.0
"""Seconds after which a loop with nothing to report comes back all the same."""


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun the job; whoever had begun it before is gone."""

    key: str
    worker: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is done; `answer` is its document (see `sutura.campaign.task`)."""

    key: str
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """`deaths` workers died of the job, and it is nobody's now."""

    key: str
    reason: str
    deaths: int = 1


Event = Started | Ended | Lost


class Executor(ABC):
    """Carries tasks out while it is open; leaving it ends whatever still runs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def room(self) -> int:
        """How many tasks it can hold at once with profit."""

    @abstractmethod
    def submit(self, job: Task) -> None:
        """Take on a task; at most `room` at once."""

    @abstractmethod
    def events(self, within: float) -> list[Event]:
        """What happened since; waits at most so many seconds for something to happen.

        Raises CampaignError where there is nobody left to carry anything out.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers that are its own."""


@final
class Serial(Executor):
    """In this process, one after the other."""

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()
        self._begun = False

    @property
    def room(self) -> int:
        """One."""
        return 1

    def submit(self, job: Task) -> None:
        """Take on a task."""
        self._waiting.append(job)

    def events(self, within: float) -> list[Event]:
        """First that the task has begun; asked again, its end, however long that takes."""
        if not self._waiting:
            return []
        self._begun = not self._begun
        if self._begun:
            return [Started(self._waiting[0].key, "this process")]
        job = self._waiting.popleft()
        return [Ended(job.key, decide(job))]

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()


def carried_out(tasks: Iterable[Task], executor: Executor) -> Generator[list[Event]]:
    """Feed tasks to an executor, and pass on what happens, in steps that take a second at most.

    A task is taken only when there is room for it, so that few are in memory at once. One that is lost goes
    back; after MOST_DEATHS it ends as unknown, with the reason.
    """
    waiting, again = iter(tasks), deque[Task]()
    flying: dict[str, Task] = {}
    deaths: Counter[str] = Counter()
    while True:
        while len(flying) < executor.room:
            job = again.popleft() if again else next(waiting, None)
            if job is None:
                break
            flying[job.key] = job
            executor.submit(job)
        if not flying:
            return
        happened: list[Event] = []
        for event in executor.events(BEAT):
            happened.append(event)
            if isinstance(event, Started):
                continue
            job = flying.pop(event.key)
            if isinstance(event, Lost):
                deaths[job.key] += event.deaths
                if deaths[job.key] < MOST_DEATHS:
                    again.append(job)
                else:
                    why = f"given up after {deaths[job.key]} workers: {event.reason}"
                    happened.append(Ended(job.key, given_up(why if event.deaths == 1 else event.reason)))
        yield happened
