"""Geometry of balls: extreme points and crossings against linear programs and sampling, regions outward."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from sutura.errors import DataError
from sutura.risk.ball import crossing, distance, domain, dual_length, extreme, project, regions

NORMS = ("l1", "l2", "linf")


def case(seed, rows=4, size=5):
    random = np.random.default_rng(seed)
    limits = domain(-random.random(size), 1.0 + random.random(size))
    centre = limits.low + random.random((rows, size)) * (limits.high - limits.low)
    return limits, centre.astype(np.float32).astype(np.float64), random.normal(size=(rows, size)), random


def test_distances_by_hand():
    limits = domain(np.zeros(2), np.array([1.0, 2.0]))
    x, centre = np.array([[0.5, 2.0]]), np.array([[0.0, 0.0]])
    assert distance(limits, "l1", x, centre)[0] == 1.5
    assert distance(limits, "linf", x, centre)[0] == 1.0
    assert distance(limits, "l2", x, centre)[0] == pytest.approx(np.sqrt(1.25))
    raw = domain(np.zeros(2), np.array([1.0, 2.0]), units="raw")
    assert distance(raw, "linf", x, centre)[0] == 2.0
    assert dual_length(limits, "linf", np.array([[1.0, -3.0]]))[0] == 7.0
    assert dual_length(limits, "l1", np.array([[1.0, -3.0]]))[0] == 6.0


def test_an_input_of_no_width_is_no_division_by_zero():
    limits = domain(np.array([0.0, 0.5]), np.array([1.0, 0.5]))
    assert (limits.scale == 1.0).all()


@pytest.mark.parametrize("ends", [([0.0, 1.0], [1.0, 0.0]), ([0.0], [1.0, 2.0]), ([np.nan], [1.0])])
def test_domains_that_hold_nothing_are_refused(ends):
    with pytest.raises(DataError):
        domain(np.array(ends[0]), np.array(ends[1]))


@given(seed=st.integers(0, 10**6), radius=st.floats(1e-3, 3.0), norm=st.sampled_from(NORMS))
@settings(max_examples=60, deadline=None)
def test_extreme_points_are_in_the_ball_and_no_sample_is_lower(seed, radius, norm):
    limits, centre, slopes, random = case(seed)
    x = extreme(limits, norm, centre, slopes, np.full(4, radius))
    assert (distance(limits, norm, x, centre) <= radius * (1 + 1e-9)).all()
    assert (x >= limits.low - 1e-12).all()
    assert (x <= limits.high + 1e-12).all()
    value = (slopes * x).sum(axis=1)
    for _ in range(200):
        other = centre + random.normal(size=centre.shape) * radius * limits.scale
        other = project(limits, norm, other, centre, np.full(4, radius))
        assert (value <= (slopes * other).sum(axis=1) + 1e-9).all()


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(("l1", "linf")))
@settings(max_examples=40, deadline=None)
def test_crossings_are_the_optimum_of_the_linear_program(seed, norm):
    limits, centre, slopes, random = case(seed, rows=1)
    most = (slopes[0] * centre[0]).sum() - np.minimum(slopes[0] * limits.low, slopes[0] * limits.high).sum()
    need = random.random() * most
    x, reached = crossing(limits, norm, centre, slopes, np.array([need]))
    assert reached[0]
    assert (slopes * (x - centre)).sum() == pytest.approx(-need, abs=1e-9)
    # Variables: steps u in units, with |u_i| <= v_i; Linf has one v.
    n, lines = len(limits.low), 1 if norm == "linf" else len(limits.low)
    pick = np.ones((n, 1)) if norm == "linf" else np.eye(n)
    a = np.block([[np.eye(n), -pick], [-np.eye(n), -pick]])
    a = np.vstack([a, np.concatenate([slopes[0] * limits.scale, np.zeros(lines)])])
    ends = [
        ((lo - c) / s, (hi - c) / s)
        for lo, hi, c, s in zip(limits.low, limits.high, centre[0], limits.scale, strict=True)
    ]
    best = linprog(
        np.concatenate([np.zeros(n), np.ones(lines)]),
        A_ub=a,
        b_ub=np.concatenate([np.zeros(2 * n), [-need]]),
        bounds=[*ends, *[(0, None)] * lines],
    )
    assert distance(limits, norm, x, centre)[0] == pytest.approx(best.fun, abs=1e-7)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_l2_crossings_invert_l2_extremes(seed):
    limits, centre, slopes, random = case(seed)
    radius = random.random(4)
    x = extreme(limits, "l2", centre, slopes, radius)
    need = -(slopes * (x - centre)).sum(axis=1)
    back, _ = crossing(limits, "l2", centre, slopes, need)
    far = distance(limits, "l2", back, centre)
    assert (far <= distance(limits, "l2", x, centre) + 1e-7).all()
    assert ((slopes * (back - centre)).sum(axis=1) <= -need + 1e-7).all()


def test_what_the_domain_does_not_hold_is_told():
    limits = domain(np.zeros(2), np.ones(2))
    x, reached = crossing(limits, "linf", np.full((1, 2), 0.5), np.array([[1.0, 0.0]]), np.array([0.6]))
    assert not reached[0]
    assert x[0, 0] == 0.0


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(NORMS), radius=st.floats(1e-7, 2.0))
@settings(max_examples=80, deadline=None)
def test_regions_hold_every_float32_point_of_the_ball(seed, norm, radius):
    limits, centre, slopes, _ = case(seed)
    region = regions(limits, norm, centre, np.full(4, radius))
    x = extreme(limits, norm, centre, slopes, np.full(4, radius)).astype(np.float32).astype(np.float64)
    inside = (
        (distance(limits, norm, x, centre) <= radius) & (x >= limits.low).all(1) & (x <= limits.high).all(1)
    )
    held = ((region.low <= x) & (x <= region.high)).all(axis=1)
    assert held[inside].all()
    assert (region.low.astype(np.float32) == region.low).all()
    if region.ball is not None:
        least = region.ball.least(slopes[:, None])[:, 0]
        assert (least <= (slopes * x).sum(axis=1) + 1e-12)[inside].all()
