"""Commands that are killed, crowded out or short of room: the same command goes on, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sutura.cli import resuming
from sutura.cli.app import main
from sutura.journal import open_journal
from sutura.verdict.memory import RememberingPool

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "vertical_cas"
NET, NO_CLIMB, ALERT = EXAMPLE / "vertical_cas.onnx", EXAMPLE / "no_climb.vnnlib", EXAMPLE / "alert.vnnlib"
FAST = ("--boxes", "600", "--workers", "1", "--json")


def say(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def repaired(folder, *more):
    return say("repair", NET, NO_CLIMB, "-o", folder / "f.onnx", *FAST, *more)


def result(folder):
    return [(folder / name).read_bytes() for name in ("f.onnx", "f.cert.json")]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def refused(found, *words):
    assert found.exit_code == 2, found.stderr
    assert found.stdout == ""
    assert len(found.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in found.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert repaired(folder).exit_code == 0
    assert names(folder) == ["f.cert.json", "f.onnx", "f.report.json"]
    return result(folder)


class KilledError(Exception):
    """Stands for the end of the process."""


def killed_after(records, monkeypatch):
    real, left = RememberingPool.map, [records]

    def dying(self, fn, *given):
        for found in real(self, fn, *given):
            if not left[0]:
                raise KilledError
            left[0] -= 1
            yield found

    monkeypatch.setattr(RememberingPool, "map", dying)


@pytest.mark.parametrize("records", [0, 1, 5])
def test_a_killed_repair_goes_on_to_the_same_bytes(tmp_path, monkeypatch, undisturbed, records):
    with monkeypatch.context() as patched:
        killed_after(records, patched)
        assert isinstance(repaired(tmp_path).exception, KilledError)
    assert names(tmp_path) == ["f.journal"]
    found = repaired(tmp_path)
    assert found.exit_code == 0, found.stderr
    assert result(tmp_path) == undisturbed
    assert names(tmp_path) == ["f.cert.json", "f.onnx", "f.report.json"]


def test_what_was_proved_is_not_proved_again(tmp_path, monkeypatch, undisturbed):
    with monkeypatch.context() as patched:
        killed_after(10**6, patched)
        patched.setattr("sutura.cli.repair.write_all", lambda files: (_ for _ in ()).throw(KilledError))
        assert isinstance(repaired(tmp_path).exception, KilledError)
    from sutura.gates import cover

    def never(*_, **__):
        raise AssertionError("bounded again")

    monkeypatch.setattr(cover, "step", never)
    assert repaired(tmp_path).exit_code == 0
    assert result(tmp_path) == undisturbed


def test_neuron_gates_go_on_too(tmp_path, monkeypatch):
    more = ("--gate", "neuron", "--boxes", "20")
    assert repaired(tmp_path, *more).exit_code == 0
    wanted = result(tmp_path)
    with monkeypatch.context() as patched:
        killed_after(7, patched)
        assert isinstance(repaired(tmp_path, *more).exception, KilledError)
    assert repaired(tmp_path, *more).exit_code == 0
    assert result(tmp_path) == wanted


def test_a_torn_tail_is_made_good(tmp_path, monkeypatch, undisturbed):
    with monkeypatch.context() as patched:
        killed_after(4, patched)
        repaired(tmp_path)
    journal = tmp_path / "f.journal"
    journal.write_bytes(journal.read_bytes()[:-777] + b"\0" * 50)
    assert repaired(tmp_path).exit_code == 0
    assert result(tmp_path) == undisturbed


def test_journals_of_other_work(tmp_path, monkeypatch, undisturbed):
    journal = tmp_path / "j"
    with monkeypatch.context() as patched:
        killed_after(4, patched)
        repaired(tmp_path, "--journal", journal)
        repaired(tmp_path)
    more = ("--journal", journal)
    refused(say("repair", NET, ALERT, "-o", tmp_path / "f.onnx", *FAST, *more), "j is of other work")
    refused(repaired(tmp_path, "--boxes", "601", *more), "j is of other work")
    refused(say("verify", NET, NO_CLIMB, *more), "j is of other work")
    refused(repaired(tmp_path, "--no-journal", *more), "opposites")
    other = say("repair", NET, NO_CLIMB, "-o", tmp_path / "f.onnx", *FAST[:-1], "--boxes", "100")
    assert other.exit_code == 0
    assert "going on" not in other.stderr
    assert repaired(tmp_path, *more).exit_code == 0
    assert result(tmp_path) == undisturbed
    assert "j" not in names(tmp_path)


def test_no_journal(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(resuming, "open_journal", lambda *_, **__: pytest.fail("a journal was opened"))
    assert repaired(tmp_path, "--no-journal").exit_code == 0
    assert result(tmp_path) == undisturbed


def test_two_writers(tmp_path):
    other = open_journal(tmp_path / "f.journal", bytes(32))
    other.track("t").append(b"theirs")
    refused(repaired(tmp_path), "f.journal is in use by another run")
    other.close()
    assert names(tmp_path) == ["f.journal"]


def test_a_file_of_the_users_is_left_alone(tmp_path):
    (tmp_path / "f.journal").write_text("Dear diary")
    refused(repaired(tmp_path), "f.journal is no journal of sutura")
    assert (tmp_path / "f.journal").read_text() == "Dear diary"
    assert repaired(tmp_path, "--no-journal").exit_code == 0


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from sutura.cli.app import main
main(sys.argv[1:])
"""


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, undisturbed):
    given = ["repair", NET, NO_CLIMB, "-o", tmp_path / "f.onnx", *FAST]
    command = [sys.executable, "-c", LIMITED, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot write the journal" in done.stderr
    assert names(tmp_path) == ["f.journal"]
    assert (tmp_path / "f.journal").stat().st_size <= 60_000
    assert repaired(tmp_path).exit_code == 0
    assert result(tmp_path) == undisturbed


def test_a_verification_that_timed_out_goes_on(tmp_path, monkeypatch):
    journal = ("--journal", tmp_path / "j", "--workers", "1")

    def verdicts(*more):
        found = say("verify", NET, ALERT, EXAMPLE / "clear.vnnlib", "--json", *journal, *more)
        told = json.loads(found.stdout)["properties"]
        for entry in told:
            del entry["seconds"]
        return found.exit_code, told

    code, wanted = verdicts()
    assert names(tmp_path) == []
    with monkeypatch.context() as patched:
        killed_after(3, patched)
        say("verify", NET, ALERT, EXAMPLE / "clear.vnnlib", "--json", *journal)
    assert names(tmp_path) == ["j"]
    short = say("verify", NET, ALERT, EXAMPLE / "clear.vnnlib", *journal, "--timeout", "1e-9")
    assert short.exit_code == 3
    assert "the same command goes on" in short.stderr
    assert verdicts() == (code, wanted)
    assert names(tmp_path) == []
    refused(
        say("verify", ALERT, "--network", f"N={NET}", *journal[:2]), "--journal does not go with --network"
    )


def test_random_kills_lose_nothing():
    command = [sys.executable, ROOT / "benchmarks" / "trust_kills.py", "--quick"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["repair", "verify"]
    assert all(int(row[1]) == 4 for row in rows)
