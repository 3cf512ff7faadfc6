"""Two temperatures by distance: the Gaussian, the fit, and the same numbers in a graph and in a module."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import softmax
from test_calibrate import blobs, onnx_net, torch_net

from sutura.calibration.calibrate import calibrate
from sutura.calibration.config import CalibrateConfig
from sutura.calibration.distance import ByDistance, Gaussian, by_distance, gaussian, nearness
from sutura.calibration.fold import folded_by_distance, network_scores
from sutura.cli.app import main
from sutura.errors import DataError
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run
from sutura.property.build import argmax_in, box
from sutura.verdict.outcome import Proved
from sutura.verdict.verify import verify


def test_distance_is_that_of_the_principal_directions_and_one_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 3)) * [5.0, 1.0, 1.0] + 2.0
    held = gaussian(x.astype(np.float32))
    assert held.directions.shape == (3, 1)
    covariance = np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    variances = np.array([values[:2].mean(), values[:2].mean(), values[2]])
    apart = (x[:20] - x.mean(axis=0)) @ vectors
    assert held.distances(x[:20]) == pytest.approx((apart**2 / variances).sum(axis=1), rel=1e-4)


def test_one_number_a_sample_is_a_gaussian_too():
    x = np.array([[-1.0], [1.0]], np.float32)
    assert gaussian(x).distances(np.array([[3.0]], np.float32)) == pytest.approx([9.0])


LINE = Gaussian(np.zeros(1), np.zeros((1, 1)), 1.0)


def test_factors_run_straight_between_near_and_far():
    scale = ByDistance(LINE, 1.0, 5.0, 2.0, 0.5)
    x = np.array([[0.5], [1.0], [np.sqrt(3)], [np.sqrt(5)], [9.0]])
    assert nearness(scale, x) == pytest.approx([1, 1, 0.5, 0, 0])
    assert scale.factors(x) == pytest.approx([2, 2, 1.25, 0.5, 0.5])


def test_far_is_less_sure_where_shift_was_wrong_and_in_domain_pays_nothing():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 1)).astype(np.float32)
    y = (rng.random(4000) < 0.9).astype(np.int64)
    logits = np.tile([0.0, np.log(9.0)], (4000, 1))
    away, guesses = np.full((4000, 1), 9.0, np.float32), (rng.random(4000) < 0.6).astype(np.int64)
    scale = by_distance(gaussian(x), (x, logits, y), (away, logits, guesses))
    assert softmax(logits[0] * scale.far)[1] == pytest.approx(0.6, abs=0.02)
    assert abs(scale(logits, x)[:, 1].mean() - 0.9) < 0.02


def test_samples_that_say_nothing_are_refused():
    alike = np.ones((30, 4), np.float32)
    with pytest.raises(DataError, match="all alike"):
        gaussian(alike)
    with pytest.raises(DataError, match="equally far"):
        alike = np.ones((30, 1), np.float32), np.zeros((30, 2)), np.zeros(30, np.int64)
        by_distance(LINE, alike, alike)


def test_the_graph_and_the_module_compute_what_predict_does():
    loaded, x = load(onnx_net()), blobs(200, seed=5, width=0.5).x
    found = calibrate(loaded, blobs(1500), CalibrateConfig(method="distance-temperature"))
    outputs = run(open_session(write_onnx(found.network)), x)
    assert np.allclose(softmax(outputs, axis=1), found.predict(x), atol=1e-5)
    assert (outputs.argmax(axis=1) == network_scores(loaded.network)(x).argmax(axis=1)).all()
    module = calibrate(torch_net(), blobs(400), CalibrateConfig(method="distance-temperature")).made
    import torch

    scores = module.module(torch.tensor(x)).detach().numpy()
    assert np.allclose(softmax(scores, axis=1), module.predict(x), atol=1e-5)


def test_the_folded_network_goes_on_into_verify():
    seen = blobs().x, np.zeros((600, 3)), blobs().y
    scale = by_distance(gaussian(blobs(100).x), seen, seen)
    network = folded_by_distance(load(onnx_net()).network, scale)
    region = argmax_in(box([0.19, 0.29], [0.21, 0.31]), [0], outputs=3)
    assert isinstance(verify(load(write_onnx(network)), region).verdict, Proved)


def test_the_command_tells_both_temperatures(tmp_path):
    data = blobs(800)
    (tmp_path / "net.onnx").write_bytes(onnx_net())
    np.savez(tmp_path / "v.npz", x=data.x, y=data.y)
    asked = ("calibrate", tmp_path / "net.onnx", "--data", tmp_path / "v.npz", "--method")
    asked = [*map(str, asked), "distance-temperature"]
    told = CliRunner().invoke(main, asked)
    assert told.exit_code == 0, told.stderr
    assert "near the data" in told.stderr
    found = json.loads(CliRunner().invoke(main, [*asked, "--json"]).stdout)["scaling"]
    assert found["far"] < found["near"] < 1
