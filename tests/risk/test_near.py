"""Ways to come nearer: scattered points from above, optimised slopes from below, with oracles by hand."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from risk_networks import chain, dense, points

from sutura.network import ops
from sutura.network.run import open_session, run
from sutura.risk.ball import domain
from sutura.risk.boundary import Asked, BoundaryConfig
from sutura.risk.model import model
from sutura.risk.polish import polished
from sutura.risk.quantify import RiskConfig, prepared, quantify_all
from sutura.risk.safety import Adversarial, Uncertainty, labels
from sutura.risk.scatter import scattered_attack


def island():
    """Class 1 where x0 is above 0.9 only; below, the scores are flat, so that no gradient leads there."""
    first = ops.Gemm(np.array([[1.0, 0.0]], np.float32), np.array([-0.9], np.float32), 1.0, 1.0, True)
    last = ops.Gemm(np.array([[0.0], [10.0]], np.float32), np.array([0.0, -1e-3], np.float32), 1.0, 1.0, True)
    return chain((2,), first, ops.Relu(), last)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_scattered_points_find_what_no_gradient_leads_to(norm):
    net, x = island(), np.array([[0.5, 0.5]], np.float32)
    seen = model(net, Adversarial())
    label = labels(Adversarial(), seen.run(x).astype(np.float64))
    asked = Asked(Adversarial(), domain(np.zeros(2), np.ones(2)), norm, x.astype(np.float64), label)
    config = BoundaryConfig()
    scattered = scattered_attack(seen, asked, config)
    assert 0.4000999 <= scattered.distance[0] <= 0.41
    found = polished(seen, asked, scattered)
    assert found.distance[0] == pytest.approx(0.4001, abs=1e-5)
    assert run(open_session(net.original), found.witness)[0].argmax() == 1


def test_scattering_finds_nothing_where_there_is_nothing():
    net = chain(
        (2,), ops.Gemm(np.zeros((2, 2), np.float32), np.array([1.0, 0.0], np.float32), 1.0, 1.0, True)
    )
    seen, x = model(net, Adversarial()), np.array([[0.5, 0.5]])
    asked = Asked(Adversarial(), domain(np.zeros(2), np.ones(2)), "linf", x, np.zeros(1, np.int64))
    assert np.isinf(scattered_attack(seen, asked, BoundaryConfig()).distance).all()


@pytest.mark.parametrize("activation", [ops.Relu, ops.Tanh])
@pytest.mark.parametrize("risk", [Adversarial(), Uncertainty(0.001)])
def test_optimised_slopes_show_at_least_what_crown_shows_and_no_sample_refutes_them(activation, risk):
    net, x = dense((20, 24, 24, 3), 2, activation), points(3, 20, 4)
    plain = RiskConfig(risk=risk, estimator="none")
    seen = prepared(net, plain)
    crown, sloped = (quantify_all(seen, x, replace(plain, bounds=b)) for b in ("crown", "slopes"))
    random = np.random.default_rng(0)
    for row, least, more in zip(x, crown, sloped, strict=True):
        assert least.lower <= more.lower <= more.upper
        sample = np.clip(row + more.lower * random.choice([-1.0, 1.0], (400, 20)), 0.0, 1.0)
        if isinstance(risk, Adversarial):
            assert (seen.run(sample.astype(np.float32)).argmax(axis=1) == more.label).all()
    assert sum(m.lower for m in sloped) > sum(m.lower for m in crown)


def test_cuts_close_much_of_the_gap_without_a_split():
    net, x = dense((60, 30, 30, 3), 7), points(4, 60, 8)
    config = RiskConfig(estimator="none", bounds="slopes")
    seen = prepared(net, config)
    cut = quantify_all(seen, x, config)
    with mock.patch("sutura.risk.optimised.cut_off", lambda _, __, scene, *rest: scene[1]):
        uncut = quantify_all(seen, x, config)
    assert all(u.lower <= c.lower <= c.upper == u.upper for u, c in zip(uncut, cut, strict=True))
    assert sum(c.upper - c.lower for c in cut) < 0.7 * sum(u.upper - u.lower for u in uncut)
