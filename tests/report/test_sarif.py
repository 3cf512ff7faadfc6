"""SARIF 2.1.0: every object has what the standard requires of it, and each verdict its kind and level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sutura.cli.app import main
from sutura.report.sarif import RULES, repaired, sarif

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vertical_cas"
NET, CLEAR, NO_CLIMB = EXAMPLE / "vertical_cas.onnx", EXAMPLE / "clear.vnnlib", EXAMPLE / "no_climb.vnnlib"

WITNESS = {"case": 0, "input": [0.5], "input_hex": ["0x1p-1"], "output": [2.0]}
RESULTS = [
    {"network": "nets/a b.onnx", "property": "p.vnnlib", "verdict": "violated", "witness": WITNESS},
    {"network": "/nets/a.onnx", "property": "p.vnnlib", "verdict": "proved", "level": "PROVED"},
    {"network": "a.onnx", "property": "q.vnnlib", "verdict": "holds-real", "level": "HOLDS-REAL"},
    {"network": "a.onnx", "property": "r.vnnlib", "verdict": "unknown", "reason": "timed out after 5 s"},
    {"network": "a.onnx", "property": "s.vnnlib", "verdict": "error", "kind": "NetworkError", "reason": "no"},
    {"network": "a.onnx", "property": "t.vnnlib", "verdict": "open"},
]  # fmt: skip

REQUIRED = {
    "log": {"version", "runs"},
    "run": {"tool"},
    "tool": {"driver"},
    "driver": {"name"},
    "rule": {"id"},
    "result": {"message"},
    "invocation": {"executionSuccessful"},
}
"""Object -> the properties that the OASIS schema requires of it."""

LEVELS = {"none", "note", "warning", "error"}
KINDS = {"pass", "open", "informational", "notApplicable", "review", "fail"}


def check(log):
    """What the schema and section 3.27 of the standard demand of the objects that we write."""
    assert REQUIRED["log"] <= set(log)
    assert log["version"] == "2.1.0"
    for run in log["runs"]:
        assert REQUIRED["run"] <= set(run)
        assert REQUIRED["tool"] <= set(run["tool"])
        assert REQUIRED["driver"] <= set(run["tool"]["driver"])
        rules = run["tool"]["driver"]["rules"]
        assert len({rule["id"] for rule in rules}) == len(rules)
        for rule in rules:
            assert REQUIRED["rule"] <= set(rule)
            assert isinstance(rule["shortDescription"]["text"], str)
            assert rule["defaultConfiguration"]["level"] in LEVELS
        assert all(REQUIRED["invocation"] <= set(i) for i in run["invocations"])
        for result in run["results"]:
            check_result(result, rules)
    json.dumps(log, allow_nan=False)


def check_result(result, rules):
    assert REQUIRED["result"] <= set(result)
    assert result["message"]["text"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["kind"] in KINDS
    assert result["level"] in LEVELS
    assert (result["kind"] == "fail") == (result["level"] != "none")
    places = [*result["locations"], *result["relatedLocations"]]
    for place in places:
        uri = place["physicalLocation"]["artifactLocation"]["uri"]
        assert " " not in uri
        assert "\\" not in uri
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1


def test_every_verdict_has_its_kind_and_level():
    log = sarif(RESULTS)
    check(log)
    found = log["runs"][0]["results"]
    assert [(r["ruleId"], r["kind"], r["level"]) for r in found] == [
        ("SUT001", "fail", "error"),
        ("SUT004", "pass", "none"),
        ("SUT005", "pass", "none"),
        ("SUT002", "open", "none"),
        ("SUT003", "fail", "error"),
    ]  # and none for what is not decided yet
    assert [r["message"]["text"] for r in found] == [
        "a b.onnx violates p.vnnlib: input [0.5] gives [2] in ONNX Runtime.",
        "a.onnx: p.vnnlib is proved (PROVED).",
        "a.onnx: q.vnnlib holds over the reals (HOLDS-REAL).",
        "a.onnx: r.vnnlib is not decided: timed out after 5 s.",
        "a.onnx and s.vnnlib cannot be used: no.",
    ]
    assert found[0]["properties"]["witness"]["input_hex"] == ["0x1p-1"]
    uris = [r["relatedLocations"][0]["physicalLocation"]["artifactLocation"] for r in found[:2]]
    assert uris == [{"uri": "nets/a%20b.onnx", "uriBaseId": "SRCROOT"}, {"uri": "file:///nets/a.onnx"}]


def test_fingerprints_name_the_finding_and_not_the_run():
    prints = [
        [r["partialFingerprints"]["sutura/v1"] for r in sarif(RESULTS)["runs"][0]["results"]] for _ in "ab"
    ]
    assert prints[0] == prints[1]
    assert len(set(prints[0])) == 5
    slower = sarif([{**RESULTS[0], "seconds": 9.0}])["runs"][0]["results"][0]
    assert slower["partialFingerprints"]["sutura/v1"] == prints[0][0]


def test_long_witnesses_are_cut_in_the_message_alone():
    witness = {**WITNESS, "input": [1.0] * 784}
    (result,) = sarif([{**RESULTS[0], "witness": witness}])["runs"][0]["results"]
    assert len(result["message"]["text"]) < 300
    assert len(result["properties"]["witness"]["input"]) == 784


@pytest.mark.parametrize(("after", "rule"), [("certified", "SUT004"), ("unproved", "SUT002")])
def test_a_repair_is_told_of_the_repaired_network(after, rule):
    report = {"after": after, "note": "", "level": "PROVED", "assumptions": ["x"]}
    log = sarif(repaired(report, "fixed.onnx", ["p.vnnlib", "q.vnnlib"]))
    check(log)
    assert [r["ruleId"] for r in log["runs"][0]["results"]] == [rule, rule]


def test_the_commands_write_it(tmp_path):
    out = tmp_path / "v.sarif"
    result = CliRunner().invoke(
        main, ["verify", str(NET), str(NO_CLIMB), "--timeout", "20", "--sarif", str(out)]
    )
    assert result.exit_code == 1, result.stderr
    log = json.loads(out.read_text())
    check(log)
    assert [r["ruleId"] for r in log["runs"][0]["results"]] == ["SUT001"]
    assert log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"][
        "uri"
    ].endswith("no_climb.vnnlib")
    fixed = tmp_path / "f.sarif"
    arguments = [NET, NO_CLIMB, "-o", tmp_path / "fixed.onnx", "--boxes", "0", "--sarif", fixed]
    result = CliRunner().invoke(main, ["repair", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    log = json.loads(fixed.read_text())
    check(log)
    assert [r["message"]["text"] for r in log["runs"][0]["results"]] == [
        "fixed.onnx: no_climb.vnnlib is proved (PROVED)."
    ]


def test_every_rule_is_listed():
    listed = sarif([])["runs"][0]["tool"]["driver"]["rules"]
    assert {rule.id for rule in RULES.values()} == {rule["id"] for rule in listed}
