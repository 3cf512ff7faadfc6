"""`sutura evaluate` and `sutura inspect` on a repair of the example."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sutura.cli.app import main
from sutura.gates.evaluate import uniform
from sutura.network.run import open_session, run
from sutura.property.read import read_property

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"
NET, NO_CLIMB = EXAMPLE / "vertical_cas.onnx", EXAMPLE / "no_climb.vnnlib"


def say(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    place = tmp_path_factory.mktemp("fixed") / "fixed.onnx"
    result = say("repair", NET, NO_CLIMB, "-o", place, "--boxes", "200", "--workers", "1")
    assert result.exit_code == 0, result.stderr
    return place


def evaluated(*arguments):
    given = ("evaluate", *arguments, "--decision", "argmin", "--samples", "3000", "--json")
    result = say(*given)
    assert result.exit_code in {0, 1}, result.stderr
    return result.exit_code, json.loads(result.stdout)


def test_a_repair_is_measured(fixed):
    code, found = evaluated(NET, fixed, NO_CLIMB)
    assert code == 0
    assert (found["schema"], found["certificate"]["accepted"]) == ("sutura/evaluate", True)
    (inner,), (attack,) = found["inside"], found["attack"]
    assert inner["violating_before"] > 0 == inner["violating_after"]
    assert inner["identical"] == inner["agreeing"] == found["outside"]["identical"] == 1.0
    assert inner["change_most"] >= inner["change_wrong"] > 0 == found["outside"]["change_most"]
    assert attack["violating_before"] > 0 == attack["violating_after"]
    assert found["gates"] == {"output": 1}
    assert found["bytes"]["after"] > found["bytes"]["before"]
    assert [row["batch"] for row in found["speed"]] == [1, 1024]
    assert found["data"] is None


def test_the_other_way_round_the_repair_is_undone(fixed):
    """The violated network as the result: violations are found, its certificate is missing, the code is 1."""
    result = say("evaluate", fixed, NET, NO_CLIMB, "--json")
    assert result.exit_code == 2  # gates are no part of what is repaired
    code, found = evaluated(NET, NET, NO_CLIMB)
    assert code == 1
    assert found["certificate"]["accepted"] is None
    assert found["gates"] is None
    assert found["inside"][0]["violating_after"] == found["inside"][0]["violating_before"] > 0


def test_labelled_data_and_a_picture(fixed, tmp_path):
    low, high = read_property(NO_CLIMB).cases[0].box.float32_hull()
    x = np.concatenate([uniform(low, high, 20_000, 0), uniform(low - 1, high + 1, 300, 1)])
    y = run(open_session(NET.read_bytes()), x).argmin(axis=1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    pytest.importorskip("matplotlib")
    _, found = evaluated(NET, fixed, NO_CLIMB, "--data", tmp_path / "d.npz", "--plot", tmp_path / "map.png")
    data = found["data"]
    assert data["accuracy_before"] == 1.0
    assert data["accuracy_after"] == pytest.approx(1.0 - data["drawdown"])
    assert data["identical"] < 1.0
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_people_are_told_the_same(fixed):
    result = say("evaluate", NET, fixed, NO_CLIMB, "--samples", "2000")
    assert result.exit_code == 0
    for words in ("certificate: accepted", "violating after", "0.0000%", "gates: 1 output", "batch 1:"):
        assert words in result.stderr


@pytest.mark.parametrize(
    ("files", "words"),
    [((NET, NO_CLIMB), "the original network and the repaired one"), ((NET, NET), "no property is given")],
)
def test_what_is_missing_is_said(files, words):
    result = say("evaluate", *files)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_network_of_other_sizes_is_refused(fixed, tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 7), np.float32), y=np.zeros(2, np.int64))
    result = say("evaluate", NET, fixed, NO_CLIMB, "--data", tmp_path / "d.npz", "--samples", "10")
    assert result.exit_code == 2
    assert "samples of 7 numbers" in result.stderr


def test_inspect_draws_the_gates(fixed):
    result = say("inspect", fixed)
    assert result.exit_code == 0
    for words in ("output", "100.00%", "as it was", "row 1", "comparisons on the longest way"):
        assert words in result.stderr
    found = json.loads(say("inspect", fixed, "--json").stdout)
    assert found["kinds"] == {"output": 1}
    assert found["gates"][0]["number"] == 1
