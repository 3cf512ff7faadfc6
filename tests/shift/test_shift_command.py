"""`sutura shift`: files, streams, exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from shift_networks import classifier, samples

from sutura.cli.app import main
from sutura.network.evaluate import evaluate
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.shift.pack import restored, unpacked


def say(*arguments):
    return CliRunner().invoke(main, ["shift", *(str(a) for a in arguments)])


@pytest.fixture
def place(tmp_path):
    """A folder with a network, calibration samples without labels and test samples with the network's own."""
    network = classifier()
    (tmp_path / "net.onnx").write_bytes(write_onnx(network))
    data = samples(network, 60)
    y = evaluate(network, data.x.astype(np.float64)).argmax(axis=1)
    np.savez(tmp_path / "calib.npz", x=data.x[:40])
    np.savez(tmp_path / "test.npz", x=data.x[40:], y=y[40:])
    return tmp_path


def test_everything_at_once(place):
    pytest.importorskip("safetensors")
    result = say(
        place / "net.onnx", "--bits", 4, "--data", place / "calib.npz", "--test", place / "test.npz",
        "--keep", "conv1", "-o", place / "out.onnx", "--packed", place / "out.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stdout == ""
    for words in ("bits a weight", "32.00", "bytes as ONNX", "packed", "accuracy", "100.00%", "batch 64",
                  "linear layers packed", "int8 activations", "kernels",
                  "left alone: conv1 was asked to stay"):  # fmt: skip
        assert words in result.stderr
    report = json.loads((place / "out.report.json").read_text())
    made = load(place / "out.onnx").network
    assert report["schema"] == "sutura/shift"
    assert report["sha256"] == made.sha256
    assert report["bytes"]["packed"] == len((place / "out.safetensors").read_bytes())
    assert report["accuracy"]["before"] == 1.0
    assert 0.5 < report["accuracy"]["after"] <= 1.0
    assert [layer["name"] for layer in report["layers"]] == ["conv2", "fc1", "fc2", "fc3"]
    count = sum(layer["weights"] for layer in report["layers"])
    scales = sum(layer["scales"] for layer in report["layers"])
    assert report["bits_per_weight"]["after"] == pytest.approx(4 + 32 * scales / count)
    assert set(report["kernels"]["linear_layers_seconds"]) == {"1", "8", "64"}
    assert all(v > 0 for times in report["kernels"]["linear_layers_seconds"].values() for v in times.values())
    again = restored(made, unpacked((place / "out.safetensors").read_bytes()))
    assert write_onnx(again) == write_onnx(made)


def test_quantised_files_are_for_verify_and_repair_too(place):
    result = say(
        place / "net.onnx", "--method", "ps", "--bits", 4, "--format", "qdq", "--test", place / "test.npz",
        "-o", place / "out.onnx",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads((place / "out.report.json").read_text())
    made = load(place / "out.onnx").network
    assert report["sha256"] == made.sha256
    assert report["format"] == "int8"
    assert report["planes"] == {"one": ["conv1", "conv2", "fc1", "fc2", "fc3"], "two": [], "float32": []}
    assert report["kernels"] is None
    assert say(place / "net.onnx", "--method", "ps", "--bits", 4, "-o", place / "float.onnx").exit_code == 0
    plain = load(place / "float.onnx").network
    x = samples(plain).x.astype(np.float64)
    assert (evaluate(made, x) == evaluate(plain, x)).all()


@pytest.mark.parametrize("method", ["q", "ps"])
def test_published_methods_as_json(place, method):
    result = say(place / "net.onnx", "--method", method, "-o", place / "out.onnx", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report == json.loads((place / "out.report.json").read_text())
    assert report["bits_per_weight"] == {"before": 32.0, "after": 5.0}
    assert report["accuracy"] is None
    assert set(report["runtime_seconds"]) == {"1", "8", "64"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "deepshift"], "no method is called 'deepshift'; known: q, ps, ours"),
        (["--bits", "8"], "weights of 8 bits are not offered; give 2, 3, 4 or 5"),
        (["--keep", "conv7"], "is called 'conv7'; it has 'conv1', 'conv2', 'fc1', 'fc2', 'fc3'"),
        (["--packed", "weights.bin"], "--packed weights.bin must end in .safetensors"),
        (["--packed", "nowhere/w.safetensors"], "there is no folder nowhere"),
        (["--data", "gone.npz"], "gone.npz"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(place, arguments, said):
    result = say(place / "net.onnx", "-o", place / "out.onnx", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(place.glob("out.*"))


def test_other_bad_output_names(place):
    for out, said in (("out.bin", "must end in .onnx"), ("net.onnx", "is the network that is shifted")):
        result = say(place / "net.onnx", "-o", place / out)
        assert result.exit_code == 2
        assert said in result.stderr


def test_data_of_another_shape_are_refused(place):
    np.savez(place / "flat.npz", x=np.zeros((4, 3), np.float32), y=np.zeros(4, np.int64))
    for option in ("--data", "--test"):
        result = say(place / "net.onnx", "-o", place / "out.onnx", option, place / "flat.npz")
        assert result.exit_code == 2
        assert "flat.npz: samples are" in result.stderr
