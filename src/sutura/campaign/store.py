"""Results in one SQLite file, which any process may read while one writes it.

Tables: `instance` (a line of the list, and the job that decides it), `job` (one a key: its verdict, seconds
and document, null while it is open), `run` (each time that a worker began a job, and how it ended), `about`.
What is committed survives the death of the process at any moment. Write-ahead logging with synchronous=NORMAL
leaves a sound file also when the machine dies, of which the last moments may then be missing.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from sutura.campaign.executor import Ended, Event, Lost, Started
from sutura.errors import CampaignError
from sutura.journal import open_journal
from sutura.writing import write_all

APPLICATION, VERSION = 0x53555455, 1
"""SQLite's application_id ("SUTU") and user_version of such a file."""

HEADER = b"SQLite format 3\0"

WAIT = 30.0
"""Seconds to wait for a reader that holds the file."""

TABLES = """
create table about (name text primary key, value text not null);
create table job (key text primary key, verdict text, seconds real, cpu_seconds real, document text);
create table instance (line integer primary key, network text not null, property text not null, timeout real,
  job text not null);
create table run (id integer primary key, job text not null, worker text not null, started real not null,
  ended real, ending text);
create index run_of_job on run (job);
create index open_run on run (job) where ending is null;
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the list with its job: `document` is the verdict's where there is one."""

    network: str
    property: str
    timeout: float | None
    job: str
    document: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Running:
    """A job that a worker has: a line of the list that it decides, and since when (Unix seconds)."""

    network: str
    property: str
    worker: str
    started: float


@final
class Store:
    """The file, open for the one process that writes it."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def begin(self, lines: Iterable[Line], about: Mapping[str, str]) -> None:
        """Make these lines what the file is about. Results of jobs are kept, whichever list asked for them.

        Runs that never ended belong to a driver that is gone.
        """
        with self._file as file:
            file.execute("update run set ending = 'interrupted' where ending is null")
            file.execute("delete from instance")
            for at, line in enumerate(lines, start=1):
                row = (at, line.network, line.property, line.timeout, line.job)
                file.execute("insert into instance values (?, ?, ?, ?, ?)", row)
                file.execute("insert or ignore into job (key) values (?)", (line.job,))
                if line.document is not None:
                    self._end(line.job, line.document)
            file.executemany("insert or replace into about values (?, ?)", about.items())

    def done(self) -> frozenset[str]:
        """Keys of the jobs that have a verdict."""
        return frozenset(
            key for (key,) in self._file.execute("select key from job where verdict is not null")
        )

    def verdicts(self) -> dict[str, int]:
        """How many lines have which verdict."""
        found = self._file.execute(
            "select verdict, count(*) from instance join job on key = job "
            "where verdict is not null group by verdict"
        )
        return dict(found.fetchall())

    def record(self, events: Sequence[Event]) -> None:
        """Write down what happened, all of it or nothing, and that the writer lives."""
        now = time.time()
        with self._file as file:
            for event in events:
                match event:
                    case Started(key, worker):
                        self._begin_run(key, worker, now)
                    case Ended(key, answer):
                        if not self._close_run(key, "done", now):  # news of its beginning is late, or lost
                            self._begin_run(key, "not known", now - answer["seconds"])
                            self._close_run(key, "done", now)
                        self._end(key, answer)
                    case Lost(key):
                        self._close_run(key, "lost", now)
            file.execute("insert or replace into about values ('seen', ?)", (repr(now),))

    def _begin_run(self, key: str, worker: str, started: float) -> None:
        """Late news, of a job that is done by now, is none."""
        self._close_run(key, "lost", started)
        self._file.execute(
            "insert into run (job, worker, started) "
            "select key, ?, ? from job where key = ? and verdict is null",
            (worker, started, key),
        )

    def _close_run(self, key: str, ending: str, now: float) -> bool:
        """Whether there was an open one."""
        what = "update run set ended = ?, ending = ? where job = ? and ending is null"
        return self._file.execute(what, (now, ending, key)).rowcount > 0

    def _end(self, key: str, answer: Mapping[str, Any]) -> None:
        row = (answer["verdict"], answer["seconds"], answer["cpu_seconds"], json.dumps(answer), key)
        what = "update job set verdict = ?, seconds = ?, cpu_seconds = ?, document = ? where key = ?"
        self._file.execute(what, row)


@contextmanager
def open_store(place: Path) -> Generator[Store]:
    """The store at `place`, made where there is none; this process alone writes it while the block runs.

    Raises CampaignError where the file is another kind of file or cannot be opened, OutputError where it
    cannot be made, JournalError where another process writes it.
    """
    if not place.parent.is_dir():
        raise CampaignError(f"there is no folder {place.parent} to write {place.name} into; make it first")
    _look(place)
    lock = open_journal(place.with_name(f"{place.name}.lock"), b"", afresh=True)
    try:
        with _told(place):
            _make(place)
            file = sqlite3.connect(place, timeout=WAIT)
            try:
                _prepare(file, place)
                yield Store(file)
            finally:
                file.close()
    finally:
        lock.close(remove=True)


@final
class Reading:
    """The file as a reader sees it, at one moment."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def about(self) -> dict[str, str]:
        """What the writer said of the campaign; `seen` is when it last wrote (Unix seconds)."""
        return dict(self._file.execute("select name, value from about").fetchall())

    def lines(self) -> tuple[Line, ...]:
        """Every line of the list, with its document where it is decided."""
        found = self._file.execute(
            "select network, property, timeout, job, document from instance join job on key = job "
            "order by line"
        )
        return tuple(
            Line(network, prop, timeout, job, None if said is None else json.loads(said))
            for network, prop, timeout, job, said in found
        )

    def running(self) -> tuple[Running, ...]:
        """What workers have now, the longest first."""
        found = self._file.execute(
            "select network, property, worker, started from run join instance using (job) "
            "where ending is null group by run.id order by started"
        )
        return tuple(Running(*row) for row in found)

    def endings(self) -> dict[str, int]:
        """How many runs ended how: done, lost (their worker died) or interrupted (the driver did)."""
        found = self._file.execute(
            "select ending, count(*) from run where ending is not null group by ending"
        )
        return dict(found.fetchall())

    def computed_twice(self) -> int:
        """Jobs with more than one finished run; none, if all is well."""
        repeated = "select job from run where ending = 'done' group by job having count(*) > 1"
        return int(self._file.execute(f"select count(*) from ({repeated})").fetchone()[0])


@contextmanager
def reading(place: Path) -> Generator[Reading]:
    """The store at `place`, read only, whether or not it is written meanwhile.

    Raises CampaignError where there is none.
    """
    if not place.is_file():
        raise CampaignError(f"there is no {place}; it is what sutura campaign -o writes")
    _look(place)
    with _told(place):
        # Opened as a writer would, so that the last one to leave takes SQLite's own files along.
        file = sqlite3.connect(f"{place.resolve().as_uri()}?mode=rw", uri=True, timeout=WAIT)
        try:
            file.execute("pragma query_only = 1")
            _check(file, place)
            file.execute("begin")  # all that is read is of one moment
            yield Reading(file)
        finally:
            file.close()


def _make(place: Path) -> None:
    """The empty store, whole before it has its name: a reader may already wait for it."""
    if place.is_file() and place.stat().st_size:
        return
    with closing(sqlite3.connect(":memory:")) as file:
        file.executescript(
            f"{TABLES} pragma application_id = {APPLICATION}; pragma user_version = {VERSION};"
        )
        write_all({place: file.serialize()})


def _prepare(file: sqlite3.Connection, place: Path) -> None:
    _check(file, place)
    file.execute("pragma journal_mode = wal")
    file.execute("pragma synchronous = normal")


def _check(file: sqlite3.Connection, place: Path) -> None:
    application, version = _marks(file)
    if application != APPLICATION:
        raise CampaignError(f"{place} is not of a campaign, and is left alone; choose another place")
    if version != VERSION:
        raise CampaignError(f"{place} has version {version} of the store, this sutura reads {VERSION}")


def _look(place: Path) -> None:
    """SQLite takes a short file of any content for an empty database; here it is a foreign file."""
    try:
        with place.open("rb") as file:
            head = file.read(len(HEADER))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have this name"
        raise CampaignError(f"cannot open {place}: {reason}; choose another place") from None
    if head not in (b"", HEADER):
        raise CampaignError(f"{place} is not of a campaign, and is left alone; choose another place")


def _marks(file: sqlite3.Connection) -> tuple[int, int]:
    (application,), (version,) = (
        file.execute(f"pragma {name}").fetchone() for name in ("application_id", "user_version")
    )
    return application, version


@contextmanager
def _told(place: Path) -> Generator[None]:
    """What SQLite refuses, in one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise CampaignError(f"cannot use {place}: {error}; choose another place, or make room") from None
