"""`sutura compress`: files, streams, exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from compressible import classifier, samples

import sutura
from sutura.cli.app import main
from sutura.network.evaluate import evaluate
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load


def say(*arguments):
    return CliRunner().invoke(main, ["compress", *(str(a) for a in arguments)])


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


def test_one_target_with_everything(place):
    pytest.importorskip("matplotlib")
    result = say(
        place / "net.onnx", "--target", "0.5", "--data", place / "calib.npz", "--test", place / "test.npz",
        "-o", place / "small.onnx", "--plot", place / "curve.png",
    )  # fmt: skip
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stdout == ""
    for words in ("parameters", "multiply-accumulate", "bytes", "ONNX Runtime, ms", "accuracy", "100.00%"):
        assert words in result.stderr
    assert (place / "curve.png").read_bytes()[1:4] == b"PNG"
    report = json.loads((place / "small.report.json").read_text())
    small = load(place / "small.onnx").network
    (made,) = report["compressed"]
    assert made["sha256"] == small.sha256
    assert made["params"] <= 0.5 * report["before"]["params"]
    assert report["before"]["accuracy"] == 1.0
    assert 0.0 <= made["accuracy"] <= 1.0
    assert made["runtime_seconds"] > 0.0


def test_flat_samples_serve_a_network_of_images(place):
    x = np.load(place / "calib.npz")["x"]
    assert x.ndim > 2
    np.savez(place / "flat.npz", x=x.reshape(len(x), -1))
    made = []
    for data in ("calib.npz", "flat.npz"):
        result = say(
            place / "net.onnx", "--target", "0.6", "--data", place / data, "-o", place / "small.onnx"
        )
        assert result.exit_code == 0, result.stderr
        made.append((place / "small.onnx").read_bytes())
    assert made[0] == made[1]


def test_change_on_a_region_is_certified(place):
    x = np.load(place / "calib.npz")["x"][0].reshape(-1)
    prop = sutura.robustness(x, 0.01, 0, classes=5, low=None, high=None)
    (place / "region.vnnlib").write_bytes(prop.text)
    result = say(
        place / "net.onnx", "--target", "0.8", "-o", place / "small.onnx", "--region", place / "region.vnnlib"
    )
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert "(certified)" in result.stderr
    (made,) = json.loads((place / "small.report.json").read_text())["compressed"]
    told = made["region"]["largest"]
    assert told["seen"] <= told["certified"]
    nets = [load(place / name).network for name in ("net.onnx", "small.onnx")]
    points = np.random.default_rng(0).uniform(x - 0.01, x + 0.01, (200, x.size)).reshape(-1, 4, 8, 8)
    gaps = evaluate(nets[0], points) - evaluate(nets[1], points)
    assert np.abs(gaps).max() <= told["certified"]


def test_several_targets_make_a_file_each(place):
    result = say(
        place / "net.onnx", "--target", "0.8,0.4", "--method", "exact", "-o", place / "small.onnx", "--json"
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["schema"], report["version"]) == ("sutura/compress", 1)
    assert [made["target"] for made in report["compressed"]] == [0.8, 0.4]
    sizes = [len((place / f"small.{share}.onnx").read_bytes()) for share in ("0.8", "0.4")]
    assert sizes == [made["bytes"] for made in report["compressed"]]
    assert not (place / "small.onnx").exists()


def test_weights_beside_the_network(place):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    assert say(place / "net.onnx", "-o", place / "small.onnx", "--safetensors").exit_code == 0
    assert (place / "small.safetensors").read_bytes()[8:9] == b"{"


REFUSED = {
    ("--target", "0.01"): "the smallest reachable is 0.",
    ("--target", "half"): "'half' is no list of shares",
    ("--target", "7"): "is no share",
    ("--method", "ald"): "the nearest name is 'alds'",
    ("--method", "pca"): "calibration samples",
    ("--keep", "nosuch"): "is called 'nosuch'",
    ("--data", "missing.npz"): "missing.npz",
    ("--data", "test.onnx"): "no data set by its suffix",
    ("--plot", "curve.pdf"): "must end in .png",
}


@pytest.mark.parametrize("options", REFUSED)
def test_bad_input_is_one_line(place, options):
    before = sorted(p.name for p in place.iterdir())
    result = say(place / "net.onnx", "-o", place / "small.onnx", *options)
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert REFUSED[options] in result.stderr
    assert sorted(p.name for p in place.iterdir()) == before


def test_data_of_another_shape_or_with_nan(place):
    np.savez(place / "other.npz", x=np.zeros((20, 3), np.float32))
    np.savez(place / "nan.npz", x=np.full((20, 4, 8, 8), np.nan, np.float32))
    for name, words in (("other.npz", "takes 4x8x8"), ("nan.npz", "NaN")):
        result = say(place / "net.onnx", "-o", place / "small.onnx", "--data", place / name)
        assert result.exit_code == 2
        assert words in result.stderr


def test_result_never_replaces_the_network(place):
    result = say(place / "net.onnx", "-o", place / "net.onnx")
    assert result.exit_code == 2
    assert "another name" in result.stderr
