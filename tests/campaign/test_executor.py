"""Executors: each task once, the lost ones again, those that no worker survives given up."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from campaign_files import LARGE, at_most, mlp, most

from sutura.campaign.executor import MOST_DEATHS, Ended, Executor, Lost, Serial, Started, carried_out
from sutura.campaign.pool import Pool
from sutura.campaign.task import Limits, decide, task

NET = mlp((2, 8, 1), 1)
TOP = most(NET, 2)
BIG = mlp(LARGE, 2)
NAMES = ("n.onnx", "p.vnnlib")
TASKS = [
    task(NET, at_most(round(TOP + d, 6), 2, "p").text, NAMES, Limits()) for d in (0.5, -0.1, 1.0, -0.2, 2.0)
]
HARD = task(BIG, at_most(round(most(BIG, 10) + 0.8, 6), 10, "h").text, ("h.onnx", "h.vnnlib"), Limits(1.5))


class Scripted(Executor):
    """Does what a list says: a number of deaths for each task before it ends."""

    def __init__(self, deaths, room=2):
        self.deaths, self.given, self.news = dict(deaths), [], []
        self._room = room

    @property
    def room(self):
        return self._room

    def submit(self, job):
        self.given.append(job.key)
        if self.deaths.get(job.key, 0):
            self.deaths[job.key] -= 1
            self.news.append(Lost(job.key, "killed"))
        else:
            self.news.append(Ended(job.key, {"verdict": "proved", "of": job.key}))

    def events(self, within):
        news, self.news = self.news[:1], self.news[1:]
        return news

    def close(self):
        pass


def ended(executor, tasks):
    return {e.key: e.answer for step in carried_out(tasks, executor) for e in step if isinstance(e, Ended)}


def test_lost_tasks_go_back_and_are_given_up_after_so_many_deaths():
    first, second, third = (t.key for t in TASKS[:3])
    scripted = Scripted({first: MOST_DEATHS - 1, second: MOST_DEATHS})
    said = ended(scripted, TASKS[:3])
    assert said[first]["of"] == first
    assert said[third]["of"] == third
    assert said[second]["verdict"] == "unknown"
    assert said[second]["reason"] == f"given up after {MOST_DEATHS} workers: killed"
    assert [scripted.given.count(key) for key in (first, second, third)] == [MOST_DEATHS, MOST_DEATHS, 1]


def test_tasks_are_taken_only_when_there_is_room():
    taken, most_open = [], []

    def lazily():
        for job in TASKS:
            taken.append(job.key)
            yield job

    done = 0
    for step in carried_out(lazily(), Scripted({}, room=2)):
        most_open.append(len(taken) - done)
        done += sum(isinstance(e, Ended) for e in step)
    assert max(most_open) == 2
    assert done == len(TASKS)


def core(answers):
    return {key: {k: v for k, v in a.items() if not k.endswith("seconds")} for key, a in answers.items()}


@pytest.fixture(scope="module")
def expected():
    return core({t.key: decide(t) for t in TASKS})


def test_serial_gives_what_deciding_gives(expected):
    with Serial() as serial:
        assert core(ended(serial, TASKS)) == expected


def test_a_pool_gives_what_deciding_gives_also_when_its_workers_are_killed(expected):
    """One worker dies in the middle of a job, one idle; neither takes anything else along."""
    lost, begun, killed, answers = [], [], [], {}
    with Pool(2) as pool:
        mixed = [*TASKS[:2], HARD, *TASKS[2:]]
        for event in (event for step in carried_out(mixed, pool) for event in step):
            if isinstance(event, Started):
                begun.append((event.key, event.worker))
            if isinstance(event, Lost):
                lost.append((event.key, event.reason))
            if isinstance(event, Ended):
                answers[event.key] = event.answer
                if HARD.key in dict(begun).keys() - answers.keys() and not killed:
                    killed.append(int(dict(begun)[HARD.key].split()[1]))
                    os.kill(killed[0], signal.SIGKILL)
        pids = pool.pids
    assert [key for key, _ in lost] == [HARD.key]
    assert "SIGKILL" in lost[0][1]
    times = Counter(key for key, _ in begun)
    assert times == {HARD.key: 2, **{t.key: 1 for t in TASKS}}
    assert answers.pop(HARD.key)["verdict"] == "unknown"
    assert core(answers) == expected
    for pid in (*pids, *killed):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_that_dies_idle_is_replaced(expected):
    with Pool(1) as pool:
        first = ended(pool, TASKS[:1])
        os.kill(pool.pids[0], signal.SIGKILL)
        for worker in pool._idle:
            worker.process.join()
        rest = list(carried_out(TASKS[1:], pool))
        assert not any(isinstance(e, Lost) for step in rest for e in step)
        first |= {e.key: e.answer for step in rest for e in step if isinstance(e, Ended)}
    assert core(first) == expected


def test_a_job_that_does_not_stop_is_ended(monkeypatch):
    monkeypatch.setattr("sutura.campaign.pool.GRACE", -2.9)
    with Pool(1) as pool:
        happened = [event for step in carried_out([HARD], pool) for event in step]
    assert [type(event) for event in happened] == [Started, Lost, Ended]
    assert happened[-1].answer["verdict"] == "unknown"
    assert happened[-1].answer["reason"] == "ended, twice its limit and a minute late"
