"""Proofs that carry over: of properties that rest on the decision, where none can have changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sutura.cli.app import main
from sutura.network import ops
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.property.build import argmax_in, argmin_in, argmin_not_in, box, output_bound
from sutura.ship.carry import rests_on_decision

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"
WHERE = box([0.0, 0.0], [1.0, 1.0])


def test_which_properties_rest_on_the_decision():
    assert rests_on_decision(argmin_in(WHERE, [0, 2], outputs=4), "argmin")
    assert rests_on_decision(argmin_not_in(WHERE, [1], outputs=4), "argmin")
    assert rests_on_decision(argmax_in(WHERE, [3], outputs=4), "argmax")
    assert not rests_on_decision(argmax_in(WHERE, [3], outputs=4), "argmin")
    assert not rests_on_decision(output_bound(WHERE, 0, upper=1.0, outputs=3), "argmax")
    assert not rests_on_decision(output_bound(WHERE, 0, upper=0.0, outputs=1), "argmax")


RECIPE = """
network = "net.onnx"
properties = ["alert.vnnlib", "value.vnnlib"]
[[stage]]
run = "verify"
[[stage]]
run = "shift"
bits = {bits}
[[stage]]
run = "diff"
region = "{region}"
decision = "{decision}"
boxes = 200
samples = 500
[[stage]]
run = "verify"
"""


@pytest.fixture
def folder(tmp_path):
    """A network whose third output is the least by far, a property of that decision, and one of a value."""
    from dataclasses import replace

    import numpy as np

    loaded = load(EXAMPLE / "vertical_cas.onnx")
    last = loaded.network.nodes[-1]
    low = np.zeros(5, np.float32)
    low[2] = -10.0  # the third output is the least everywhere: whatever is shifted, it leads
    assert isinstance(last.op, ops.AddConstant)
    lowered = replace(last, op=replace(last.op, value=(last.op.value + low).astype(np.float32)))
    network = replace(loaded.network, nodes=(*loaded.network.nodes[:-1], lowered))
    (tmp_path / "net.onnx").write_bytes(write_onnx(network))
    small = box([0.1, 0.1, 0.1], [0.2, 0.2, 0.2])
    (tmp_path / "alert.vnnlib").write_bytes(argmin_in(small, [2], outputs=5).text)
    (tmp_path / "value.vnnlib").write_bytes(output_bound(small, 0, upper=50.0, outputs=5).text)
    return tmp_path


def shipped(folder, **said):
    text = RECIPE.format(**{"bits": 5, "region": "alert.vnnlib", "decision": "argmin", **said})
    (folder / "recipe.toml").write_text(text)
    run = CliRunner().invoke(main, ["ship", str(folder / "recipe.toml"), "-o", str(folder / "out"), "--json"])
    assert run.exit_code in (0, 1, 3), run.stderr
    return json.loads(run.stdout)


def test_a_proof_carries_over_and_only_the_rest_is_asked_again(folder):
    report = shipped(folder)
    alert, value = report["properties"]
    assert (alert["verdict"], alert["carried"], alert["level"]) == ("proved", True, "PROVED")
    assert alert["assumptions"]
    assert (value["verdict"], value["carried"]) == ("proved", False)
    last = report["stages"][-1]
    assert [p["property"] for p in last["document"]["properties"]] == ["value.vnnlib"]
    assert [p["property"] for p in last["carried"]] == ["alert.vnnlib"]
    assert "carries over" in (folder / "out" / "report.html").read_text()


@pytest.mark.parametrize("said", [{"region": "value.vnnlib"}, {"decision": "argmax"}])
def test_another_region_or_another_decision_carries_nothing(folder, said):
    report = shipped(folder, **said)
    assert not any(known["carried"] for known in report["properties"])
    asked = report["stages"][-1]["document"]["properties"]
    assert [p["property"] for p in asked] == ["alert.vnnlib", "value.vnnlib"]


def test_what_was_not_proved_does_not_carry(folder):
    where = box([0.1, 0.1, 0.1], [0.2, 0.2, 0.2])
    (folder / "alert.vnnlib").write_bytes(argmin_in(where, [1], outputs=5).text)
    report = shipped(folder)
    assert not any(known["carried"] for known in report["properties"])
