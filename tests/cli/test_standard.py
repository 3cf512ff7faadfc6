"""The VNN-LIB solver interface: exact words on stdout, and the conformance suite of the standard's users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import sutura
from sutura.cli.app import main
from sutura.network.onnx_read import OPERATORS

ROOT = Path(__file__).resolve().parents[2]
SUTURA = Path(sys.executable).parent / "sutura"

QUERY = """; a comment
(vnnlib-version <2.0>)
(declare-network {network}
  (declare-input In {type} {shape})
  (declare-output Out {type} {shape})
)
(assert (and (>= In[0,0] 0.0) (<= In[0,0] 1.0)))
(assert (and (>= In[0,1] 0.1) (<= In[0,1] 0.100000005)))
(assert {claim})
"""

VERSION_1 = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
(assert (>= X_0 1.0))
(assert (<= X_0 1.0))
(assert (>= X_1 0.5))
(assert (<= X_1 0.5))
(assert (>= Y_1 {least}))
"""


def say(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def network(place, *, shift=(0.5, 2.0), dims=("N", 2)):
    """y = x + shift."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims)) for name in "xy"]
    constant = numpy_helper.from_array(np.float32(shift), "k")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "k"], ["y"])], "g", ends[:1], ends[1:], [constant]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), place)
    return place


def query(folder, claim, *, name="N", type="float32", shape="[1,2]"):
    place = folder / "query.vnnlib"
    place.write_text(QUERY.format(network=name, type=type, shape=shape, claim=claim))
    return place


def ask(folder, claim, *options, **declared):
    net = network(folder / "net.onnx")
    return say("verify", query(folder, claim, **declared), "--network", f"N={net}", *options)


def answered(result, text):
    assert (result.stdout, result.stderr, result.exit_code) == (text, "", 0)


def refused(result, *words):
    """One line on stderr and nothing on stdout, as the standard has it for errors."""
    assert (result.stdout, result.exit_code) == ("", 2), (result.stdout, result.stderr, result.exception)
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


def test_unsat_is_one_word(tmp_path):
    answered(ask(tmp_path, "(> Out[0,0] 1.51)"), "unsat\n")
    answered(ask(tmp_path, "(or (< Out[0,0] 0.49) (>= Out[0,1] 2.2))"), "unsat\n")


@pytest.mark.parametrize("type", ["float32", "real"])
def test_sat_prints_the_assignment_in_the_words_of_the_query(tmp_path, type):
    # In[0,1] has one float32 number in its box, 0.1 rounded up; 2 more is 2.0999999046... in float32.
    result = ask(tmp_path, "(>= Out[0,0] 1.5)", type=type)
    answered(
        result,
        f"sat\nIn {type} [1,2]\n1.0\n0.10000000149011612\nOut {type} [1,2]\n1.5\n2.0999999046325684\n",
    )
    assert np.float32(0.1) + np.float32(2.0) == np.float32(2.0999999046325684)


def test_a_network_without_batch_axis(tmp_path):
    net = network(tmp_path / "net.onnx", dims=(2,))
    place = tmp_path / "q.vnnlib"
    place.write_text(
        "(vnnlib-version <2.0>)\n"
        "(declare-network N (declare-input A float32 [2]) (declare-output B float32 [2]))\n"
        "(assert (and (>= A[0] 1.0) (<= A[0] 1.0) (>= A[1] 0.0) (<= A[1] 0.0)))\n(assert (== B[1] 2.0))\n"
    )
    answered(
        say("verify", place, "--network", f"N={net}"),
        "sat\nA float32 [2]\n1.0\n0.0\nB float32 [2]\n1.5\n2.0\n",
    )


@pytest.mark.parametrize(
    ("least", "text"), [(2.75, "unsat\n"), (2.5, "sat\n((X_0 1.0)\n(X_1 0.5)\n(Y_0 1.5)\n(Y_1 2.5))\n")]
)
def test_version_1_is_answered_too(tmp_path, least, text):
    net, place = network(tmp_path / "net.onnx"), tmp_path / "q.vnnlib"
    place.write_text(VERSION_1.format(least=least))
    answered(say("verify", place, "--network", f"any={net}"), text)


def test_unknown_where_rounding_decides(tmp_path):
    # 1 + 2^-25 is 1 in float32 to nearest, but just above 1 + 2^-26 over the reals: neither can be shown.
    net = network(tmp_path / "net.onnx", shift=(2.0**-25, 0.0))
    place = query(tmp_path, f"(and (>= In[0,0] 1.0) (>= Out[0,0] {1 + 2.0**-26}))")
    answered(say("verify", place, "--network", f"N={net}"), "unknown\n")


def test_timed_out(tmp_path):
    answered(ask(tmp_path, "(>= Out[0,0] 1.75)", "--timeout", "0.000001"), "timed-out\n")


def test_assignments_as_tensors(tmp_path):
    folder = tmp_path / "made" / "here"
    answered(ask(tmp_path, "(>= Out[0,0] 1.5)", "--serialise-assignments", folder), "sat\n")
    assert sorted(p.name for p in folder.iterdir()) == ["In.pb", "Out.pb"]
    for name, values in (("In", [[1.0, 0.1]]), ("Out", [[1.5, 2.1]])):
        tensor = onnx.TensorProto.FromString((folder / f"{name}.pb").read_bytes())
        assert tensor.name == name and tensor.data_type == TensorProto.FLOAT
        assert numpy_helper.to_array(tensor) == pytest.approx(np.float32(values))


def test_an_answer_without_witness_writes_no_tensors(tmp_path):
    folder = tmp_path / "none"
    answered(ask(tmp_path, "(>= Out[0,0] 1.75)", "--serialise-assignments", folder), "unsat\n")
    assert not folder.exists()


MANY = {
    "two_networks": (
        "(declare-network N (declare-input X float32 [1]) (declare-output Y float32 [1]))"
        "(declare-network M (declare-input A float32 [1]) (declare-output B float32 [1]))"
        "(assert (<= Y[0] B[0]))",
        "2 networks",
    ),
    "two_inputs": (
        "(declare-network N (declare-input X float32 [1]) (declare-input Z float32 [1])"
        " (declare-output Y float32 [1]))(assert (<= Y[0] 0.0))",
        "2 input tensors",
    ),
    "two_outputs": (
        "(declare-network N (declare-input X float32 [1]) (declare-output Y float32 [1])"
        " (declare-output Z float32 [1]))(assert (<= Y[0] 0.0))",
        "2 output tensors",
    ),
    "hidden": (
        '(declare-network N (declare-input X float32 [1]) (declare-hidden H float32 [1] "h")'
        " (declare-output Y float32 [1]))(assert (<= H[0] 0.0))",
        "hidden value",
    ),
    "integers": (
        "(declare-network N (declare-input X float32 [1]) (declare-output Y int64 [1]))(assert (<= Y[0] 0))",
        "type I64",
    ),
    "doubles": (
        "(declare-network N (declare-input X float64 [1]) (declare-output Y float64 [1]))"
        "(assert (<= Y[0] 0.0))",
        "type F64",
    ),
}


@pytest.mark.parametrize("case", MANY)
def test_what_is_not_supported_is_an_error_not_an_answer(tmp_path, case):
    net, place = network(tmp_path / "net.onnx", dims=("N", 1), shift=(1.0,)), tmp_path / "q.vnnlib"
    text, words = MANY[case]
    place.write_text(f"(vnnlib-version <2.0>)\n{text}\n")
    refused(say("verify", place, "--network", f"N={net}"), words)


def test_files_and_options_that_do_not_fit(tmp_path):
    net, place = network(tmp_path / "net.onnx"), query(tmp_path, "(>= Out[0,0] 1.5)", name="controller")
    refused(say("verify", place, "--network", f"N={net}"), "'controller'", "'N'", f"controller={net}")
    refused(say("verify", place, "--network", f"controller={net}", "--network", f"M={net}"), "2 are given")
    refused(say("verify", place, "--network", net), "NAME=FILE")
    refused(say("verify", place, "--network", f"controller={net}", "--json"), "--json")
    refused(say("verify", place, net, "--network", f"controller={net}"), "one query")
    refused(say("verify", place, "--network", f"controller={tmp_path / 'absent.onnx'}"), "cannot read")
    refused(say("verify", tmp_path / "absent.vnnlib", "--network", f"controller={net}"), "cannot read")
    refused(say("verify", place, "--serialise-assignments", tmp_path), "0 are given")


@pytest.mark.parametrize("shape", ["[2,1]", "[1,3]", "[1,2,1]"])
def test_declared_shapes_must_be_those_of_the_network(tmp_path, shape):
    place = tmp_path / "q.vnnlib"
    place.write_text(
        f"(vnnlib-version <2.0>)\n(declare-network N (declare-input X float32 {shape})"
        " (declare-output Y float32 [1,2]))\n(assert (<= Y[0,0] 0.0))\n"
    )
    result = say("verify", place, "--network", f"N={network(tmp_path / 'net.onnx')}")
    assert (result.exit_code, result.stdout) == (2, "")


def test_the_two_global_questions():
    answered(say("--name"), "sutura\n")
    answered(say("--version"), f"{sutura.__version__}\n")


SUPPORTS = {
    "--onnx-opset-versions": "7\n25\n",
    "--onnx-element-types": "float32\nreal\n",
    "--onnx-operators": "".join(f"{operator}\n" for operator in sorted(OPERATORS)),
    "--vnnlib-versions": "1.0\n2.0\n",
    "--hidden-node-theories": "NH\n",
    "--multiple-input-output-theories": "SIO\n",
    "--multiple-network-theories": "SNET\n",
    "--multiple-node-comparison-theories": "SNC\n",
    "--arithmetic-complexity-theories": "BND\nOUTC\n",
    "--optimised-disjunctive-reasoning": "true\n",
    "--serialise-assignments": "true\n",
}


@pytest.mark.parametrize("question", SUPPORTS)
def test_supports(question):
    answered(say("supports", question), SUPPORTS[question])


def test_supports_without_question_is_an_error():
    refused(say("supports"), "--onnx-operators")


@pytest.fixture(scope="module")
def conformance(tmp_path_factory):
    """The cases of vnnlib-satisfactory, generated into a folder of their own: (folder, manifest)."""
    pytest.importorskip("vnntest", reason="vnnlib-satisfactory is not installed: pip install sutura[test]")
    from vnntest.core.generator import generate_all_tests

    folder, before = tmp_path_factory.mktemp("conformance"), Path.cwd()
    os.chdir(folder)
    try:
        generate_all_tests()
    finally:
        os.chdir(before)
    place = folder / ".vnnlib-satisfactory"
    return place / "tests", json.loads((place / "manifest.json").read_text())


def test_no_case_of_the_conformance_suite_is_answered_wrongly(conformance):
    """Every case is asked, also those that `supports` does not claim."""
    folder, manifest = conformance
    right, wrong = [], []
    for case in manifest:
        place = folder / case["category"]
        given = [
            word
            for name, file in case["networks"].items()
            for word in ("--network", f"{name}={place / file}")
        ]
        result = say("verify", place / case["vnnlib"], *given, "--timeout", "4")
        word = result.stdout.split("\n", 1)[0]
        assert result.exit_code == (0 if word else 2), (case["name"], result.exception)
        if word in ("sat", "unsat"):
            (right if word == case["expected"].lower() else wrong).append(case["name"])
    assert len(manifest) >= 178 and not wrong
    assert len(right) >= RIGHT


RIGHT = 129
"""Cases answered rightly when this was written; no change may lose one."""


def test_the_suite_accepts_our_answers_about_ourselves(conformance):
    from vnntest.core import compliance

    for question, check in (
        ("--onnx-opset-versions", compliance.validate_opset_versions),
        ("--vnnlib-versions", compliance.validate_vnnlib_versions),
        ("--serialise-assignments", compliance.validate_serialise_assignments),
    ):
        assert check(say("supports", question).stdout) is None


@pytest.mark.skipif(not SUTURA.exists(), reason="the console command is not installed beside this Python")
def test_the_competition_scripts(tmp_path):
    net, result = network(tmp_path / "net.onnx"), tmp_path / "result.txt"

    def run(script, *arguments):
        command = [str(ROOT / "vnncomp" / script), *map(str, arguments)]
        return subprocess.run(
            command, env={**os.environ, "SUTURA": str(SUTURA)}, capture_output=True, text=True, check=False
        )

    holding = query(tmp_path, "(>= Out[0,0] 1.75)", name="my_net")
    assert run("prepare_instance.sh", "v1", "acasxu", net, holding).returncode == 0
    assert run("run_instance.sh", "v1", "acasxu", net, holding, result, 20).returncode == 0
    assert result.read_text() == "unsat\n"
    old = tmp_path / "old.vnnlib"
    old.write_text(VERSION_1.format(least=2.5))
    assert run("run_instance.sh", "v1", "acasxu", net, old, result, 20).returncode == 0
    assert result.read_text() == "sat\n((X_0 1.0)\n(X_1 0.5)\n(Y_0 1.5)\n(Y_1 2.5))\n"
    assert run("run_instance.sh", "v1", "acasxu", net, old, result, 0.000001).returncode == 0
    assert result.read_text() == "timeout\n"
    assert run("run_instance.sh", "v1", "acasxu", tmp_path / "absent.onnx", old, result, 20).returncode == 2
    assert result.read_text() == "error\n"
    assert run("run_instance.sh", "v2").returncode == 1
