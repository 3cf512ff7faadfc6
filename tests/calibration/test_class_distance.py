"""One temperature by the distance to the class that is named: the fit, and the same numbers in a graph."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from test_calibrate import blobs, onnx_net, torch_net

from sutura.calibration.class_distance import (
    ByClass,
    by_class,
    class_distances,
    class_gaussians,
    tables,
)
from sutura.calibration.distance import Gaussian
from sutura.calibration.fold import folded_by_class, network_features, network_scores
from sutura.errors import DataError, NetworkError
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run
from sutura.property.build import argmax_in, box
from sutura.verdict.outcome import Proved
from sutura.verdict.verify import verify

LEFT, RIGHT = (Gaussian(np.array([place]), np.zeros((1, 1)), 1.0) for place in (-1.0, 3.0))


def test_the_distance_is_that_of_the_class_that_is_named():
    features = np.array([[0.0], [0.0], [0.0]])
    logits = np.array([[50.0, 0.0], [0.0, 50.0], [0.0, 0.0]])
    assert class_distances((LEFT, RIGHT), logits, features) == pytest.approx([1, 9, 5])


def test_near_its_class_scores_grow_and_far_from_it_they_stay():
    scale = ByClass((LEFT, RIGHT), 1.0, 9.0, 3.0)
    features = np.array([[-1.0], [0.0], [1.2], [2.0]])
    logits = np.tile([60.0, 0.0], (4, 1))
    assert scale.factors(logits, features) == pytest.approx([3, 3, 1 + 2 * (9 - 2.2**2) / 8, 1])


def fitted(rng, count=4000):
    """A network that says .7 where it is right in .9 of the cases, in a domain of two classes."""
    y = rng.integers(2, size=count)
    features = (np.where(y, 3.0, -1.0) + rng.normal(size=count))[:, None]
    right = rng.random(count) < 0.9
    logits = np.log(0.7 / 0.3) * np.eye(2)[np.where(right, y, 1 - y)]
    return logits, features, y


def test_near_is_fitted_to_the_domain():
    logits, features, y = fitted(np.random.default_rng(0))
    scale = by_class(class_gaussians(features, y, 2), logits, features, y)
    assert scale.near > 1.5
    p = scale(logits, features)
    assert p.max(axis=1).mean() == pytest.approx((p.argmax(axis=1) == y).mean(), abs=0.03)
    assert (p.argmax(axis=1) == logits.argmax(axis=1)).all()
    away = np.full_like(features, 40.0)
    assert np.allclose(scale(logits, away), softmax(logits, axis=1))


def test_tables_compute_the_same_distances():
    rng = np.random.default_rng(1)
    y = rng.integers(3, size=300)
    features = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + y[:, None]
    held = class_gaussians(features, y, 3)
    scale = ByClass(held, 2.0, 6.0, 1.5)
    by, u = tables(scale), features - tables(scale).centre
    each = u**2 @ by.squares + u @ by.lines + by.constant - (u @ by.directions - by.origin) ** 2 @ by.owner
    assert np.allclose(4 * each, np.stack([g.distances(features) for g in held], axis=1))


def test_samples_that_say_nothing_are_refused():
    features, y = np.arange(8.0)[:, None], np.array([0, 0, 0, 0, 1, 1, 2, 2])
    with pytest.raises(DataError, match="class 1 has 2 samples"):
        class_gaussians(features, y, 3)
    with pytest.raises(DataError, match="4 samples of class 0 all have the same features"):
        class_gaussians(np.ones((8, 1)), y, 1)
    with pytest.raises(DataError, match="equally far"):
        by_class((LEFT, LEFT), np.zeros((9, 2)), np.zeros((9, 1)), np.zeros(9, np.int64))


def scaled():
    """A network, and a scale fitted to its own features."""
    network, data = load(onnx_net()).network, blobs()
    scores, features = network_scores(network)(data.x), network_features(network)(data.x)
    return network, by_class(class_gaussians(features, data.y, 3), scores, features, data.y)


def test_the_graph_and_the_module_compute_what_the_scale_does():
    network, scale = scaled()
    x = blobs(300, seed=5, width=0.5).x
    scores, features = network_scores(network)(x), network_features(network)(x)
    assert 0.1 < (scale.factors(scores, features) == 1).mean() < 0.99
    outputs = run(open_session(write_onnx(folded_by_class(network, scale))), x)
    assert np.allclose(softmax(outputs, axis=1), scale(scores, features), atol=1e-4)
    assert (outputs.argmax(axis=1) == scores.argmax(axis=1)).all()
    torch = pytest.importorskip("torch")
    from sutura.calibration.predict import ScaledByClass, features_of, scores_of

    module, data = torch_net().eval(), blobs()
    held = class_gaussians(features_of(module)(data.x), data.y, 3)
    scale = by_class(held, scores_of(module)(data.x), features_of(module)(data.x), data.y)
    p = softmax(ScaledByClass(module, scale)(torch.tensor(x)).detach().numpy(), axis=1)
    assert np.allclose(p, scale(scores_of(module)(x), features_of(module)(x)), atol=1e-4)


def test_the_folded_network_goes_on_into_verify():
    network, scale = scaled()
    region = argmax_in(box([0.19, 0.29], [0.21, 0.31]), [0], outputs=3)
    assert isinstance(verify(load(write_onnx(folded_by_class(network, scale))), region).verdict, Proved)


def test_gaussians_of_other_features_are_refused():
    with pytest.raises(NetworkError, match="the Gaussians have 1 and 2"):
        folded_by_class(load(onnx_net()).network, ByClass((LEFT, RIGHT), 1.0, 2.0, 1.5))
