"""campaign(): every instance of a list decided once, by whatever executor, into a store."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sutura import __version__
from sutura.campaign.executor import Ended, Executor, carried_out
from sutura.campaign.instances import Instance
from sutura.campaign.store import Line, open_store
from sutura.campaign.task import Limits, Task, failed, read_task
from sutura.errors import SuturaError
from sutura.report.document import document


@dataclass(frozen=True, slots=True)
class CampaignConfig:
    """Most wall seconds of an instance (None: what its line says), the seed, and whether weights are taken
    from files beside a network."""

    timeout: float | None = None
    seed: int = 0
    external_data: bool = False


Listener = Callable[[int, Mapping[str, int]], None]
"""Hears how many lines there are, and how many have which verdict."""


def unheard(lines: int, verdicts: Mapping[str, int]) -> None:
    """Listens to nothing."""


def campaign(
    instances: Sequence[Instance],
    executor: Executor,
    place: Path,
    config: CampaignConfig | None = None,
    *,
    listen: Listener = unheard,
) -> None:
    """Decide every instance, and keep what is found in the store at `place` as soon as it is known.

    What the store already holds is not computed again: a job's key is a digest of its files' contents, its
    limits and sutura's version. So a campaign that was killed goes on when it is started again. An instance
    whose files cannot be used gets an error of its own; one whose files change meanwhile is left open. Raises
    CampaignError for the store or a cluster, JournalError where another campaign writes the store.
    """
    config = config or CampaignConfig()
    with open_store(place) as store:
        lines = [_line(instance, config) for instance in instances]
        store.begin(lines, {"sutura": __version__})
        known = store.done()
        open_jobs = {
            line.job: each for line, each in zip(lines, instances, strict=True) if line.job not in known
        }
        weight, said = Counter(line.job for line in lines), Counter(store.verdicts())
        listen(len(lines), said)
        for happened in carried_out(_tasks(open_jobs, config), executor):
            store.record(happened)
            for event in happened:
                if isinstance(event, Ended):
                    said[event.answer["verdict"]] += weight[event.key]
            listen(len(lines), said)


def _tasks(open_jobs: Mapping[str, Instance], config: CampaignConfig) -> Iterator[Task]:
    """The tasks of the jobs, read when they are asked for; those whose files are others by now left out."""
    for key, instance in open_jobs.items():
        try:
            job = _read(instance, config)
        except SuturaError:
            continue
        if job.key == key:
            yield job


def _line(instance: Instance, config: CampaignConfig) -> Line:
    """What the store is told of an instance; one that cannot be read is decided by that."""
    timeout = _limit(instance, config)
    try:
        return Line(instance.network, instance.property, timeout, _read(instance, config).key, None)
    except SuturaError as error:
        names = "\0".join(("unread", str(instance.folder), instance.network, instance.property))
        said = document("verdict", {**failed(error), "seconds": 0.0, "cpu_seconds": 0.0})
        key = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        return Line(instance.network, instance.property, timeout, key, said)


def _read(instance: Instance, config: CampaignConfig) -> Task:
    limits = Limits(_limit(instance, config), config.seed)
    return read_task(instance, limits, external_data=config.external_data)


def _limit(instance: Instance, config: CampaignConfig) -> float | None:
    """The smaller of the list's limit and the caller's."""
    given = [limit for limit in (instance.timeout, config.timeout) if limit is not None]
    return min(given, default=None)
