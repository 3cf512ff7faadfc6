"""The store: every reader sees what is recorded, foreign files are left alone, one writer at a time."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from sutura.campaign.executor import Ended, Lost, Started
from sutura.campaign.store import Line, open_store, reading
from sutura.errors import CampaignError, JournalError

PROVED = {"verdict": "proved", "seconds": 1.0, "cpu_seconds": 0.5}
LINES = [Line("a.onnx", "p.vnnlib", 5.0, "k1", None), Line("b.onnx", "p.vnnlib", None, "k2", None)]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "results.sqlite"


def test_a_reader_sees_what_is_recorded_while_the_writer_has_the_file(place):
    with open_store(place) as store:
        store.begin(LINES, {"sutura": "1"})
        with reading(place) as seen:
            assert [(line.network, line.timeout, line.document) for line in seen.lines()] == [
                ("a.onnx", 5.0, None),
                ("b.onnx", None, None),
            ]
            store.record([Started("k1", "w1")])
            assert seen.running() == ()  # all that a reader reads is of one moment
        with reading(place) as seen:
            assert [(r.network, r.worker) for r in seen.running()] == [("a.onnx", "w1")]
        store.record([Ended("k1", PROVED)])
        with reading(place) as seen:
            assert seen.lines()[0].document == PROVED
            assert (seen.running(), seen.endings(), seen.computed_twice()) == ((), {"done": 1}, 0)
            assert float(seen.about()["seen"]) > 0
    assert [p.name for p in place.parent.iterdir()] == ["results.sqlite"]


def test_runs_end_as_done_lost_or_interrupted(place):
    with open_store(place) as store:
        store.begin(LINES, {})
        store.record([Started("k1", "w1"), Started("k2", "w2")])
        store.record([Lost("k1", "killed")])
        store.record([Started("k1", "w3"), Started("k2", "w3")])  # k2 again: w2 is gone
    with open_store(place) as store:
        assert store.done() == frozenset()
        store.begin(LINES, {})
        store.record([Started("k1", "w4"), Ended("k1", PROVED), Started("k2", "w4")])
    with reading(place) as seen:
        assert seen.endings() == {"lost": 2, "interrupted": 2, "done": 1}


def test_news_of_a_beginning_may_come_late_or_never(place):
    with open_store(place) as store:
        store.begin(LINES, {})
        store.record([Ended("k1", PROVED)])
        store.record([Started("k1", "w1")])
        assert store.done() == {"k1"}
        assert store.verdicts() == {"proved": 1}
    with reading(place) as seen:
        assert (seen.running(), seen.endings()) == ((), {"done": 1})


def test_results_outlive_a_change_of_the_list(place):
    with open_store(place) as store:
        store.begin(LINES, {})
        store.record([Started("k1", "w"), Ended("k1", PROVED)])
        store.begin([Line("other.onnx", "q.vnnlib", 1.0, "k1", None)], {})
        assert store.verdicts() == {"proved": 1}
    with reading(place) as seen:
        assert [line.network for line in seen.lines()] == ["other.onnx"]


def test_a_second_finished_run_would_be_counted(place):
    with open_store(place) as store:
        store.begin(LINES, {})
        store.record([Started("k1", "w"), Ended("k1", PROVED), Ended("k1", PROVED)])
    with reading(place) as seen:
        assert seen.computed_twice() == 0  # the second end closes no run, and begins none: the job is done
    with sqlite3.connect(place) as file:
        file.execute("insert into run (job, worker, started, ended, ending) values ('k1', 'w', 0, 1, 'done')")
    with reading(place) as seen:
        assert seen.computed_twice() == 1


def test_one_writer_at_a_time(place):
    with open_store(place), pytest.raises(JournalError, match="in use by another run"), open_store(place):
        pass
    with open_store(place):
        pass


@pytest.mark.parametrize("content", [b"no database, but a text that is long enough to be one" * 9, b"x"])
def test_another_file_is_left_alone(place, content):
    place.write_bytes(content)
    with pytest.raises(CampaignError), open_store(place):
        pass
    with pytest.raises(CampaignError), reading(place):
        pass
    assert place.read_bytes() == content


def test_another_database_is_left_alone(place):
    with sqlite3.connect(place) as file:
        file.execute("create table t (x)")
    file.close()
    before = place.read_bytes()
    with pytest.raises(CampaignError, match="not of a campaign"), open_store(place):
        pass
    with pytest.raises(CampaignError, match="not of a campaign"), reading(place):
        pass
    assert place.read_bytes() == before


def test_another_version_is_named(place):
    with open_store(place):
        pass
    with sqlite3.connect(place) as file:
        file.execute("pragma user_version = 7")
    file.close()
    with pytest.raises(CampaignError, match="version 7 of the store, this sutura reads 1"), open_store(place):
        pass


def test_missing_places_are_told(tmp_path):
    with pytest.raises(CampaignError, match="there is no folder"), open_store(tmp_path / "no" / "r.sqlite"):
        pass
    with pytest.raises(CampaignError, match="sutura campaign -o writes"), reading(tmp_path / "r.sqlite"):
        pass


def test_a_store_is_whole_from_the_moment_that_it_has_its_name(tmp_path):
    """A reader that waits for the file, as `sutura status --watch` may, never finds half of one."""
    places = [tmp_path / f"{at}.sqlite" for at in range(40)]

    def watch():
        for place in places:
            while not place.exists():
                pass
            with reading(place) as found:
                assert found.lines() == ()

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        for place in places:
            with open_store(place):
                pass
        watching.result(timeout=60)
