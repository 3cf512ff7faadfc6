"""The journal: what was appended is there, whole, whatever happened to the file and whoever else wants it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura import journal as journal_file
from sutura.errors import JournalError
from sutura.journal import open_journal

WORK = bytes(range(32))
RECORDS = [b"", b"one", b"\n", b"!two\nthree", bytes(range(256)) * 40]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "work.journal"


def written(place, tracks):
    journal = open_journal(place, WORK)
    for name, records in tracks.items():
        track = journal.track(name)
        for record in records:
            track.append(record)
    journal.close()


def read(place, name):
    journal = open_journal(place, WORK)
    track, found = journal.track(name), []
    while (record := track.take()) is not None:
        found.append(record)
    journal.close()
    return found


def test_records_come_back_by_track(place):
    written(place, {"a": RECORDS, "b": RECORDS[::-1]})
    written(place, {"c": [b"later"]})
    assert read(place, "a") == RECORDS
    assert read(place, "b") == RECORDS[::-1]
    assert read(place, "c") == [b"later"]
    assert read(place, "d") == []


def test_exact_bytes(place):
    written(place, {"t": [b"record"]})
    header = b"sutura journal 1 " + WORK.hex().encode() + b"\n"
    import hashlib

    chain = hashlib.sha256(header).digest()[:16]
    check = hashlib.sha256(chain + b"t\nrecord").digest()[:16]
    assert place.read_bytes() == header + b"\x00\x00\x00\x08t\nrecord" + check


def test_new_records_follow_those_taken(place):
    written(place, {"a": [b"1", b"2"]})
    journal = open_journal(place, WORK)
    track = journal.track("a")
    assert [track.take(), track.take(), track.take()] == [b"1", b"2", None]
    track.append(b"3")
    journal.close()
    assert read(place, "a") == [b"1", b"2", b"3"]


def test_what_is_rejected_does_not_count_any_more(place):
    written(place, {"a": [b"1", b"2", b"3"], "b": [b"x"]})
    journal = open_journal(place, WORK)
    track = journal.track("a")
    track.take()
    track.take()
    track.reject()
    assert track.take() is None
    track.append(b"new")
    journal.close()
    assert read(place, "a") == [b"1", b"new"]
    assert read(place, "b") == [b"x"]


def test_a_tail_torn_anywhere_is_cut_off(place):
    written(place, {"a": RECORDS})
    whole = place.read_bytes()
    ends = [len(whole)]
    for record in reversed(RECORDS):
        ends.insert(0, ends[0] - (4 + 2 + len(record) + 16))
    assert ends[0] == len(journal_file.MAGIC) + 65
    for length in [*range(ends[3] + 40), *range(ends[3] + 40, len(whole), 997)]:
        place.write_bytes(whole[:length])
        kept = sum(end <= length for end in ends[1:])
        assert read(place, "a") == RECORDS[:kept], length
        if kept:
            assert place.stat().st_size == ends[kept]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_byte_ends_the_journal_there(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("j") / "j"
    written(place, {"a": RECORDS})
    whole = bytearray(place.read_bytes())
    head = len(journal_file.MAGIC) + 65
    at = data.draw(st.integers(head, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    place.write_bytes(whole)
    ends, end = [], head
    for record in RECORDS:
        end += 4 + 2 + len(record) + 16
        ends.append(end)
    assert read(place, "a") == RECORDS[: sum(e <= at for e in ends)]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_after_the_records_is_cut_off(tmp_path_factory, tail):
    place = tmp_path_factory.mktemp("j") / "j"
    written(place, {"a": RECORDS})
    with place.open("ab") as file:
        file.write(tail)
    assert read(place, "a") == RECORDS


def test_an_empty_journal_leaves_no_file(place):
    journal = open_journal(place, WORK)
    assert place.exists()
    journal.close()
    assert not place.exists()
    written(place, {"a": [b"1"]})
    open_journal(place, WORK).close()
    assert place.exists()
    open_journal(place, WORK).close(remove=True)
    assert not place.exists()


def test_other_work_is_refused_or_replaced(place):
    written(place, {"a": [b"1"]})
    with pytest.raises(JournalError, match="is of other work") as caught:
        open_journal(place, bytes(32))
    assert "\n" not in str(caught.value)
    assert read(place, "a") == [b"1"]
    journal = open_journal(place, bytes(32), afresh=True)
    assert journal.records == 0
    journal.close()
    assert not place.exists()


@pytest.mark.parametrize("text", [b"my letter to the editor", b"x" * 500, b"sutura journal 2 and so on"])
@pytest.mark.parametrize("afresh", [False, True])
def test_a_file_that_is_no_journal_is_left_alone(place, text, afresh):
    place.write_bytes(text)
    with pytest.raises(JournalError, match="is no journal of sutura"):
        open_journal(place, WORK, afresh=afresh)
    assert place.read_bytes() == text


def test_places_that_cannot_be_written_are_one_line(tmp_path):
    for place in (tmp_path / "none" / "j", tmp_path, Path("/proc/none"), tmp_path / "a\0b"):
        with pytest.raises(JournalError, match="choose another place") as caught:
            open_journal(place, WORK)
        assert "\n" not in str(caught.value)


HOLD = """
import sys
from pathlib import Path
from sutura.journal import open_journal
journal = open_journal(Path(sys.argv[1]), bytes(range(32)))
journal.track("a").append(b"theirs")
print("held", flush=True)
sys.stdin.read()
"""


def test_two_writers_are_kept_apart_and_a_killed_one_is_not(place):
    command = [sys.executable, "-c", HOLD, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(JournalError, match="in use by another run"):
            open_journal(place, WORK)
        with pytest.raises(JournalError, match="in use by another run"):
            open_journal(place, WORK, afresh=True)
        other.kill()
        other.wait()
    assert read(place, "a") == [b"theirs"]


def test_a_journal_removed_while_it_was_waited_for_is_made_again(place, monkeypatch):
    written(place, {"a": [b"1"]})
    real, tries = journal_file._lock, []

    def lock(file, where):
        real(file, where)
        if not tries:
            place.unlink()
        tries.append(1)

    monkeypatch.setattr(journal_file, "_lock", lock)
    journal = open_journal(place, WORK)
    assert len(tries) == 2
    assert journal.records == 0
    assert place.exists()
    journal.close()


FULL = """
import resource, sys
from pathlib import Path
from sutura.errors import JournalError
from sutura.journal import open_journal
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
journal = open_journal(Path(sys.argv[1]), bytes(range(32)))
track = journal.track("a")
while track.take() is not None:
    pass
try:
    for number in range(1000):
        track.append(b"%04d" % number * 25)
except JournalError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_loses_nothing(place):
    command = [sys.executable, "-c", FULL, str(place)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "cannot write the journal" in done.stdout
        assert "make room and run the same command again" in done.stdout
        assert len(done.stdout.splitlines()) == 1
    assert place.stat().st_size <= 5000
    found = read(place, "a")
    assert len(found) > 30
    assert found == [b"%04d" % number * 25 for number in range(len(found))]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 5000


def test_a_failing_sync_is_one_line(place, monkeypatch):
    journal = open_journal(place, WORK)
    journal.track("a").append(b"1")

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(JournalError, match="No space left on device"):
        journal.sync()
    journal.close()


def test_records_reach_the_disk_within_the_time(place, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr(journal_file.os, "fsync", lambda _: synced.append(now[0]))
    monkeypatch.setattr(journal_file.time, "monotonic", lambda: now[0])
    journal = open_journal(place, WORK)
    synced.clear()
    track = journal.track("a")
    for moment in (0.5, 0.9, 1.1, 1.5, 2.0, 2.2):
        now[0] = moment
        track.append(b"x")
    assert synced == [1.1, 2.2]
    journal.close()
