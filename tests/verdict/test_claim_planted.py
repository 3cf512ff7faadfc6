"""Planted truth and order torture in their quick forms; benchmarks/trust_*.py have the long ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import trust_orders
import trust_planted


def test_no_verdict_on_planted_networks_is_false():
    rows, failures = trust_planted.judge(60, seed=7, timeout=0.15)
    assert not failures
    assert sum(row.count for row in rows) == 60
    assert [row.proved for row in rows if row.family in ("hat", "order")] == [0, 0]
    assert sum(row.proved for row in rows) >= 20 and sum(row.violated for row in rows) >= 5


def test_a_false_verdict_would_be_noticed():
    rng = np.random.default_rng(0)
    violated, satisfied = trust_planted.hat(rng), trust_planted.capped(rng)
    proof = trust_planted.verify(trust_planted.loaded(satisfied.layers), satisfied.prop)
    assert trust_planted.wrong(satisfied, proof, rng) == ""
    assert trust_planted.wrong(violated, proof, rng) == "false proved"
    lower = trust_planted.unsafe_above(satisfied.layers[0][0].shape[1], *bounds_of(satisfied), -1000)
    told = trust_planted.Planted("capped", satisfied.layers, lower, trust_planted.SATISFIED)
    assert trust_planted.wrong(told, proof, rng) == "false proved"


def bounds_of(planted):
    hull = planted.prop.cases[0].box.float32_hull()
    return [float(v) for v in hull[0]], [float(v) for v in hull[1]]


@pytest.mark.parametrize(("n", "omega"), [(3, 2.0**25), (34, 2.0**20), (66, 2.0**30)])
def test_what_only_some_orders_break_is_zero_over_the_reals_and_never_proved(n, omega):
    found = trust_planted.shown(n, omega)
    assert found["bound, reals"] < 1e-6
    assert found["bound, float32-any-order"] > 1
    assert found["verdict"] != "Proved"
    assert (found["verdict"] == "Violated") == (found["ONNX Runtime"] >= 1)


def test_every_order_of_execution_stays_inside_at_every_neuron():
    rows = trust_orders.run(5, 8, 12, 3, None)
    assert sum(row.executions for row in rows) >= 1000
    assert [row.way for row in rows if row.escapes] == []
    assert all(row.used < 1 for row in rows)


def test_the_torture_would_notice_bounds_without_noise(monkeypatch):
    monkeypatch.setattr(trust_orders, "PROFILE", "reals")
    rows = trust_orders.run(2, 4, 4, 3, None)
    assert sum(row.escapes for row in rows) > 100
