"""Qualified runtimes: what is measured, how it is stored, and what a verdict makes of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from planted import at_least, case, dense, loaded, prop

from sutura.cli.app import main
from sutura.errors import NetworkError
from sutura.network import ops
from sutura.verdict import qualify as room
from sutura.verdict.outcome import Proved
from sutura.verdict.qualify import dumps, loads, qualify
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify


@pytest.fixture(scope="module")
def measured():
    return qualify(samples=1 << 14)


def test_this_runtime_is_float32_in_some_order(measured):
    assert measured.execution == "float32-any-order"
    assert 0 < measured.share <= 1
    assert measured.subnormals in {"kept", "flushed"}
    assert [curve.operator for curve in measured.curves] == ["Sigmoid", "Tanh"]
    for curve in measured.curves:
        assert 0 < curve.error < 4e-7 and curve.inputs > 10_000 and not curve.exhaustive


def test_a_profile_comes_back_from_its_file(measured):
    assert loads(dumps(measured)) == measured


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (b"not json", "no execution profile"),
        (b"[]", "no execution profile"),
        (b'{"schema": "sutura/profile", "version": 2}', "no execution profile"),
        ({"execution": "reals"}, "none can have"),
        ({"execution": "magic"}, "none can have"),
        ({"share": 0.5, "more": 1}, "no execution profile"),
    ],
)
def test_other_files_are_refused(measured, change, words):
    data = change
    if isinstance(change, dict):
        data = json.dumps(json.loads(dumps(measured)) | change).encode()
    with pytest.raises(NetworkError, match=words):
        loads(data)


def test_a_runtime_that_errs_more_than_bounds_allow_is_refused(measured):
    wild = replace(measured, curves=(replace(measured.curves[0], error=5e-7), measured.curves[1]))
    with pytest.raises(NetworkError, match=r"Sigmoid of onnxruntime .* errs by 5e-07; bounds allow 4e-07"):
        loads(dumps(wild))
    with pytest.raises(NetworkError, match="bounds allow"):
        loads(dumps(replace(wild, curves=(replace(wild.curves[0], error=float("nan")),))))


def test_rounding_like_tf32_is_told_from_float32(monkeypatch):
    true = room.run

    def cut(session, x):
        import numpy as np

        return (true(session, x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)

    monkeypatch.setattr(room, "run", cut)
    assert room._share("float32-any-order", 0) > 1
    assert room._share("float32-chopping", 0) > 1
    assert room._share("tf32", 0) <= 1


def test_a_verdict_names_the_runtime_that_was_measured(measured):
    net = loaded(2, dense([[1, 2]], [0]), ops.Sigmoid())
    wanted = prop(2, 1, case([-1, -1], [1, 1], (at_least(0, 2),)))
    config = VerifyConfig(10.0, 1, profile=measured.execution, runtime=measured.runtime)
    verdict = verify(net, wanted, config).verdict
    assert isinstance(verdict, Proved) and verdict.claim.level == "PROVED@runtime"
    assert any(measured.runtime in text for text in verdict.claim.assumptions)


def test_the_command_stores_what_it_measured(tmp_path, capsys, monkeypatch, measured):
    monkeypatch.setattr("sutura.cli.qualify.qualify", lambda **_: measured)
    with pytest.raises(SystemExit) as done:
        main(["qualify", "-o", str(tmp_path / "runtime.json"), "--json"])
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out)["execution"] == measured.execution
    assert room.read_profile(tmp_path / "runtime.json") == measured
