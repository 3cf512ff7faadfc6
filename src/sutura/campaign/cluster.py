"""Jobs on a Dask cluster: one code path from two processes of this machine to many machines."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from typing import Any, final

from sutura.campaign.executor import MOST_DEATHS, Ended, Event, Executor, Lost, Started
from sutura.campaign.task import Task, decide
from sutura.errors import CampaignError, SuturaError
from sutura.extras import require

AHEAD = 2
"""Tasks handed out for each thread of the cluster, so that no worker waits for the next one."""

PATIENCE = 10.0
"""Seconds to wait for a cluster to answer."""


@final
class Cluster(Executor):
    """The workers of the Dask scheduler at `address` (tcp://host:port), as many as there are at a time.

    Dask sends tasks as pickles between its own processes: use a cluster that you trust, closed to others
    (TLS is Dask's own configuration). Workers need the same version of sutura and, best, one thread each. A
    job whose worker dies goes to another one. Raises MissingExtraError without the extra `cluster`,
    CampaignError where no scheduler answers.
    """

    def __init__(self, address: str) -> None:
        self._dask, self._config = require("distributed", "cluster"), require("dask", "cluster").config
        self._address = address
        self._futures: dict[str, Any] = {}
        self._news: SimpleQueue[Event | tuple[str, Any]] = SimpleQueue()
        self._topic = f"sutura-{time.time_ns()}"
        self._room, self._counted = AHEAD, 0.0
        try:
            self._client: Any = self._dask.Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            raise CampaignError(
                f"no Dask scheduler answers at {address}: {error}; start one with: dask scheduler"
            ) from None
        self._client.subscribe_topic(self._topic, self._begun)

    @property
    def room(self) -> int:
        """Twice the threads that the cluster has now."""
        if time.monotonic() - self._counted > 1.0:
            self._room = max(1, AHEAD * sum(self._asked(self._client.nthreads).values()))
            self._counted = time.monotonic()
        return self._room

    def submit(self, job: Task) -> None:
        """Hand the task to the scheduler."""
        name = f"{self._topic}-{job.key}-{time.time_ns()}"
        with self._config.set({"distributed.admin.large-graph-warning-threshold": "4GB"}):
            future = self._client.submit(_remote, job, self._topic, key=name, pure=False)
        self._futures[job.key] = future

        def tell(done: Any) -> None:
            self._news.put((job.key, done))

        future.add_done_callback(tell)

    def events(self, within: float) -> list[Event]:
        """What began, ended or was lost; waits at most so many seconds."""
        happened: list[Event] = []
        try:
            news = self._news.get(timeout=within)
            while True:
                if isinstance(news, tuple):
                    happened.append(self._ended(*news))
                else:
                    happened.append(news)
                news = self._news.get_nowait()
        except Empty:
            return happened

    def close(self) -> None:
        """Take back what is not done, and leave the cluster as it was."""
        for future in self._futures.values():
            future.cancel(force=True)
        self._futures = {}
        self._client.close(timeout=PATIENCE)

    def _ended(self, key: str, future: Any) -> Event:
        self._futures.pop(key, None)
        if future.status == "cancelled":
            raise self._gone("it dropped a job")
        error = future.exception()
        if error is None:
            return Ended(key, future.result())
        if isinstance(error, SuturaError):
            raise error
        if isinstance(error, self._dask.KilledWorker):
            return Lost(key, f"worker {error.last_worker.address} died", MOST_DEATHS)
        return Lost(key, f"{type(error).__name__}: {error}")

    def _begun(self, event: tuple[float, dict[str, str]]) -> None:
        """A worker says that it begins; heard on a thread of Dask's."""
        self._news.put(Started(event[1]["key"], event[1]["worker"]))

    def _asked(self, what: Any) -> Any:
        try:
            return what()
        except (OSError, TimeoutError) as error:
            raise self._gone(str(error)) from None

    def _gone(self, why: str) -> CampaignError:
        return CampaignError(
            f"the cluster at {self._address} went away ({why}); what is done is kept: run the same again"
        )


def _remote(job: Task, topic: str) -> dict[str, Any]:
    """On a worker of the cluster: say that the job begins, and decide it."""
    worker: Any = require("distributed", "cluster").get_worker()
    worker.log_event(topic, {"key": job.key, "worker": worker.address})
    return decide(job)
