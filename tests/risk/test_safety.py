"""Safety functions: values by hand, gradients by differences, claims that never say too much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.errors import MismatchError, PropertyError
from sutura.risk.safety import (
    Adversarial,
    Reachability,
    Uncertainty,
    at_risk,
    check_outputs,
    claim,
    kl_to_uniform,
    labels,
    margins,
    safety,
    seeds,
    softmax,
    softmax_pull,
)

RISKS = (Adversarial(), Adversarial("argmin"), Reachability(1, -1.0, 2.0), Uncertainty(0.1))


def test_margins_by_hand():
    y = np.array([[3.0, 1.0, 2.5]])
    assert safety(Adversarial(), y, np.array([0]))[0] == 0.5
    assert safety(Adversarial("argmin"), y, np.array([1]))[0] == 1.5
    assert safety(Reachability(2, -1.0, 4.0), y, np.array([0]))[0] == 1.5
    assert labels(Adversarial("argmin"), y)[0] == 1


def test_ties_are_at_risk_and_ends_of_a_range_are_not():
    tie = np.array([[1.0, 1.0]])
    assert at_risk(Adversarial(), tie, np.array([0]))[0]
    assert not at_risk(Reachability(0, 1.0, 2.0), tie, np.array([0]))[0]
    assert at_risk(Reachability(0, np.nextafter(1.0, 2.0), 2.0), tie, np.array([0]))[0]


def test_not_a_number_is_no_witness():
    broken = np.array([[np.nan, 1.0, 0.0]])
    for risk in RISKS:
        assert not at_risk(risk, broken, np.array([0]))[0]


def test_kl_is_that_of_the_definition():
    y = np.random.default_rng(0).normal(size=(5, 7))
    p = softmax(y)
    by_hand = (1 / 7 * np.log((1 / 7) / p)).sum(axis=1)
    assert kl_to_uniform(y) == pytest.approx(by_hand)
    assert kl_to_uniform(np.full((1, 4), 3.0))[0] == 0.0
    assert kl_to_uniform(np.array([[1000.0, 0.0]]))[0] == pytest.approx(500 - np.log(2))


@pytest.mark.parametrize("risk", RISKS)
def test_seeds_are_gradients(risk):
    random = np.random.default_rng(1)
    y, label = random.normal(size=(3, 4)), np.array([0, 1, 2])
    ways = margins(risk, y, label).shape[1]
    for way in range(ways):
        if np.isinf(margins(risk, y, label)[:, way]).any():
            continue
        seed = seeds(risk, y, label, np.full(3, way))
        for j in range(4):
            step = np.zeros(4)
            step[j] = 1e-6
            up, down = margins(risk, y + step, label)[:, way], margins(risk, y - step, label)[:, way]
            assert seed[:, j] == pytest.approx((up - down) / 2e-6, abs=1e-5)


def test_softmax_pull_is_the_gradient():
    random = np.random.default_rng(2)
    y, seed = random.normal(size=(1, 4)), random.normal(size=(1, 4))
    numeric = [
        ((seed * softmax(y + 1e-6 * np.eye(4)[j])).sum() - (seed * softmax(y - 1e-6 * np.eye(4)[j])).sum())
        / 2e-6
        for j in range(4)
    ]
    assert softmax_pull(y, seed)[0] == pytest.approx(numeric, abs=1e-8)


@given(seed=st.integers(0, 10**6), index=st.sampled_from(range(len(RISKS))))
@settings(max_examples=200, deadline=None)
def test_a_claim_that_holds_at_an_output_means_that_it_is_safe(seed, index):
    random, risk = np.random.default_rng(seed), RISKS[index]
    y = random.normal(size=(1, 4)) * random.choice([0.05, 1.0, 10.0])
    label = random.integers(0, 4, 1)
    said = claim(risk, label, 4, 0.0, random.normal(size=(1, 5, 4)))
    holds = said.shown(np.einsum("bkm,bm->bk", said.rows, y))[0]
    assert not (holds and at_risk(risk, y, label)[0])


def test_the_tangent_at_the_output_itself_shows_what_is_true():
    y = np.array([[1.0, 0.0, -1.0]])
    level = float(kl_to_uniform(y)[0])
    below, above = (
        claim(Uncertainty(v), np.array([0]), 3, 0.0, y[:, None]) for v in (level * 0.999, level * 1.001)
    )
    assert below.shown(np.einsum("bkm,bm->bk", below.rows, y))[0]
    assert not above.shown(np.einsum("bkm,bm->bk", above.rows, y))[0]


@pytest.mark.parametrize(
    ("risk", "outputs", "error"),
    [
        (Reachability(5), 5, MismatchError),
        (Reachability(0, 2.0, 1.0), 5, PropertyError),
        (Adversarial(), 1, MismatchError),
        (Uncertainty(-1.0), 3, PropertyError),
    ],
)
def test_questions_without_sense_are_refused(risk, outputs, error):
    with pytest.raises(error):
        check_outputs(risk, outputs)
