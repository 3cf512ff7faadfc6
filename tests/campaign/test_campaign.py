"""Campaigns: whoever is killed, they end with the same verdicts, and each job is computed once."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from campaign_files import HARD, write_campaign
from click.testing import CliRunner

from sutura.campaign.campaign import CampaignConfig, campaign
from sutura.campaign.executor import Serial
from sutura.campaign.instances import read_instances
from sutura.campaign.pool import Pool
from sutura.campaign.store import reading
from sutura.campaign.survey import COLUMNS, survey
from sutura.cli.app import main

VERDICTS = {"proved": 5, "violated": 5}


def say(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result, *words):
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


def state(place):
    with reading(place) as found:
        return survey(found)


def verdicts(place):
    return [(r["property"], r["verdict"]) for r in state(place)["results"]]


def until(ready, seconds=60):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def done(place):
    return place.is_file() and state(place)["done"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_campaign(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def expected(files, tmp_path_factory):
    place = tmp_path_factory.mktemp("serial") / "r.sqlite"
    with Serial() as serial:
        campaign(read_instances(files), serial, place)
    assert state(place)["verdicts"] == VERDICTS
    return verdicts(place)


def test_a_second_campaign_computes_nothing(files, expected, tmp_path):
    place = tmp_path / "r.sqlite"
    instances = read_instances(files)
    with Serial() as serial:
        campaign(instances[:4], serial, place)
        assert (state(place)["instances"], state(place)["runs"]) == (4, {"done": 4})
        campaign(instances, serial, place)
        campaign(instances, serial, place)
    found = state(place)
    assert (found["runs"], found["computed_twice"]) == ({"done": 10}, 0)
    assert verdicts(place) == expected
    with Serial() as serial:
        campaign(instances, serial, place, CampaignConfig(timeout=5))  # other limits, other jobs
    assert state(place)["runs"] == {"done": 20}


def test_the_same_files_under_two_names_are_one_job(files, tmp_path):
    (one, *_), place = read_instances(files), tmp_path / "r.sqlite"
    (files.parent / "same.vnnlib").write_bytes((files.parent / one.property).read_bytes())
    twice = [one, type(one)(one.network, "same.vnnlib", one.folder, one.timeout), one]
    heard = []
    with Serial() as serial:
        campaign(twice, serial, place, listen=lambda lines, said: heard.append((lines, sum(said.values()))))
    found = state(place)
    assert (found["instances"], found["jobs"], found["done"], found["runs"]) == (3, 1, 3, {"done": 1})
    assert (heard[0], heard[-1]) == ((3, 0), (3, 3))


def test_files_that_change_meanwhile_are_left_open(files, tmp_path):
    instances = read_instances(files)[:2]
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("small.onnx", "easy0.vnnlib", "easy1.vnnlib"):
        (folder / name).write_bytes((files.parent / name).read_bytes())
    mine = [type(i)(i.network, i.property, folder, i.timeout) for i in instances]

    def meddle(lines, said):
        (folder / "easy1.vnnlib").write_bytes((folder / "easy0.vnnlib").read_bytes() + b"; changed\n")

    place = tmp_path / "r.sqlite"
    with Serial() as serial:
        campaign(mine, serial, place, listen=meddle)
        assert [r["verdict"] for r in state(place)["results"]] == ["proved", "open"]
        campaign(mine, serial, place)
    assert state(place)["verdicts"] == {"proved": 2}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_killed_driver_goes_on_and_computes_nothing_twice(tmp_path):
    files = write_campaign(tmp_path, hard=1, hard_limit=4)
    place = tmp_path / "r.sqlite"
    command = [sys.executable, "-m", "sutura", "campaign", files, "-o", place, "--workers", "2", "--json"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: (done(place) or 0) >= 3)
    driver.kill()
    driver.wait()
    before = state(place)
    workers = {r["worker"] for r in before["running"]}
    kept = {r["job"]: r["seconds"] for r in before["results"] if r["verdict"] != "open"}
    assert 3 <= len(kept) < 11
    until(lambda: not any(alive(int(w.split()[1])) for w in workers), 10)  # workers end with their driver
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1, again.stderr  # something is violated
    found = json.loads(again.stdout)
    assert found["verdicts"] == {**VERDICTS, "unknown": 1}
    assert (found["computed_twice"], found["runs"]["done"]) == (0, 11)
    assert {r["job"]: r["seconds"] for r in found["results"] if r["job"] in kept} == kept
    assert sorted(p.name for p in tmp_path.glob("r.sqlite*")) == ["r.sqlite"]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
def test_an_interrupt_ends_at_once_and_keeps_what_is_done(tmp_path):
    files = write_campaign(tmp_path, hard=2, hard_limit=30)
    place = tmp_path / "r.sqlite"
    command = [sys.executable, "-m", "sutura", "campaign", files, "-o", place, "--workers", "2"]
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until(lambda: (done(place) or 0) >= 2 and len(state(place)["running"]) == 2)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: driver and workers
    out, told = driver.communicate(timeout=20)
    assert driver.returncode == 130
    assert out == ""
    assert told == f"interrupted; what is done is in {place}, the same command goes on\n"
    assert state(place)["done"] >= 2


def test_a_killed_worker_of_a_pool_costs_its_job_alone(tmp_path, expected):
    files = write_campaign(tmp_path, hard=1)
    place, killed = tmp_path / "r.sqlite", []
    with Pool(2) as pool:

        def listen(lines, said):
            running = {r["network"]: r["worker"] for r in state(place)["running"]}
            if sum(said.values()) >= 3 and f"{HARD}.onnx" in running and not killed:
                killed.append(int(running[f"{HARD}.onnx"].split()[1]))
                os.kill(killed[0], signal.SIGKILL)

        campaign(read_instances(files), pool, place, listen=listen)
    found = state(place)
    assert killed
    assert (found["runs"], found["computed_twice"]) == ({"done": 11, "lost": 1}, 0)
    assert [v for v in verdicts(place) if HARD not in v[0]] == expected


def test_bad_files_are_errors_of_their_lines_and_a_bad_list_is_one_of_all(files, tmp_path):
    place, csv_to = tmp_path / "r.sqlite", tmp_path / "r.csv"
    lines = files.read_text().splitlines()[:2:2]
    (files.parent / "wrong.csv").write_text(
        "\n".join([*lines, "none.onnx,easy0.vnnlib,5", "small.onnx,instances.csv,5"]) + "\n"
    )
    result = say("campaign", files.parent / "wrong.csv", "-o", place, "--workers", "1", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 3
    assert [(r["verdict"], r.get("kind")) for r in found["results"]] == [
        ("proved", None),
        ("error", "NetworkError"),
        ("error", "PropertyError"),
    ]
    assert (found["schema"], found["version"]) == ("sutura/campaign", 1)
    shown = say("status", place, "--csv", csv_to)
    assert shown.exit_code == 0
    assert "NetworkError" in shown.stderr
    rows = list(csv.DictReader(csv_to.read_text().splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    assert [r["verdict"] for r in rows] == ["proved", "error", "error"]
    (tmp_path / "bad.csv").write_text("small.onnx\n")
    refused(say("campaign", tmp_path / "bad.csv", "-o", tmp_path / "x.sqlite"), "bad.csv:1")
    assert not (tmp_path / "x.sqlite").exists()


def test_exit_codes_say_the_worst(files, tmp_path):
    proved = tmp_path / "one.csv"
    name = files.parent.as_posix()
    proved.write_text(f"{name}/small.onnx,{name}/easy0.vnnlib,20\n")
    assert say("campaign", proved, "-o", tmp_path / "1.sqlite", "--workers", "1").exit_code == 0
    proved.write_text(f"{name}/small.onnx,{name}/easy0.vnnlib,20\n{name}/small.onnx,{name}/easy1.vnnlib\n")
    assert say("campaign", proved, "-o", tmp_path / "1.sqlite", "--workers", "1").exit_code == 1


def test_the_store_of_another_driver_and_foreign_files_are_refused(files, tmp_path):
    (tmp_path / "foreign.sqlite").write_text("mine")
    refused(say("campaign", files, "-o", tmp_path / "foreign.sqlite"), "not of a campaign")
    refused(say("status", tmp_path / "foreign.sqlite"), "not of a campaign")
    refused(say("status", tmp_path / "none.sqlite"), "there is no")
    refused(
        say("campaign", files, "-o", tmp_path / "r.sqlite", "--workers", "2", "--cluster", "tcp://x:1"),
        "--workers does not go with --cluster",
    )


def test_status_of_a_campaign_without_a_driver_says_so(files, tmp_path, monkeypatch):
    place = tmp_path / "r.sqlite"
    instances = read_instances(files)
    with Serial() as serial, pytest.raises(KeyboardInterrupt):

        def stop(lines, said):
            if sum(said.values()) == 3:
                raise KeyboardInterrupt

        campaign(instances, serial, place, listen=stop)
    monkeypatch.setattr("sutura.cli.status.QUIET", -1.0)
    told = say("status", place).stderr
    assert "3 of 10 instances done" in told
    assert "the same sutura campaign command goes on" in told


def test_watch_ends_when_all_is_done(files, expected, tmp_path):
    place = tmp_path / "r.sqlite"
    with Serial() as serial:
        campaign(read_instances(files), serial, place)
    result = say("status", place, "--watch")
    assert result.exit_code == 0
    assert "10 of 10 instances done" in result.stderr
