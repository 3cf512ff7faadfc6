"""Radii: exact where they can be computed by hand, sandwiched everywhere, never wrong on samples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_networks import chain, dense, linear, points

from sutura.errors import DataError, MismatchError, NetworkError
from sutura.network import ops
from sutura.network.run import open_session, run
from sutura.risk import model as model_module
from sutura.risk.ball import distance, domain, project
from sutura.risk.boundary import Asked
from sutura.risk.descent import least_certain
from sutura.risk.quantify import RiskConfig, quantify_risk
from sutura.risk.safety import Adversarial, Invariance, Reachability, Uncertainty, at_risk

NORMS = ("l1", "l2", "linf")
ON_A_LINE = {"l1": 0.25, "l2": 0.5 / np.sqrt(5.0), "linf": 0.5 / 3.0}
"""Distance of (0.75, 0.25) from 2 x0 - x1 = 0.75: the margin 0.5 over the dual norm of (2, -1)."""


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bounds", ["crown", "lipschitz"])
def test_linear_networks_have_exact_radii(norm, bounds):
    net = linear([[2.0, -1.0], [0.0, 0.0]], [-0.75, 0.0])
    found = quantify_risk(net, np.array([0.75, 0.25], np.float32), RiskConfig(norm=norm, bounds=bounds))
    assert found.label == 0
    assert found.safety == pytest.approx(0.5)
    assert found.lower <= ON_A_LINE[norm] * (1 + 1e-12) <= found.upper * (1 + 1e-6)
    assert found.lower == pytest.approx(ON_A_LINE[norm], rel=2e-2)
    assert found.upper == pytest.approx(ON_A_LINE[norm], rel=1e-4)
    assert found.level == "PROVED"


def test_units_are_those_of_the_domain():
    net = linear([[2.0, -1.0], [0.0, 0.0]], [-0.75, 0.0])
    x = np.array([0.75, 0.25], np.float32)
    wide = RiskConfig(domain=domain(np.zeros(2), np.full(2, 2.0)))
    assert quantify_risk(net, x, wide).upper == pytest.approx(ON_A_LINE["linf"] / 2, rel=1e-4)
    raw = RiskConfig(domain=domain(np.zeros(2), np.full(2, 2.0), units="raw"))
    assert quantify_risk(net, x, raw).upper == pytest.approx(ON_A_LINE["linf"], rel=1e-4)


def test_a_domain_that_is_safe_as_a_whole_has_an_infinite_radius():
    net = linear([[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
    for norm in NORMS:
        found = quantify_risk(net, np.array([0.5, 0.5], np.float32), RiskConfig(norm=norm))
        assert found.lower == math.inf
        assert found.upper == math.inf
        assert found.witness is None


def test_an_input_already_at_risk_has_radius_zero():
    found = quantify_risk(linear(np.eye(2)), np.array([0.5, 0.5], np.float32), RiskConfig())
    assert (found.lower, found.upper) == (0.0, 0.0)
    assert "at the input itself" in found.reason


def test_reachability_by_hand():
    net = linear([[1.0, 1.0]])
    found = quantify_risk(net, np.array([0.5, 0.5], np.float32), RiskConfig(risk=Reachability(0, -9.0, 1.25)))
    assert found.upper == pytest.approx(0.125, rel=1e-4)
    assert found.lower == pytest.approx(0.125, rel=2e-2)


def test_uncertainty_of_two_scores_by_hand():
    # KL(U || softmax(d, 0)) = log(cosh(d / 2)): at risk where |d| <= 2 acosh(e^kl).
    kl = 0.02
    edge = 2.0 * math.acosh(math.exp(kl))
    net = linear([[4.0], [0.0]])
    found = quantify_risk(net, np.array([0.75], np.float32), RiskConfig(risk=Uncertainty(kl)))
    assert found.upper == pytest.approx(0.75 - edge / 4.0, rel=1e-3)
    assert found.lower == pytest.approx(found.upper, rel=3e-2)
    assert found.lower <= found.upper


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(NORMS), which=st.sampled_from(range(4)))
@settings(max_examples=15, deadline=None)
def test_nothing_inside_the_certified_ball_is_at_risk(seed, norm, which):
    risk = (Adversarial(), Adversarial("argmin"), Reachability(0, -0.5, 0.5), Uncertainty(0.02))[which]
    activation = (ops.Relu, ops.Tanh, ops.Sigmoid)[seed % 3]
    net, x = dense((4, 8, 8, 3), seed, activation), points(1, 4, seed)
    limits = domain(np.zeros(4), np.ones(4))
    for bounds in ("crown", "lipschitz"):
        found = quantify_risk(net, x[0], RiskConfig(risk=risk, norm=norm, bounds=bounds, budget=0.3))
        assert found.lower <= found.upper
        radius = min(found.lower, 4.0)
        if radius == 0.0:
            continue
        random = np.random.default_rng(seed)
        centre = np.repeat(x.astype(np.float64), 2000, axis=0)
        away = centre + random.choice([-1.0, 0.0, 1.0], (2000, 4)) * random.random((2000, 1)) * radius * 4
        near = project(limits, norm, away, centre, np.full(2000, radius)).astype(np.float32)
        near = near[distance(limits, norm, near.astype(np.float64), centre[: len(near)]) <= radius]
        y = run(open_session(net.original), near)
        assert not at_risk(risk, y, np.full(len(near), found.label)).any()


@pytest.mark.parametrize("norm", NORMS)
def test_branch_and_bound_closes_in_on_a_small_network(norm):
    net, x = dense((3, 12, 12, 3), 4), points(1, 3, 3)[0]
    plain = quantify_risk(net, x, RiskConfig(norm=norm, estimator="none", budget=0.0))
    tight = quantify_risk(net, x, RiskConfig(norm=norm, estimator="none", budget=10.0, tight=0.98, workers=1))
    assert plain.lower <= tight.lower <= tight.upper <= plain.upper
    assert tight.lower >= 0.979 * tight.upper
    unsaid = quantify_risk(net, x, RiskConfig(norm=norm, estimator="none", tight=0.98, workers=1))
    assert unsaid.lower >= 0.979 * unsaid.upper


def test_branch_and_bound_through_verify_with_many_inputs():
    net, x = dense((20, 6, 3), 1), points(1, 20, 1)[0]
    plain = quantify_risk(net, x, RiskConfig(estimator="none"))
    tight = quantify_risk(net, x, RiskConfig(estimator="none", budget=4.0, workers=1))
    assert plain.lower <= tight.lower <= tight.upper <= plain.upper


def test_a_softmax_at_the_end_is_looked_through():
    plain, soft = dense((4, 8, 3), 2), dense((4, 8, 3), 2, last=(ops.Softmax(),))
    x = points(1, 4, 5)[0]
    for risk in (Adversarial(), Uncertainty(0.01)):
        a, b = (quantify_risk(net, x, RiskConfig(risk=risk, budget=0.0)) for net in (plain, soft))
        assert b.lower == pytest.approx(a.lower, rel=0.05)
        assert b.upper == pytest.approx(a.upper, rel=1e-3)
        assert b.lower <= b.upper


def test_witnesses_are_what_onnx_runtime_says():
    net, x = dense((4, 8, 3), 7), points(1, 4, 7)[0]
    found = quantify_risk(net, x)
    y = run(open_session(net.original), found.witness.input[None])
    assert (y[0] == found.witness.output).all()
    assert y[0].argmax() != found.label or (np.sort(y[0])[-1] == np.sort(y[0])[-2])
    far = abs(found.witness.input.astype(np.float64) - x).max()
    assert far == found.upper


def test_a_black_box_is_searched_without_gradients():
    net, x = dense((4, 8, 3), 7), points(1, 4, 7)[0]
    seen, blind = quantify_risk(net, x), quantify_risk(net, x, RiskConfig(gradients=False))
    assert blind.estimate is None
    assert seen.upper <= blind.upper * (1 + 1e-6)
    assert blind.upper <= 2.0 * seen.upper


def test_what_cannot_be_bounded_says_why(monkeypatch):
    def refuse(_):
        raise NetworkError("node 'big' (MatMul) is too large to bound")

    monkeypatch.setattr(model_module, "lower", refuse)
    monkeypatch.setattr(model_module, "find_spec", lambda _: None)
    found = quantify_risk(dense((4, 8, 3), 7), points(1, 4, 7)[0], RiskConfig(estimator="none"))
    assert found.lower == 0.0
    assert found.level == "WITNESSED"
    assert "too large to bound" in found.reason


@pytest.mark.parametrize("estimator", ["ratio", "clever", "deepquant"])
def test_estimates_on_a_linear_network_are_exact(estimator):
    net = linear([[2.0, -1.0], [0.0, 0.0]], [-0.75, 0.0])
    found = quantify_risk(net, np.array([0.75, 0.25], np.float32), RiskConfig(estimator=estimator))
    assert found.estimate == pytest.approx(ON_A_LINE["linf"], rel=2e-2)


def test_invariance_says_what_it_is():
    net = linear([[1.0, 0.0], [0.0, 0.0]], [-0.5, 0.0])
    x = np.array([0.9, 0.5], np.float32)
    others = np.array([[0.8, 0.1], [0.2, 0.5]], np.float32)
    found = quantify_risk(net, x, RiskConfig(risk=Invariance()), reference=(others, np.array([1, 1])))
    assert found.lower == 0.0
    assert found.upper == pytest.approx(0.4, rel=1e-6)
    assert "human" in found.reason
    assert found.figures["farthest_share_of_the_way"] == 1.0
    with pytest.raises(DataError, match="labelled data"):
        quantify_risk(net, x, RiskConfig(risk=Invariance()))


def test_inputs_that_do_not_fit_are_refused():
    net = linear(np.eye(2))
    with pytest.raises(MismatchError):
        quantify_risk(net, np.zeros(3, np.float32))
    with pytest.raises(DataError, match="number 1 of sample 0"):
        quantify_risk(net, np.array([0.5, 1.5], np.float32))
    with pytest.raises(DataError):
        quantify_risk(net, np.array([0.1, 0.5]))


def test_the_same_seed_gives_the_same_result():
    net, x = dense((6, 10, 4), 3), points(1, 6, 3)[0]
    config = replace(RiskConfig(), seed=5)
    a, b = quantify_risk(net, x, config), quantify_risk(net, x, config)
    assert (a.lower, a.upper, a.estimate) == (b.lower, b.upper, b.estimate)


def test_convolutions_are_measured_too():
    random = np.random.default_rng(0)
    net = chain(
        (1, 4, 4),
        ops.Conv(
            (0.5 * random.normal(size=(2, 1, 2, 2))).astype(np.float32), None, (1, 1), (0, 0, 0, 0), (1, 1), 1
        ),
        ops.Relu(),
        ops.MaxPool((2, 2), (1, 1), (0, 0, 0, 0), (1, 1)),
        ops.Reshape((8,)),
        ops.MatMul(random.normal(size=(8, 3)).astype(np.float32)),
    )
    for norm in NORMS:
        found = quantify_risk(net, points(1, 16, 1)[0], RiskConfig(norm=norm, bounds="lipschitz"))
        tight = quantify_risk(net, points(1, 16, 1)[0], RiskConfig(norm=norm))
        assert 0 < found.lower <= tight.upper
        assert 0 < tight.lower <= tight.upper


def test_linear_bounds_that_take_too_long_are_given_up():
    found = quantify_risk(dense((4, 8, 3), 7), points(1, 4, 7)[0], RiskConfig(patience=0.0, estimator="none"))
    assert found.lower == 0.0
    assert found.upper < np.inf
    assert "take more than 0 s" in found.reason


def test_the_least_certain_input_of_a_ball():
    # Outputs (4 x - 3, 0): equal at x = 0.75, which lies 0.25 from the centre.
    seen = model_module.model(linear([[4.0], [0.0]], [-3.0, 0.0]), Uncertainty(0.0))
    asked = Asked(Uncertainty(0.0), domain(np.zeros(1), np.ones(1)), "linf", np.array([[0.5]]), np.array([1]))
    assert least_certain(seen, asked, 0.4, 40)[0, 0] == pytest.approx(0.75, abs=1e-6)
    assert least_certain(seen, asked, 0.125, 40)[0, 0] == pytest.approx(0.625, abs=1e-6)
