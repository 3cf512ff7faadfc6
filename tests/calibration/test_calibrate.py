"""calibrate() and `sutura calibrate`: every method on one problem, figures, files, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

from sutura.calibration.calibrate import METHODS, calibrate, split
from sutura.calibration.config import CalibrateConfig
from sutura.calibration.protocol import measure, measure_each, shift_interval
from sutura.calibration.shift import Shift
from sutura.cli.app import main
from sutura.dataset import Dataset
from sutura.errors import CalibrationError, DataError, RefusedError
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run
from sutura.property.build import argmax_in, box
from sutura.property.write import write
from sutura.report.reliability import by_strength, reliability
from sutura.training.config import TrainConfig

CENTRES = np.array([[0.2, 0.3], [0.7, 0.3], [0.4, 0.8]])


def blobs(count=600, seed=0, width=0.16):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=count)
    return Dataset("blobs.npz", (CENTRES[y] + rng.normal(scale=width, size=(count, 2))).astype(np.float32), y)


def onnx_net(factor=4.0, closing=False):
    """The log-likelihood of the blobs, `factor` times over: the right decisions, far too sure."""
    weight = (factor * CENTRES.T / 0.16**2).astype(np.float32)
    bias = (-factor * (CENTRES**2).sum(axis=1) / 2 / 0.16**2).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"], "dense")]
    if closing:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], "soft", axis=-1))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["N", 3]),
    ]
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def torch_net(seed=0):
    torch = pytest.importorskip("torch", reason="torch extra not installed: pip install 'sutura[torch]'")
    pytest.importorskip("safetensors", reason="torch extra not installed: pip install 'sutura[torch]'")
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


@pytest.mark.parametrize("method", [m for m in METHODS if not METHODS[m].trains and m != "mc-dropout"])
@pytest.mark.parametrize("closing", [False, True])
def test_post_hoc_methods_on_a_network(method, closing):
    loaded = load(onnx_net(closing=closing))
    found = calibrate(loaded, blobs(1500), CalibrateConfig(method=method, holdout=0.4))
    assert found.samples == 600
    assert found.before.ece > 0.06
    if "-" not in method:  # fitted to samples of the domain alone
        assert found.after.ece < found.before.ece / 2
        assert found.after.nll < found.before.nll
    assert found.interval.low.ece <= found.after.ece <= found.interval.high.ece
    assert found.made.scaling is not None
    if not METHODS[method].one_network:
        assert found.network is None
        return
    x = blobs(50, seed=5).x
    outputs = run(open_session(write_onnx(found.network)), x)
    assert np.allclose(outputs if closing else softmax(outputs, axis=1), found.predict(x), atol=1e-5)


def test_the_figures_are_of_samples_never_fitted_to():
    data = blobs(200)
    fitted_on, held_out = split(data, 0.25, seed=3)
    assert len(held_out) == 50
    together = np.concatenate([fitted_on.x, held_out.x])
    assert {tuple(row) for row in together} == {tuple(row) for row in data.x}
    again = split(data, 0.25, seed=3)
    assert np.array_equal(again[1].x, held_out.x)
    assert not np.array_equal(split(data, 0.25, seed=4)[1].x, held_out.x)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].trains])
def test_methods_that_train_on_a_module(method):
    module = torch_net()
    train = TrainConfig(epochs=12, batch=50, rate=0.02)
    from sutura.calibration.falcon import FalconConfig

    mild = FalconConfig(adversarial=0.01)
    config = CalibrateConfig(method=method, train=train, members=2, holdout=0.3, falcon=mild)
    heard = []
    found = calibrate(module, blobs(), config, listen=heard.append)
    p = found.predict(blobs(20, seed=5).x)
    assert p.shape == (20, 3)
    assert np.allclose(p.sum(axis=1), 1)
    assert found.after.accuracy > (0.5 if method == "evidential" else 0.75)
    assert found.after.nll < found.before.nll
    assert len(heard) == 12 * (2 if "ensemble" in method else 1)
    assert (found.module is None) == ("ensemble" in method)


def test_dropout_is_drawn_from_and_repeats():
    found = calibrate(torch_net(), blobs(), CalibrateConfig(method="mc-dropout", passes=5, allowed_drop=1.0))
    x = blobs(30, seed=5).x
    assert np.array_equal(found.predict(x), found.predict(x))


@pytest.mark.parametrize("method", ["graded", "evidential"])
def test_training_a_network_file_gives_a_network_again(method):
    torch_net()
    train = TrainConfig(epochs=3, batch=50, rate=1e-3)
    found = calibrate(load(onnx_net(1.0)), blobs(), CalibrateConfig(method=method, train=train))
    x = blobs(40, seed=5).x
    outputs = run(open_session(write_onnx(found.network)), x)
    assert np.allclose(
        outputs if method == "evidential" else softmax(outputs, axis=1), found.predict(x), atol=1e-5
    )


def test_a_setting_that_costs_accuracy_is_refused():
    torch_net()
    config = CalibrateConfig(method="falcon", train=TrainConfig(epochs=1, rate=50.0, optimiser="sgd"))
    with pytest.raises(RefusedError, match=r"falcon costs accuracy.*1\.0% may be lost"):
        calibrate(load(onnx_net(1.0)), blobs(), config)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: Dataset("d.npz", d.x.repeat(2, axis=1), d.y),
            "samples have shape 4; network 'network.onnx' takes 2",
        ),
        (lambda d: Dataset("d.npz", d.x, d.y + 1), "label 3 is out of range; the network gives 3 scores"),
        (lambda d: Dataset("d.npz", d.x, None), "has no labels"),
        (lambda d: Dataset("d.npz", d.x[:10], d.y[:10]), "has 10 samples; calibration needs at least 20"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, said):
    with pytest.raises(DataError) as caught:
        calibrate(load(onnx_net()), change(blobs()))
    assert said in str(caught.value)


def test_samples_that_a_module_does_not_take_are_refused():
    data = blobs()
    wide = Dataset("d.npz", data.x.repeat(2, axis=1), data.y)
    with pytest.raises(DataError, match=r"does not take samples of shape \(4,\)"):
        calibrate(torch_net(), wide)


def test_unknown_methods_name_the_nearest():
    with pytest.raises(CalibrationError, match="called 'temprature'; did you mean 'temperature'"):
        calibrate(load(onnx_net()), blobs(), CalibrateConfig(method="temprature"))
    with pytest.raises(CalibrationError, match="mc-dropout needs a PyTorch module"):
        torch_net()
        calibrate(load(onnx_net()), blobs(), CalibrateConfig(method="mc-dropout"))


NOISE = Shift(
    "noise",
    (0.0, 0.3, 1.0),
    lambda x, s, seed: (x + s * np.random.default_rng(seed).normal(size=x.shape)).astype(np.float32),
)


def sure(x):
    return softmax(-8 * ((x[:, None] - CENTRES) ** 2).sum(axis=2) / 0.16**2, axis=1)


def test_the_protocol_pools_the_strengths_of_a_shift():
    data = blobs()
    found = measure(sure, data.x, data.y, [NOISE, NOISE])
    (shift, _) = found.shifts
    assert shift.strengths[0].ece == pytest.approx(found.domain.ece)
    assert shift.pooled.accuracy == pytest.approx(np.mean([s.accuracy for s in shift.strengths]))
    assert shift.strengths[2].ece > shift.strengths[0].ece
    assert found.mean.ece == pytest.approx(shift.pooled.ece)
    span = shift_interval(shift, draws=40)
    assert span.low.ece <= shift.pooled.ece <= span.high.ece


def test_predictors_side_by_side_get_the_figures_they_get_alone():
    data = blobs()
    two = {"sure": sure, "even": lambda x: np.full((len(x), 3), 1 / 3)}
    found = measure_each(two, data.x, data.y, [NOISE, NOISE], seed=3)
    for name, predict in two.items():
        alone = measure(predict, data.x, data.y, [NOISE, NOISE], seed=3)
        assert (found[name].domain, found[name].mean) == (alone.domain, alone.mean)
        assert found[name].shifts[1].pooled == alone.shifts[1].pooled


def test_pictures_are_png():
    pytest.importorskip("matplotlib")
    data = blobs()
    found = measure(sure, data.x, data.y, [NOISE])
    for picture in (reliability({"a": found.shifts[0].outcomes}), by_strength({"a": found, "b": found})):
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 5000


@pytest.fixture
def files(tmp_path):
    data = blobs(1200)
    (tmp_path / "net.onnx").write_bytes(onnx_net())
    np.savez(tmp_path / "v.npz", x=data.x, y=data.y)
    return tmp_path


def say(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_command_writes_a_network_that_goes_on_into_verify(files):
    out = files / "calibrated.onnx"
    result = say("calibrate", files / "net.onnx", "--data", files / "v.npz", "-o", out, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["schema"] == "sutura/calibrate"
    assert 1 / told["scaling"]["scale"][0] == pytest.approx(4.0, rel=0.25)
    assert told["after"]["ece"] < told["before"]["ece"]
    assert told["held_out_samples"] == 240
    prop = argmax_in(box([0.19, 0.29], [0.21, 0.31]), [0], outputs=3)
    (files / "safe.vnnlib").write_bytes(write(prop.inputs, prop.outputs, prop.cases))
    assert say("verify", out, files / "safe.vnnlib").exit_code == 0


def test_the_command_tells_people_and_draws(files):
    pytest.importorskip("matplotlib")
    plot = files / "r.png"
    result = say("calibrate", files / "net.onnx", "--data", files / "v.npz", "--plot", plot)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "temperature" in result.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_command_warns_exactly_where_the_held_out_samples_say_it_is_worse(files):
    with np.load(files / "v.npz") as held:
        np.savez(files / "few.npz", x=held["x"][:40], y=held["y"][:40])
    met = set()
    for seed in range(12):
        asked = (
            "calibrate",
            files / "net.onnx",
            "--data",
            files / "few.npz",
            "--holdout",
            "0.5",
            "--seed",
            seed,
        )
        told = json.loads(say(*asked, "--json").stdout)
        worse = all(told["after"][key] > told["before"][key] for key in ("nll", "ece"))
        assert ("worse on the held-out samples" in say(*asked).stderr) == worse
        met.add(worse)
    assert met == {True, False}


def refused(result, *words):
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


def test_the_command_refuses_in_one_line(files):
    net, data, out = files / "net.onnx", files / "v.npz", files / "out.onnx"
    refused(say("calibrate", net, "--data", data, "--method", "isotonic", "-o", out), "no single network")
    refused(say("calibrate", net, "--data", data, "--method", "temprature"), "did you mean 'temperature'")
    refused(say("calibrate", net, "--data", files / "none.npz"), "none.npz")
    refused(say("calibrate", net, "--data", data, "--holdout", "1.5"), "holdout=1.5")
    np.savez(files / "nan.npz", x=np.full((30, 2), np.nan, np.float32), y=np.zeros(30, int))
    refused(say("calibrate", net, "--data", files / "nan.npz"), "NaN")
    assert not out.exists()


def test_a_refusal_is_exit_code_one_and_writes_nothing(files):
    torch_net()
    out = files / "out.onnx"
    asked = ("--method", "falcon", "--rate", "50", "--epochs", "1", "-o", out)
    result = say("calibrate", files / "net.onnx", "--data", files / "v.npz", *asked)
    assert result.exit_code == 1, result.stderr
    assert "refused: falcon costs accuracy" in result.stderr
    assert not out.exists()


def test_a_training_command_goes_on_from_its_checkpoint(files):
    torch_net()
    asked = ("--method", "falcon", "--epochs", "2", "--checkpoint", files / "c.safetensors", "--json")
    runs = [say("calibrate", files / "net.onnx", "--data", files / "v.npz", *asked) for _ in range(2)]
    assert [r.exit_code for r in runs] == [0, 0], runs[0].stderr
    first, again = (json.loads(r.stdout) for r in runs)
    assert first["after"] == again["after"]
    assert (files / "c.safetensors").exists()
