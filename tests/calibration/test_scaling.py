"""Post-hoc maps: against the optimum, against scikit-learn and netcal, and folded into networks."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import log_softmax, softmax

from sutura.calibration.fold import evidence_head, folded, network_scores, scores_part
from sutura.calibration.noise import perturbed_validation
from sutura.calibration.scaling import (
    COLDEST,
    HOTTEST,
    Affine,
    identity,
    isotonic,
    log_probabilities,
    temperature,
    vector,
)
from sutura.calibration.score import score
from sutura.errors import DataError, NetworkError
from sutura.network.onnx_read import parse_onnx
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.run import open_session, run


def overconfident(count=2000, classes=4, factor=3.0, seed=0):
    """Scores that are `factor` times those the labels were drawn from."""
    rng = np.random.default_rng(seed)
    z = rng.normal(scale=1.5, size=(count, classes))
    y = np.array([rng.choice(classes, p=row) for row in softmax(z, axis=1)])
    return (factor * z).astype(np.float32), y


def nll(p, y):
    return score(p, y).nll


def onnx_bytes(*, closing=False, classes=4, sample=(6,), seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(classes, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], "dense", transB=1),
        *([helper.make_node("Softmax", ["z"], ["y"], "soft", axis=-1)] if closing else []),
    ]
    tensors = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(rng.normal(size=classes).astype(np.float32), "b"),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *sample]),
        helper.make_tensor_value_info("y" if closing else "z", TensorProto.FLOAT, ["N", classes]),
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    ).SerializeToString()


def outputs(network, x):
    return run(open_session(write_onnx(network)), x)


def test_temperature_finds_the_factor():
    z, y = overconfident(8000, factor=3.0)
    fitted = temperature(z, y)
    assert 1 / fitted.scale[0] == pytest.approx(3.0, rel=0.05)
    assert not fitted.offset.any()
    best = nll(fitted(z), y)
    for factor in (0.97, 1.03):
        assert best < nll(Affine(fitted.scale * factor, fitted.offset)(z), y)
    assert (fitted(z).argmax(1) == z.argmax(1)).all()


@pytest.mark.filterwarnings("ignore")
def test_temperature_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.calibration")
    frozen = pytest.importorskip("sklearn.frozen")
    base = pytest.importorskip("sklearn.base")
    z, y = overconfident()

    class Scores(base.ClassifierMixin, base.BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, X):
            return X

        def predict(self, X):
            return X.argmax(axis=1)

    z64 = z.astype(np.float64)
    peer = sklearn.CalibratedClassifierCV(
        frozen.FrozenEstimator(Scores().fit(z64, y)), method="temperature", ensemble=False
    )
    assert np.allclose(peer.fit(z64, y).predict_proba(z64), temperature(z, y)(z), atol=2e-4)


def test_vector_is_no_worse_than_temperature_and_stationary():
    z, y = overconfident()
    skewed = z * np.array([1, 0.5, 2, 1], np.float32) + np.array([0, 1, 0, -2], np.float32)
    fitted = vector(skewed, y)
    assert nll(fitted(skewed), y) < nll(temperature(skewed, y)(skewed), y) - 0.02
    off = softmax(skewed * fitted.scale + fitted.offset, axis=1) - np.eye(4)[y]
    assert np.abs((off * skewed).mean(axis=0)).max() < 2e-3
    assert np.abs(off.mean(axis=0)).max() < 2e-3


def test_isotonic_is_scikit_learns_and_improves():
    peer = pytest.importorskip("sklearn.isotonic")
    z, y = overconfident()
    fitted, p = isotonic(z, y), softmax(z.astype(np.float64), axis=1)
    curves = []
    for c in range(4):
        curve = peer.IsotonicRegression(out_of_bounds="clip").fit(p[:, c], y == c)
        curves.append(curve.predict(p[:, c]))
    mapped = np.stack(curves, axis=1)
    assert np.allclose(fitted(z), mapped / mapped.sum(axis=1, keepdims=True), atol=1e-9)
    fresh, labels = overconfident(seed=9)
    assert score(fitted(fresh), labels).ece < 0.3 * score(softmax(fresh, axis=1), labels).ece


def test_separable_scores_keep_a_finite_temperature():
    z = np.eye(3, dtype=np.float32)[np.arange(30) % 3]
    fitted = temperature(z, np.arange(30) % 3)
    assert COLDEST <= 1 / fitted.scale[0] <= HOTTEST


@pytest.mark.parametrize("fit", [temperature, vector, isotonic])
@pytest.mark.parametrize(
    ("z", "y", "said"),
    [
        ([[0.0, np.nan]], [0], "scores of sample 0 are not finite"),
        ([[0.0, 1.0]], [2], "labels run from 2 to 2; the network has 2 classes"),
        ([[0.0, 1.0]], [0, 1], "do not fit 2 labels"),
    ],
)
def test_bad_scores_are_refused(fit, z, y, said):
    with pytest.raises(DataError) as caught:
        fit(np.array(z), np.array(y))
    assert said in str(caught.value)


def test_records_of_probabilities_become_scores():
    p = np.array([[0.5, 0.5, 0.0]])
    assert np.allclose(softmax(log_probabilities(p), axis=1), p, atol=1e-11)


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_folded_network_computes_the_scaling(closing, offset):
    network = parse_onnx(onnx_bytes(closing=closing), "net.onnx")
    x = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    scaling = Affine(np.array([0.5, 0.4, 0.3, 0.2]), offset * np.array([1.0, 0, -1, 2]))
    new, z = folded(network, scaling), network_scores(network)(x)
    told = outputs(new, x)
    assert np.allclose(told if closing else softmax(told, axis=1), scaling(z), atol=1e-6)
    assert new.output == network.output
    assert new.sha256 != network.sha256
    again = load(write_onnx(new))
    assert np.array_equal(outputs(again.network, x), told)
    assert np.allclose(network_scores(new)(x), z * scaling.scale + scaling.offset, atol=1e-5)


def test_scores_are_those_before_a_closing_softmax():
    x = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    bare, soft = (parse_onnx(onnx_bytes(closing=c), "net.onnx") for c in (False, True))
    assert np.allclose(network_scores(soft)(x), outputs(bare, x))
    assert scores_part(bare) is bare


def test_a_temperature_exchanges_no_decision():
    network = parse_onnx(onnx_bytes(), "net.onnx")
    x = np.random.default_rng(2).normal(size=(5000, 6)).astype(np.float32)
    new = outputs(folded(network, Affine(np.full(4, 1 / 3.7), np.zeros(4))), x)
    old = outputs(network, x)
    rows = np.arange(len(x))
    assert (new[rows, old.argmax(1)] == new.max(1)).all()


def test_evidence_in_the_graph():
    network = parse_onnx(onnx_bytes(), "net.onnx")
    x = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    alpha = np.maximum(outputs(network, x), 0) + 1
    assert np.allclose(
        outputs(evidence_head(network), x), alpha / alpha.sum(axis=1, keepdims=True), atol=1e-6
    )
    with pytest.raises(NetworkError, match="ends in a softmax"):
        evidence_head(parse_onnx(onnx_bytes(closing=True), "net.onnx"))


def test_isotonic_is_not_folded():
    z, y = overconfident(100)
    with pytest.raises(NetworkError, match="isotonic calibration has no ONNX form"):
        folded(parse_onnx(onnx_bytes(), "net.onnx"), isotonic(z, y))


def test_identity_changes_nothing():
    z, y = overconfident(50)
    assert np.allclose(np.log(identity(z, y)(z)), log_softmax(z.astype(np.float64), axis=1))


def test_noise_takes_accuracy_evenly_to_chance():
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    x = (np.eye(3)[y].repeat(5, axis=1) + rng.normal(scale=0.1, size=(600, 15))).astype(np.float32)

    def scores(points):
        return points.reshape(-1, 3, 5).sum(axis=2).astype(np.float64)

    z, labels = perturbed_validation(scores, x, y)
    accuracies = (z.argmax(1) == labels).reshape(10, -1).mean(axis=1)
    assert accuracies[0] == 1.0
    wanted = 1 + np.minimum(np.arange(10) / 9, 0.95) * (1 / 3 - 1)
    assert np.abs(accuracies - wanted).max() < 0.07
    assert 1 / temperature(z, labels).scale[0] > 2 / temperature(scores(x), y).scale[0]
