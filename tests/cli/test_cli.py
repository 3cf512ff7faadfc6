"""The command line on the example: files, streams, exit codes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from sutura.cli import repair as repair_command
from sutura.cli.app import COMMANDS, main
from sutura.property.build import argmin_in, box

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"
NET, NO_CLIMB, ALERT = EXAMPLE / "vertical_cas.onnx", EXAMPLE / "no_climb.vnnlib", EXAMPLE / "alert.vnnlib"
FAST = ("--boxes", "200", "--workers", "1", "--decision", "argmin")


def say(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def one_object(text):
    found, end = json.JSONDecoder().raw_decode(text)
    assert text[end:].strip() == ""
    assert isinstance(found, dict)
    return found


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def refused(result, *words):
    """One line on stderr, nothing on stdout, exit code 2."""
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """A repair of the example with its report."""
    folder = tmp_path_factory.mktemp("fixed")
    result = say("repair", NET, NO_CLIMB, ALERT, "-o", folder / "fixed.onnx", *FAST, "--json")
    assert result.exit_code == 0, result.stderr
    return folder, one_object(result.stdout), result


def test_help_lists_every_command_without_importing_any():
    code = (
        "import sys; from sutura.cli.app import main; "
        "main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name, words in COMMANDS.items():
        assert name in said
        assert words in said
        assert f"sutura.cli.{name}'" not in said
        assert say(name, "--help").exit_code == 0
    assert "'numpy'" not in said


def test_inspect():
    result = say("inspect", NET, "--json")
    found = one_object(result.stdout)
    assert result.exit_code == 0
    assert found["schema"] == "sutura/inspect"
    assert found["parameters"] == 2405
    assert found["supported"] is True
    assert result.stderr == ""
    shown = say("inspect", NET)
    assert shown.exit_code == 0
    assert shown.stdout == ""
    assert "agrees with ONNX Runtime" in shown.stderr


def strange_network(place, operator):
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3]) for n in "xy")
    node = helper.make_node(operator, ["x"], ["y"], name="[/red][bold]\x1b[2J")
    graph = helper.make_graph([node], "g", [x], [y])
    place.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()
    )
    return place


@pytest.mark.parametrize(("operator", "code"), [("Erf", 1), ("Relu", 0)])
def test_inspect_shows_hostile_names_as_text(tmp_path, operator, code):
    result = say("inspect", strange_network(tmp_path / "[x][red].onnx", operator))
    assert result.exit_code == code, result.exception
    assert "\x1b[2J" not in result.stderr
    assert "[/red]" in result.stderr


def test_verify_violated_and_proved():
    result = say("verify", NET, NO_CLIMB, ALERT, "--json")
    found = one_object(result.stdout)
    assert result.exit_code == 1
    assert [p["verdict"] for p in found["properties"]] == ["violated", "proved"]
    assert result.stderr == ""
    proved = say("verify", NET, ALERT)
    assert proved.exit_code == 0
    assert proved.stdout == ""
    assert "proved" in proved.stderr


def test_what_a_level_means_is_said_once_for_all_that_reached_it():
    said = say("verify", NET, ALERT, ALERT, NO_CLIMB).stderr
    assert said.count("2 of 3 properties: PROVED: holds for every") == 1
    assert said.count("PROVED:") == said.count("inputs are float32 numbers") == 1


def test_verify_unknown_in_no_time():
    result = say("verify", NET, ALERT, "--timeout", "1e-9", "--json")
    assert result.exit_code == 3
    assert one_object(result.stdout)["properties"][0]["verdict"] == "unknown"


def test_repair_writes_the_three_files(fixed):
    folder, report, result = fixed
    assert names(folder) == ["fixed.cert.json", "fixed.onnx", "fixed.report.json"]
    assert json.loads((folder / "fixed.report.json").read_text()) == report
    assert report["schema"] == "sutura/repair"
    assert [b["verdict"] for b in report["before"]] == ["violated", "proved"]
    assert report["after"] == "certified"
    assert report["estimates"]["inside"][0]["violating_after"] == 0
    assert report["estimates"]["outside"]["identical"] == 1
    assert result.stderr == ""


def test_check_accepts_and_refuses(fixed, tmp_path):
    folder, _, _ = fixed
    cert = folder / "fixed.cert.json"
    accepted = say("check", folder / "fixed.onnx", NO_CLIMB, ALERT, cert, "--json")
    assert accepted.exit_code == 0
    assert one_object(accepted.stdout)["accepted"] is True
    refusal = say("check", NET, NO_CLIMB, ALERT, cert)
    assert refusal.exit_code == 1
    assert refusal.stdout.startswith("refused: ")
    missing = say("check", tmp_path / "no.onnx", NO_CLIMB, cert)
    assert missing.exit_code == 2
    assert len(missing.stderr.splitlines()) == 1


def test_repair_shows_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    result = say("repair", NET, NO_CLIMB, "-o", tmp_path / "out.onnx", "--plot", tmp_path / "map.png", *FAST)
    assert result.exit_code == 0, result.exception
    assert result.stdout == ""
    assert "certified" in result.stderr
    assert names(tmp_path) == ["map.png", "out.cert.json", "out.onnx", "out.report.json"]
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_published_method_says_what_it_leaves(tmp_path):
    out = tmp_path / "out.onnx"
    result = say("repair", NET, NO_CLIMB, "-o", out, "--method", "nrepair", "--timeout", "1e-6", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (report["method"], report["after"]) == ("nrepair", "unproved")
    assert report["trials"]["skipped"] == report["trials"]["boxes"] > 0
    assert "not reached in time" in report["note"]
    assert out.exists()
    assert not out.with_suffix(".cert.json").exists()


def test_repair_gives_the_checker_a_property_that_it_can_read(tmp_path):
    packed = tmp_path / "two.vnnlib.gz"
    packed.write_bytes(
        gzip.compress(NO_CLIMB.read_bytes()[:100]) + gzip.compress(NO_CLIMB.read_bytes()[100:])
    )
    single = tmp_path / "one.vnnlib.gz"
    single.write_bytes(gzip.compress(ALERT.read_bytes()))
    result = say("repair", NET, packed, single, "-o", tmp_path / "f.onnx", *FAST)
    assert result.exit_code == 0, result.stderr
    assert "f.two.vnnlib" in names(tmp_path)
    assert "f.one.vnnlib" not in names(tmp_path)
    again = say("check", tmp_path / "f.onnx", tmp_path / "f.two.vnnlib", single, tmp_path / "f.cert.json")
    assert again.exit_code == 0, again.stdout


CASES = [
    "missing network", "missing property", "missing property, verify", "torn network",
    "torn network, inspect", "missing network, inspect", "wrong suffix", "two networks", "no property",
    "torn property", "other size", "a folder", "no folder", "file for a folder", "suffix of -o",
    "suffix of --plot", "overwrites its input",
]  # fmt: skip


def bad_inputs(folder):
    """Name -> arguments of a command that must be refused, and what it must say."""
    out = ("-o", folder / "f.onnx")
    torn = folder / "torn.onnx"
    torn.write_bytes(NET.read_bytes()[:900])
    small = folder / "small.vnnlib"
    small.write_text(
        "(declare-const X_0 Real)(declare-const Y_0 Real)"
        "(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= Y_0 0))"
    )
    (folder / "net.txt").write_text("?")
    (folder / "p.vnnlib").write_text("(assert")
    (folder / "a file").write_text("")
    (folder / "same.onnx").write_bytes(NET.read_bytes())
    return {
        "missing network": (["repair", folder / "no.onnx", ALERT, *out], ["cannot read"]),
        "missing property": (["repair", NET, folder / "no.vnnlib", *out], ["no.vnnlib"]),
        "missing property, verify": (["verify", NET, ALERT, folder / "no.vnnlib"], ["no.vnnlib"]),
        "torn network": (["repair", torn, ALERT, *out], ["torn.onnx"]),
        "torn network, inspect": (["inspect", torn], ["torn.onnx"]),
        "missing network, inspect": (["inspect", folder / "no.onnx"], ["cannot read"]),
        "wrong suffix": (["verify", folder / "net.txt", ALERT], ["net.txt", ".onnx"]),
        "two networks": (["verify", NET, folder / "net.txt", ALERT], ["net.txt", "one network"]),
        "no property": (["verify", NET], ["no property"]),
        "torn property": (["repair", NET, folder / "p.vnnlib", *out], ["p.vnnlib"]),
        "other size": (["repair", NET, small, *out], ["1 inputs", "3"]),
        "a folder": (["repair", folder, ALERT, *out], []),
        "no folder": (["repair", NET, ALERT, "-o", folder / "none" / "f.onnx"], ["none"]),
        "file for a folder": (["repair", NET, ALERT, "-o", folder / "a file" / "f.onnx"], ["a file"]),
        "suffix of -o": (["repair", NET, ALERT, "-o", folder / "f.bin"], ["f.bin", ".onnx"]),
        "suffix of --plot": (["repair", NET, ALERT, *out, "--plot", folder / "m.jpg"], ["m.jpg", ".png"]),
        "overwrites its input": (
            ["repair", folder / "same.onnx", ALERT, "-o", folder / "same.onnx"],
            ["same.onnx"],
        ),
    }


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_code_two(tmp_path, case):
    arguments, words = bad_inputs(tmp_path)[case]
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    refused(say(*arguments), *words)
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o555)
    refused(say("repair", NET, ALERT, "-o", tmp_path / "f.onnx"), "cannot be written")


def test_a_place_taken_by_a_folder_leaves_no_file(tmp_path):
    (tmp_path / "f.report.json").mkdir()
    refused(
        say("repair", NET, NO_CLIMB, "-o", tmp_path / "f.onnx", *FAST), "f.report.json", "nothing was written"
    )
    assert names(tmp_path) == ["f.journal", "f.report.json"]
    (tmp_path / "f.report.json").rmdir()
    resumed = say("repair", NET, NO_CLIMB, "-o", tmp_path / "f.onnx", *FAST)
    assert resumed.exit_code == 0
    assert "going on from" in resumed.stderr
    assert names(tmp_path) == ["f.cert.json", "f.onnx", "f.report.json"]


def test_usage_errors_have_code_two():
    assert say("repair", NET, ALERT).exit_code == 2
    assert say("verify", NET, ALERT, "--timeout", "0").exit_code == 2
    assert say("mend", NET).exit_code == 2


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (MemoryError, 2), (OSError("odd"), 2)])
def test_what_goes_wrong_on_the_way_leaves_nothing(tmp_path, monkeypatch, error, code):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(repair_command, "mended", fail)
    result = say("repair", NET, NO_CLIMB, "-o", tmp_path / "f.onnx", *FAST)
    assert result.exit_code == code
    assert len(result.stderr.strip().splitlines()) == 1
    assert names(tmp_path) == []


SLOW = """
import sys
from sutura.cli import repair
from sutura.cli.app import main

real = repair.mended

def told(*given, **options):
    print("started", flush=True)
    return real(*given, **options)

repair.mended = told
main(sys.argv[1:])
"""


def test_an_interrupted_process_leaves_nothing(tmp_path):
    given = ["repair", NET, NO_CLIMB, "-o", tmp_path / "f.onnx", "--boxes", 10**8, "--workers", 1]
    command = [sys.executable, "-c", SLOW, *map(str, given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "started\n"
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert "Traceback" not in said
    assert "nothing was written" in said
    assert "f.journal keeps what was done" in said
    assert names(tmp_path) == ["f.journal"]


def test_contradictory_properties_name_both(tmp_path):
    for name, label in (("first", 0), ("second", 1)):
        wanted = argmin_in(box([0, 0, 0], [0.5, 1, 1]), [label], outputs=5)
        (tmp_path / f"{name}.vnnlib").write_bytes(wanted.text)
    files = tmp_path / "first.vnnlib", tmp_path / "second.vnnlib"
    result = say("repair", NET, *files, "-o", tmp_path / "f.onnx", *FAST)
    refused(result, "'first' and 'second' contradict each other", "X_0 in [0, 0.5]")
    assert names(tmp_path) == ["first.vnnlib", "second.vnnlib"]


def test_the_repaired_file_is_an_ordinary_onnx_file(fixed):
    onnx.checker.check_model(str(fixed[0] / "fixed.onnx"), full_check=True)


def test_a_verdict_does_not_load_the_rooms_of_repair():
    code = (
        "import sys, sutura.cli.verify; "
        "print(sorted(n for n in sys.modules if n.startswith(('sutura.gates', 'scipy.optimize', 'torch'))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
