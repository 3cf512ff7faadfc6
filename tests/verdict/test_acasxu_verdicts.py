"""ACAS Xu instances against the verdict on which all tools of the competition agree."""

from __future__ import annotations

import csv
import time

import pytest

from sutura.network.read import load
from sutura.property.read import read_property
from sutura.property.spec import violates
from sutura.verdict.outcome import Proved, Unknown, Violated
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify

QUICK = [
    *[(network, 1) for network in ("1_1", "1_9", "2_1", "3_3", "4_5")],
    *[(network, 2) for network in ("2_1", "2_9", "4_5", "5_5")],
    *[(network, 3) for network in ("1_9", "2_9", "3_3", "4_5", "5_5")],
    *[(network, 4) for network in ("1_9", "2_1", "2_9", "3_3", "4_5", "5_5")],
]


def ask(place, network, prop, **limits):
    loaded = load(place / f"acasxu/onnx/ACASXU_run2a_{network}_batch_2000.onnx")
    wanted = read_property(place / f"acasxu/vnnlib/prop_{prop}.vnnlib")
    return wanted, verify(loaded, wanted, VerifyConfig(**limits))


def agreed(place, network, prop):
    with (place / "acasxu/instances.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if f"run2a_{network}_" in row["onnx"] and row["vnnlib"].endswith(f"prop_{prop}.vnnlib"):
                return row["unanimous"]
    return None


@pytest.mark.parametrize(("network", "prop"), QUICK)
def test_verdicts_agree_with_all_tools(shared_data, network, prop):
    wanted, outcome = ask(shared_data, network, prop, timeout=60.0, workers=1)
    expected = {"holds": Proved, "violated": Violated}[agreed(shared_data, network, prop)]
    assert isinstance(outcome.verdict, expected)
    if isinstance(outcome.verdict, Violated):
        assert violates(wanted, outcome.verdict.witness.input, outcome.verdict.witness.output)


def test_a_timeout_is_obeyed_on_a_hard_instance(shared_data):
    started = time.monotonic()
    _, outcome = ask(shared_data, "3_3", 2, timeout=1.0, workers=1)
    assert outcome.verdict == Unknown("timed out after 1 s")
    assert outcome.account.seconds < 2.0 and time.monotonic() - started < 6.0
    assert 0.0 < outcome.account.proved_share < 1.0


def test_two_workers_do_what_one_does(shared_data):
    runs = [ask(shared_data, "2_1", 1, timeout=60.0, workers=count)[1] for count in (1, 2)]
    assert [type(run.verdict) for run in runs] == [Proved, Proved]
    assert runs[0].account.boxes == runs[1].account.boxes
