"""Whole data sets: journals that go on, bind and refuse; statistics; pictures; the command."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from risk_networks import dense, linear, points

from sutura.cli.app import main
from sutura.dataset import Dataset
from sutura.errors import DataError
from sutura.gates.cells import Cell, Cut
from sutura.gates.gate import OutputGate
from sutura.gates.gated_model import gated_model
from sutura.gates.safe_set import safe_set
from sutura.property.spec import Inequality
from sutura.risk import survey as survey_module
from sutura.risk.quantify import RiskConfig, RiskResult
from sutura.risk.safety import Adversarial, Uncertainty
from sutura.risk.survey import bootstrap, summarise, survey

CONFIG = RiskConfig(estimator="none")


def data(count=6, size=4, seed=0):
    return Dataset("d.npz", points(count, size, seed), np.arange(count, dtype=np.int64) % 3)


def plain(results):
    return [
        (r.lower, r.upper, r.label, None if r.witness is None else r.witness.input.tolist()) for r in results
    ]


def test_a_journal_goes_on_where_it_stopped(tmp_path, monkeypatch):
    net, journal = dense((4, 8, 3), 7), tmp_path / "risk.jsonl"
    whole = survey(net, data(), CONFIG)
    survey(net, data(), CONFIG, journal=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    asked = []
    true = survey_module.quantify_all

    def counting(seen, x, config, **named):
        asked.append(len(x))
        return true(seen, x, config, **named)

    monkeypatch.setattr(survey_module, "quantify_all", counting)
    events = []
    again = survey(net, data(), CONFIG, journal=journal, listen=events.append)
    assert sum(asked) == 3
    assert (events[0].boxes, events[-1].settled) == (3, 1.0)
    assert plain(again)[:3] == plain(whole)[:3]
    assert plain(survey(net, data(), CONFIG, journal=journal)) == plain(again)
    assert len(journal.read_bytes().splitlines()) == 7


def test_a_journal_is_bound_to_what_was_asked(tmp_path):
    net, journal = dense((4, 8, 3), 7), tmp_path / "risk.jsonl"
    survey(net, data(), CONFIG, journal=journal)
    others = [
        (dense((4, 8, 3), 8), data(), CONFIG),
        (net, data(seed=1), CONFIG),
        (net, data(), RiskConfig(estimator="none", norm="l2")),
        (net, data(), RiskConfig(estimator="none", risk=Uncertainty(0.01))),
        (net, data(), RiskConfig(estimator="none", risk=Adversarial("argmin"))),
    ]
    for other in others:
        with pytest.raises(DataError, match="another network, data set or configuration"):
            survey(*other, journal=journal)


@pytest.mark.parametrize("text", [b"no journal\n", b"[]\n", b'{"schema": "other"}\n'])
def test_files_that_are_no_journal_are_left_alone(tmp_path, text):
    journal = tmp_path / "notes.txt"
    journal.write_bytes(text)
    with pytest.raises(DataError, match="no journal"):
        survey(dense((4, 8, 3), 7), data(), CONFIG, journal=journal)
    assert journal.read_bytes() == text


@pytest.mark.parametrize("change", [{"level": "sure"}, {"witness": ["!", "!"]}, {"lower": None}])
def test_damaged_lines_are_named(tmp_path, change):
    net, journal = dense((4, 8, 3), 7), tmp_path / "risk.jsonl"
    survey(net, data(2), CONFIG, journal=journal)
    lines = journal.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **change})
    journal.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="line 2"):
        survey(net, data(2), CONFIG, journal=journal)


def result(lower, upper, label=0):
    return RiskResult(lower, upper, None, None, "PROVED", label, 1.0)


def test_statistics_by_hand():
    said = summarise([result(1.0, 2.0), result(2.0, 4.0, 1), result(3.0, math.inf, 1), result(0.0, 1.0)])
    assert (said.inputs, said.certified, said.attacked) == (4, 3, 3)
    assert said.lower["0.5"].value == 1.0
    assert said.upper["0.95"].value == math.inf
    assert said.tightness.value == pytest.approx(1.0 / 3.0)
    assert said.worst == (3, 0, 1, 2)
    assert [(c.label, c.inputs, c.least_lower) for c in said.classes] == [(0, 2, 0.0), (1, 2, 2.0)]


def test_bootstrap_intervals_hold_the_mean_about_as_often_as_they_say():
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        found = bootstrap(random.normal(size=40), np.mean, random)
        held += found.low <= 0.0 <= found.high
    assert 176 <= held <= 199


def say(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("risk")
    (folder / "net.onnx").write_bytes(dense((4, 8, 3), 7).original)
    (folder / "one.onnx").write_bytes(linear([[1.0, 1.0, 0.0, 0.0]]).original)
    np.savez(folder / "d.npz", x=points(4, 4), y=np.arange(4) % 3)
    np.savez(folder / "box.npz", low=np.zeros(4), high=np.full(4, 2.0))
    return folder


def test_the_command_prints_one_object(files):
    said = say(
        "risk", files / "net.onnx", "--data", files / "d.npz", "--risk", "adversarial,uncertainty", "--json"
    )
    assert said.exit_code == 0
    found = json.loads(said.stdout)
    assert (found["schema"], found["version"]) == ("sutura/risk", 1)
    assert [(r["risk"], r["input"]) for r in found["results"]] == [
        (name, i) for name in ("adversarial", "uncertainty") for i in range(4)
    ]
    for r in found["results"]:
        assert r["upper"] is None or r["lower"] <= r["upper"]
        assert {"lower", "upper", "estimate", "witness", "level"} <= set(r)
    assert found["summaries"][0]["certified_cdf"] == sorted(r["lower"] for r in found["results"][:4])


def test_the_command_draws_resumes_and_reads_domains(files, tmp_path):
    pytest.importorskip("matplotlib")
    picture, journal = tmp_path / "cdf.png", tmp_path / "j.jsonl"
    common = [
        "risk",
        files / "net.onnx",
        "--data",
        files / "d.npz",
        "--resume",
        journal,
        "--domain",
        files / "box.npz",
    ]
    first = say(*common, "--plot", picture, "--decision", "argmin", "--norm", "l2")
    assert first.exit_code == 0, first.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "mean lower / upper" in first.stderr
    assert say(*common, "--decision", "argmin", "--norm", "l2", "--json").exit_code == 0
    assert len(journal.read_text().splitlines()) == 5


def test_the_command_measures_ranges(files):
    common = ["risk", files / "one.onnx", "--data", files / "d.npz", "--risk", "reachability", "--json"]
    found = json.loads(say(*common, "--range", ",1.9").stdout)
    assert all(r["lower"] > 0 for r in found["results"] if r["safety"] > 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--risk", "adverserial"], "did you mean adversarial"),
        (["--risk", "reachability"], "needs --range"),
        (["--risk", "reachability", "--range", "a,b"], "--range is 'a,b'"),
        (["--risk", "reachability", "--range", "0,1", "--output", "7"], "output 7 is not there"),
        (["--domain", "0,0.001"], "no float32 number of the domain"),
        (["--domain", "0"], "--domain is '0'"),
        (["--domain", "nan,1"], "--domain is 'nan,1'"),
        (["--risk", "adversarial,uncertainty", "--resume", "j"], "one by one"),
        (["--domain", "missing.npz"], "cannot read"),
    ],
)
def test_bad_input_is_one_line_and_code_two(files, options, words):
    said = say("risk", files / "net.onnx", "--data", files / "d.npz", *options)
    assert said.exit_code == 2
    assert words in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1


def test_uncertainty_is_no_question_to_one_output(files):
    said = say("risk", files / "one.onnx", "--data", files / "d.npz", "--risk", "uncertainty")
    assert said.exit_code == 2
    assert "at least two outputs" in said.stderr


def test_a_repaired_file_is_told_apart(files):
    tree = (Cut(0, 0.5), Cell(1), Cell(0))
    safe = safe_set([(Inequality(((0, Fraction(1)),), Fraction(0)),)])
    network = dense((4, 8, 3), 7).network
    repaired = gated_model(network, tree, [OutputGate(safe, np.ones(3, np.float32))])
    (files / "gated.onnx").write_bytes(repaired.onnx)
    said = say("risk", files / "gated.onnx", "--data", files / "d.npz")
    assert said.exit_code == 2 and len(said.stderr.strip().splitlines()) == 1
    assert "was repaired and has gates" in said.stderr and "measure the network" in said.stderr
