"""Output ranges: exact by hand, enclosed on random networks, by both kinds of branch and bound."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from risk_networks import dense, linear, points

from sutura.cli.app import main
from sutura.errors import MismatchError
from sutura.network import ops
from sutura.network.run import open_session, run
from sutura.risk import reach as reach_module
from sutura.risk.ball import domain
from sutura.risk.quantify import RiskConfig, quantify_risk
from sutura.risk.reach import RangeConfig, output_range
from sutura.risk.safety import Reachability

QUICK = RangeConfig(samples=500, starts=16, budget=10.0, workers=1)


def test_a_linear_output_by_hand():
    found = output_range(linear([[2.0, -1.0]], [0.5]), 0, domain(np.zeros(2), np.array([1.0, 3.0])), QUICK)
    assert (found.low.attained, found.high.attained) == (-2.5, 2.5)
    assert -2.5 * 1.02 <= found.low.certified <= -2.5
    assert 2.5 <= found.high.certified <= 2.5 * 1.02


@pytest.mark.parametrize("few", [16, 0])
@pytest.mark.parametrize("activation", [ops.Relu, ops.Tanh])
def test_ranges_enclose_every_sample(monkeypatch, few, activation):
    monkeypatch.setattr(reach_module, "FEW_INPUTS", few)
    net, limits = dense((2, 16, 2), 3, activation), domain(np.zeros(2), np.full(2, 3.0))
    found = output_range(net, 1, limits, QUICK)
    axis = np.linspace(0.0, 3.0, 301, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    y = run(open_session(net.original), grid)[:, 1]
    width = y.max() - y.min()
    assert found.low.certified <= y.min()
    assert found.high.certified >= y.max()
    assert found.low.attained <= y.min() + 0.01 * width
    assert found.high.attained >= y.max() - 0.01 * width
    assert found.enclosure_excess <= 0.02
    for end in (found.low, found.high):
        assert run(open_session(net.original), end.witness[None])[0, 1] == np.float32(end.attained)


def test_what_time_does_not_allow_is_still_enclosed():
    net, limits = dense((3, 30, 30, 1), 5), domain(np.zeros(3), np.full(3, 10.0))
    hasty = output_range(net, 0, limits, RangeConfig(samples=200, starts=4, budget=0.2, workers=1))
    assert hasty.low.certified <= hasty.low.attained <= hasty.high.attained <= hasty.high.certified


def test_without_gradients_the_range_is_searched_by_patterns():
    net = dense((2, 8, 1), 1)
    seen = RiskConfig(risk=Reachability(0), gradients=False, reach=0.1, workers=1)
    x = points(1, 2, 2)[0]
    found, known = (
        quantify_risk(net, x, seen),
        quantify_risk(net, x, RiskConfig(risk=Reachability(0), reach=0.1)),
    )
    for name in ("attained_low", "attained_high"):
        assert found.figures[name] == pytest.approx(known.figures[name], rel=1e-3, abs=1e-4)


def test_an_output_that_is_not_there_is_refused():
    with pytest.raises(MismatchError):
        output_range(dense((2, 8, 1), 1), 1, domain(np.zeros(2), np.ones(2)))


def test_the_command_gives_ranges(tmp_path):
    (tmp_path / "net.onnx").write_bytes(dense((2, 8, 1), 1).original)
    np.savez(tmp_path / "d.npz", x=points(2, 2))
    command = [
        "risk",
        tmp_path / "net.onnx",
        "--data",
        tmp_path / "d.npz",
        "--risk",
        "reachability",
        "--radius",
        0.1,
    ]
    said = CliRunner().invoke(main, [str(v) for v in (*command, "--json")])
    assert said.exit_code == 0, said.output
    for r in json.loads(said.stdout)["results"]:
        f = r["figures"]
        assert f["certified_low"] <= f["attained_low"] <= f["attained_high"] <= f["certified_high"]
