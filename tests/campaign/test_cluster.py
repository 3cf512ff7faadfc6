"""A Dask cluster: the same verdicts, also when one of its workers is killed half-way."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from campaign_files import write_campaign
from click.testing import CliRunner

from sutura import extras
from sutura.campaign.campaign import campaign
from sutura.campaign.cluster import Cluster
from sutura.campaign.executor import Serial
from sutura.campaign.instances import read_instances
from sutura.campaign.store import reading
from sutura.campaign.survey import survey
from sutura.cli.app import main
from sutura.errors import CampaignError, MissingExtraError

distributed = pytest.importorskip("distributed")


def state(place):
    with reading(place) as found:
        return survey(found)


def core(place):
    return [(r["property"], r["verdict"]) for r in state(place)["results"]]


@pytest.fixture(scope="module")
def local():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs="CRITICAL"
    ) as cluster:
        yield cluster


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_killed_worker_of_a_cluster_costs_its_jobs_alone(local, tmp_path):
    files = write_campaign(tmp_path, hard=2)
    instances = read_instances(files)
    with Serial() as serial:
        campaign(instances, serial, tmp_path / "serial.sqlite")
    place, killed = tmp_path / "r.sqlite", []

    def listen(lines, said):
        running = {r["worker"] for r in state(place)["running"]}
        if sum(said.values()) >= 4 and running and not killed:
            victim = next(w for w in local.workers.values() if w.worker_address in running)
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    with Cluster(local.scheduler_address) as cluster:
        campaign(instances, cluster, place, listen=listen)
        campaign(instances, cluster, place, listen=listen)
    found = state(place)
    assert killed
    assert core(place) == core(tmp_path / "serial.sqlite")
    assert (found["computed_twice"], found["runs"]["done"]) == (0, 12)
    assert found["runs"].get("lost", 0) <= 2  # what the worker had; nothing, where it had just ended


def test_the_command_takes_the_address_of_a_scheduler(local, tmp_path):
    files = write_campaign(tmp_path, easy=2)
    place = tmp_path / "r.sqlite"
    arguments = ["campaign", files, "-o", place, "--cluster", local.scheduler_address]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 1, result.stderr
    assert state(place)["verdicts"] == {"proved": 1, "violated": 1}


def test_a_cluster_that_does_not_answer_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr("sutura.campaign.cluster.PATIENCE", 0.5)
    with pytest.raises(CampaignError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9") as told:
        Cluster("tcp://127.0.0.1:9")
    assert "\n" not in str(told.value)


def test_without_the_extra_it_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name=name)

    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'sutura\[cluster\]'"):
        Cluster("tcp://127.0.0.1:9")
