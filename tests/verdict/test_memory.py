"""A pool that remembers gives back what was computed, bit for bit, and nothing that does not fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sutura.bounds.crown import Enclosure
from sutura.bounds.region import Region
from sutura.journal import open_journal
from sutura.verdict.frontier import Advance, Waiting
from sutura.verdict.memory import RememberingPool, packed, unpacked
from sutura.verdict.step import Step

WORK = bytes(32)


def region(*values):
    low = np.array(values, np.float64)[:, None]
    return Region(low, low + 1.0)


def step():
    numbers = np.array([[1.5, -0.0], [np.inf, 5e-324]])
    known = Enclosure({3: numbers, 1: numbers[:, :1]}, {3: -numbers, 1: numbers[:, 1:]})
    return Step(np.array([True, False]), numbers, numbers[:, 0], numbers[::-1], known)


def test_values_come_back_exactly():
    inner = step()
    value = Advance(
        Waiting(
            region(0.0, 2.0),
            inner.enclosure,
            inner.margin,
            np.array([3, 4]),
            inner.promise,
            np.array([True, False]),
        ),
        1 / 3,
        7,
        0,
        np.zeros((0, 2)),
    )
    again = unpacked(packed(value))
    assert packed(again) == packed(value)
    assert isinstance(again, Advance)
    assert again.settled == 1 / 3
    assert again.corners.shape == (0, 2)
    assert again.open.margin.dtype == np.int64
    assert list(again.open.known.low) == [3, 1]
    assert again.open.known.low[3].tobytes() == inner.enclosure.low[3].tobytes()
    found = unpacked(packed([step(), None, True, "text", float("inf"), 2**70]))
    assert found[1:] == [None, True, "text", float("inf"), 2**70]
    assert found[0].corner.tolist() == inner.corner.tolist()


def test_only_what_is_listed_is_recorded():
    with pytest.raises(AssertionError):
        packed({1: object()})
    with pytest.raises(KeyError):
        unpacked(packed(region(1.0)).replace(b"Region", b"Nation"))


class Work:
    """Counts what it is asked, and fails where told."""

    def __init__(self):
        self.asked = []
        self.fail_at = None

    def __call__(self, part, factor):
        self.asked.append((part.low[0, 0], factor))
        if self.fail_at == len(self.asked):
            raise TimeoutError
        return Region(part.low * factor, part.high * factor)


def mapped(place, work, items, workers=1):
    journal = open_journal(place, WORK)
    with ThreadPoolExecutor(workers) as pool:
        try:
            remembering = RememberingPool(pool, journal.track("t"))
            return [
                r.low[0, 0] for r in remembering.map(work, [region(i) for i in items], [2.0] * len(items))
            ]
        finally:
            journal.close()


def test_what_is_recorded_is_not_computed_again(tmp_path):
    place, work = tmp_path / "j", Work()
    assert mapped(place, work, [1.0, 2.0, 3.0]) == [2.0, 4.0, 6.0]
    assert len(work.asked) == 3
    again = Work()
    assert mapped(place, again, [1.0, 2.0, 3.0, 4.0]) == [2.0, 4.0, 6.0, 8.0]
    assert again.asked == [(4.0, 2.0)]


def test_what_was_done_before_a_failure_is_kept(tmp_path):
    place, work = tmp_path / "j", Work()
    work.fail_at = 3
    with pytest.raises(TimeoutError):
        mapped(place, work, [1.0, 2.0, 3.0])
    again = Work()
    assert mapped(place, again, [1.0, 2.0, 3.0]) == [2.0, 4.0, 6.0]
    assert again.asked == [(3.0, 2.0)]


def test_another_question_is_answered_afresh(tmp_path):
    place = tmp_path / "j"
    mapped(place, Work(), [1.0, 2.0, 3.0])
    work = Work()
    assert mapped(place, work, [1.0, 5.0, 3.0]) == [2.0, 10.0, 6.0]
    assert work.asked == [(5.0, 2.0), (3.0, 2.0)]
    last = Work()
    assert mapped(place, last, [1.0, 5.0, 3.0]) == [2.0, 10.0, 6.0]
    assert last.asked == []


def test_submitted_work_goes_to_the_pool(tmp_path):
    journal = open_journal(tmp_path / "j", WORK)
    with ThreadPoolExecutor(1) as pool:
        remembering = RememberingPool(pool, journal.track("t"))
        assert remembering.submit(pow, 2, 5).result() == 32
        assert list(remembering.map(pow, [], [])) == []
    journal.close()
    assert not (tmp_path / "j").exists()
