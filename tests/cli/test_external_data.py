"""Weights in files beside the network, as PyTorch exports them: every command takes them when asked."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from sutura.cli.app import main
from sutura.property.build import argmax_in, box

BESIDE = "net.onnx.data"
COMMANDS = {
    "inspect": ["inspect", "net.onnx"],
    "verify": ["verify", "net.onnx", "p.vnnlib"],
    "repair": ["repair", "net.onnx", "p.vnnlib", "-o", "out.onnx"],
    "evaluate": ["evaluate", "net.onnx", "fixed.onnx", "p.vnnlib", "--samples", "100"],
    "risk": ["risk", "net.onnx", "--data", "d.npz", "--first", "1", "--budget", "0", "--estimator", "none"],
    "calibrate": ["calibrate", "net.onnx", "--data", "d.npz", "-o", "out.onnx"],
    "compress": ["compress", "net.onnx", "--target", "0.9", "--method", "svd", "-o", "out.onnx"],
    "shift": ["shift", "net.onnx", "-o", "out.onnx"],
    "condense": ["condense", "net.onnx"],
    "diff": ["diff", "net.onnx", "net.onnx", "--region", "p.vnnlib"],
}


def network(scale):
    """A 2-6-2 ReLU network whose first weights lie in a file of their own, and that file."""
    random = np.random.default_rng(0)
    first = (scale * random.normal(size=(2, 6))).astype(np.float32)
    outside = TensorProto(
        name="w", dims=first.shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    outside.external_data.add(key="location", value=BESIDE)
    inside = numpy_helper.from_array(random.normal(size=(6, 2)).astype(np.float32), "v")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in "xy"]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [outside, inside])
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString(), first.tobytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, beside = network(1.0)
    (tmp_path / "net.onnx").write_bytes(data)
    (tmp_path / BESIDE).write_bytes(beside)
    (tmp_path / "fixed.onnx").write_bytes(onnx.load(tmp_path / "net.onnx").SerializeToString())
    (tmp_path / "p.vnnlib").write_bytes(argmax_in(box([0.4, 0.4], [0.5, 0.5]), [0], outputs=2).text)
    x = np.random.default_rng(1).uniform(size=(60, 2)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(60) % 2)
    return tmp_path


def say(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_weights_beside_the_file_when_asked_and_refuses_them_when_not(folder, command):
    refused = say(*COMMANDS[command])
    assert refused.exit_code == 2
    assert "'w' keeps its data outside the file" in refused.stderr
    assert "--external-data" in refused.stderr
    assert not (folder / "out.onnx").exists()
    taken = say(*COMMANDS[command], "--external-data", "--json")
    assert taken.exit_code in (0, 1, 3), (taken.stderr, taken.exception)
    assert json.loads(taken.stdout)["schema"] == f"sutura/{command}"


def test_a_recipe_takes_them_and_runs_again_where_they_change(folder):
    stage = '\n[[stage]]\nrun = "verify"\n'
    recipe = folder / "recipe.toml"
    recipe.write_text('network = "net.onnx"\nproperties = ["p.vnnlib"]\n' + stage)
    assert "--external-data" in say("ship", recipe, "-o", "shipped").stderr
    recipe.write_text('network = "net.onnx"\nexternal-data = true\nproperties = ["p.vnnlib"]\n' + stage)

    def shipped():
        result = say("ship", recipe, "-o", "shipped", "--json")
        assert result.exit_code in (0, 1), result.stderr
        return [t.raw_data for t in onnx.load(folder / "shipped" / "model.onnx").graph.initializer]

    for scale in (1.0, 2.0):
        beside = network(scale)[1]
        (folder / BESIDE).write_bytes(beside)
        assert beside in shipped()
    assert "external-data = true" in (folder / "shipped" / "recipe.toml").read_text()
    module = '[module]\nsource = "m.py:made"\ninput = [2]\n'
    recipe.write_text('external-data = true\nproperties = ["p.vnnlib"]\n' + module + stage)
    refused = say("ship", recipe, "-o", "shipped", "--run-code")
    assert refused.exit_code == 2
    assert "there is a [module]" in refused.stderr
