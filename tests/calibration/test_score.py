"""Calibration errors by hand, by brute force, and against the libraries that people use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.calibration.score import (
    bins_of,
    expected_calibration_error,
    interval,
    outcomes,
    score,
    smooth_calibration_error,
    summary,
)
from sutura.errors import DataError

# ten predictions by hand: (confidence, right?)
TEN = [
    *((0.55, True), (0.55, False)),  # bin (.5, .6]: accuracy .5, confidence .55, gap .05, 2 samples
    *((0.65, True), (0.65, True)),  # (.6, .7]: 1, .65, gap .35, 2 samples
    *((0.95, True), (0.95, True), (0.95, True), (0.95, False)),  # (.9, 1]: .75, .95, gap .2, 4 samples
    *((0.8, False), (0.75, True)),  # (.7, .8]: .5, .775, gap .275, 2 samples
]
BY_HAND = (2 * 0.05 + 2 * 0.35 + 4 * 0.2 + 2 * 0.275) / 10


def many(count=500, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.4), size=count)
    y = np.array([rng.choice(classes, p=row**0.5 / (row**0.5).sum()) for row in p])
    return p, y


def test_ten_samples_by_hand():
    confidence, right = np.array([c for c, _ in TEN]), np.array([r for _, r in TEN])
    assert expected_calibration_error(confidence, right) == pytest.approx(BY_HAND, abs=1e-12)


def test_bins_are_open_below_and_closed_above():
    edges = np.array([0.0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert bins_of(edges, 10).tolist() == [0, 0, 1, 2, 5, 6, 7, 8, 9]
    assert bins_of(edges[1:-1] + 1e-9, 10).tolist() == [1, 2, 3, 6, 7, 8, 9]


def test_a_weight_of_two_is_the_sample_twice():
    p, y = many()
    found, w = outcomes(p, y), np.random.default_rng(1).integers(1, 4, size=len(y))
    twice = score(np.repeat(p, w, axis=0), np.repeat(y, w))
    weighted = summary(found, w.astype(float))
    for name in ("accuracy", "confidence", "ece", "smooth_ece", "nll", "brier"):
        assert getattr(weighted, name) == pytest.approx(getattr(twice, name), abs=1e-9)


def test_proper_scores_by_hand():
    s = score(np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]), np.array([0, 2]))
    assert s.accuracy == 0.5
    assert s.confidence == pytest.approx(0.6)
    assert s.nll == pytest.approx(-(np.log(0.7) + np.log(0.25)) / 2)
    assert s.brier == pytest.approx((0.09 + 0.04 + 0.01 + 0.25 + 0.0625 + 0.5625) / 2)


def test_smooth_error_is_the_fixed_point_of_the_reflected_kernel():
    """The kernel summed directly, with its first reflections, on the same grid."""
    p, y = many(300, seed=3)
    found = outcomes(p, y)
    cell = np.clip((found.confidence * 1000).astype(int), 0, 999)
    at = (np.arange(1000) + 0.5) / 1000
    sigma = smooth_calibration_error(found.confidence, found.correct)
    assert 0.01 < sigma < 0.5
    total = np.zeros(1000)
    for c, r in zip(at[cell], found.correct - found.confidence, strict=True):
        mirrored = [c, -c, 2 - c, 2 + c, c - 2]
        total += r * sum(np.exp(-((at - m) ** 2) / (2 * sigma**2)) for m in mirrored)
    error = np.abs(total).sum() / (len(y) * 1000 * sigma * np.sqrt(2 * np.pi))
    assert error == pytest.approx(sigma, abs=2e-4)


def test_a_calibrated_predictor_has_small_errors_and_a_wrong_one_its_gap():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, size=20_000)
    honest = rng.random(20_000) < confidence
    assert smooth_calibration_error(confidence, honest) < 0.02
    assert expected_calibration_error(confidence, honest) < 0.02
    boastful = rng.random(20_000) < confidence - 0.2
    assert smooth_calibration_error(confidence, boastful) == pytest.approx(0.2, abs=0.02)


@pytest.mark.filterwarnings("ignore")
def test_equal_to_torchmetrics():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    p, y = many()
    told = metrics.multiclass_calibration_error(torch.tensor(p), torch.tensor(y), num_classes=5, n_bins=10)
    assert score(p, y).ece == pytest.approx(told.item(), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_equal_to_netcal():
    metrics = pytest.importorskip("netcal.metrics")
    p, y = many()
    assert score(p, y).ece == pytest.approx(metrics.ECE(10).measure(p, y), abs=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_equal_to_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    p, y = many()
    assert score(p, y).nll == pytest.approx(metrics.log_loss(y, p), rel=1e-6)


@given(st.integers(2, 60), st.integers(2, 6), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_errors_lie_between_zero_and_one(count, classes, seed):
    p, y = many(count, classes, seed)
    s = score(p, y)
    for value in (s.ece, s.smooth_ece, s.accuracy, s.confidence):
        assert 0 <= value <= 1
    assert abs(s.accuracy - s.confidence) <= s.ece + 1e-12
    assert 0 <= s.brier <= 2


def test_intervals_hold_the_figure_and_shrink_with_samples():
    widths = []
    for count in (100, 1600):
        p, y = many(count)
        span, told = interval(outcomes(p, y)), score(p, y)
        assert span.low.accuracy <= told.accuracy <= span.high.accuracy
        assert span.low.nll <= told.nll <= span.high.nll
        widths.append(span.high.nll - span.low.nll)
    assert widths[1] < widths[0] / 2.5


def test_versions_of_a_sample_are_drawn_together():
    """Ten copies of the same predictions say no more than one."""
    p, y = many(200)
    once = interval(outcomes(p, y), seed=1)
    tenfold = interval(outcomes(np.tile(p, (10, 1)), np.tile(y, 10)), seed=1, copies=10)
    assert tenfold.low.accuracy == pytest.approx(once.low.accuracy)
    assert tenfold.high.ece == pytest.approx(once.high.ece)


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        ([[0.5, 0.4]], [0], "row 0 is no probability: its sum is 0.9"),
        ([[0.5, 0.5], [np.nan, 1.0]], [0, 0], "row 1"),
        ([[1.5, -0.5]], [0], "row 0"),
        ([[0.5, 0.5]], [2], "labels run from 2 to 2; there are 2 classes"),
        ([[0.5, 0.5]], [0, 1], "do not fit 2 labels"),
    ],
)
def test_what_is_no_probability_is_refused(p, y, said):
    with pytest.raises(DataError) as caught:
        score(np.array(p), np.array(y))
    assert said in str(caught.value)
