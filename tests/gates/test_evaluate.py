"""Figures by sampling, and the exact projection they are compared with."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from small_networks import at_most, cube, less, prop

from sutura.gates.evaluate import inside, nearest_changes, outside, same_bits, uniform, violating
from sutura.gates.safe_set import alternatives, inner_point, safe_set

SETS = {
    "beat one": [(less(0, 1),)],
    "beat all": [(less(0, i),) for i in (1, 2, 3)],
    "one of two": [(less(0, 2), less(1, 2)), (less(0, 3), less(1, 3))],
    "window": [(at_most({1: 1}, 1),), (at_most({1: -1}, -2),)],
    "sums": [(at_most({0: 1, 1: 2}, 3),), (at_most({2: -1, 3: 1}, -1),)],
    "mixed": [(less(0, 1), at_most({2: 1, 3: 1}, 4))],
}


def by_minimize(y, safe):
    """The nearest safe point, by a general optimiser from several starts over each convex piece."""
    found = []
    draw = np.random.default_rng(0)
    for piece in alternatives(safe):
        rows, bounds = np.array([x.row(4) for x in piece]), np.array([float(x.bound) for x in piece])
        rule = {"type": "ineq", "fun": lambda z, r=rows, b=bounds: r @ z - b}
        for start in y + draw.normal(size=(4, 4)) * 2:
            end = minimize(
                lambda z: ((z - y) ** 2).sum(), start, constraints=[rule], options={"ftol": 1e-14}
            ).x
            if (rows @ end - bounds > -1e-6).all():
                found.append(end)
    return min(found, key=lambda z: ((z - y) ** 2).sum())


@pytest.mark.parametrize("name", sorted(SETS))
def test_nearest_changes_agree_with_a_general_optimiser(name):
    safe = safe_set(SETS[name])
    draw = np.random.default_rng(1)
    for y in (draw.normal(size=(8, 4)) * 2).astype(np.float32):
        expected = abs(by_minimize(y.astype(float), safe) - y)
        assert nearest_changes(y[None], safe)[0] == pytest.approx(expected.mean(), rel=1e-3, abs=1e-5)


def test_nearest_changes_by_hand():
    safe = safe_set([(less(0, 1),)])
    y = np.float32([[0, 2], [3, 2], [1, 1]])
    assert nearest_changes(y, safe) == pytest.approx([1.0, 0.0, 0.0])
    above = safe_set([(at_most({0: 1}, 5),)])
    assert nearest_changes(np.float32([[1, 9]]), above) == pytest.approx([2.0])


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(SETS)), st.lists(st.floats(-4, 4, width=32), min_size=4, max_size=4))
def test_safe_outputs_need_no_move_and_no_safe_point_is_nearer(name, values):
    safe = safe_set(SETS[name])
    y = np.array([values], np.float32)
    moved = nearest_changes(y, safe)[0] * 4
    point = inner_point(safe, y[0].astype(float))
    assert moved <= abs(point - y[0]).sum() * 2 + 1e-6
    assert nearest_changes(point[None], safe)[0] == pytest.approx(0, abs=1e-9)


def swap(x):
    return np.stack([x[:, 0], 1 - x[:, 0]], axis=1)


def mended(x):
    y = swap(x)
    y[y[:, 0] <= y[:, 1]] = [1, 0]
    return y


HALF = prop("half", 2, 2, (cube([0, 0], [1, 1]), [[less(0, 1)]]))


def test_inside_by_hand():
    found = inside((swap, mended), HALF, [HALF], samples=4000, seed=3)
    assert found.property == "half"
    assert found.samples == 4000
    assert found.violating_before == pytest.approx(0.5, abs=0.03)
    assert found.violating_after == 0
    assert found.identical == 1
    assert found.agreeing == 1
    assert found.change_right == 0
    # Wrong x are uniform in [0, 1/2]: both scores go 1 - x far, and to a tie it is 1/2 - x.
    assert found.change_wrong == pytest.approx(0.75, abs=0.02)
    assert found.nearest_wrong == pytest.approx(0.25, abs=0.02)
    assert found.change_all == pytest.approx(0.375, abs=0.03)


def test_what_does_not_occur_is_not_a_number():
    found = inside((mended, mended), HALF, [HALF], samples=100)
    assert math.isnan(found.change_wrong)
    assert math.isnan(found.nearest_wrong)


def test_outside_leaves_the_boxes_out():
    found = outside((swap, mended), [HALF], samples=2000)
    assert 0 < found.samples < 2000
    assert 0.4 < found.identical < 0.6
    assert outside((swap, swap), [HALF], samples=2000).identical == 1


def test_outside_of_huge_boxes():
    huge = prop("huge", 2, 2, (cube([-3e38, 0], [3e38, 1]), [[less(0, 1)]]))
    found = outside((lambda x: x, lambda x: x), [huge], samples=200)
    assert found.identical == 1


def test_violating_is_exact_at_the_border():
    x = np.float32([[0, 0], [1, 1], [np.nextafter(np.float32(1), np.float32(2)), 0]])
    y = np.float32([[1, 1], [1, np.nextafter(np.float32(1), np.float32(0))], [0, 1]])
    assert violating([HALF], x, y).tolist() == [True, False, False]


def test_same_bits_tells_zeros_apart():
    a, b = np.float32([[0.0], [1.0], [np.nan]]), np.float32([[-0.0], [1.0], [np.nan]])
    assert same_bits(a, b).tolist() == [False, True, True]


def test_uniform_points_stay_in_the_box():
    low, high = np.float32([0, 1]), np.float32([0, np.nextafter(np.float32(1), np.float32(2))])
    x = uniform(low, high, 500, 0)
    assert x.dtype == np.float32
    assert ((low <= x) & (x <= high)).all()
    assert len(np.unique(x[:, 1])) == 2


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_violating_asks_every_box_that_a_point_lies_in(seed):
    """Against a plain comparison with each box; wide inputs, so that coordinates come in several parts."""
    draw = np.random.default_rng(seed)
    centres = draw.uniform(-1, 1, (5, 70)).astype(np.float32)
    properties = [
        prop(f"p{at}", 70, 2, (cube(c - np.float32(0.5), c + np.float32(0.5)), [[at_most({0: 1}, at)]]))
        for at, c in enumerate(centres)
    ]
    x = (centres[draw.integers(5, size=40)] + draw.uniform(-0.505, 0.505, (40, 70))).astype(np.float32)
    y = draw.uniform(-1, 5, (40, 2)).astype(np.float32)
    expected = np.zeros(40, bool)
    for at in range(5):
        low, high = properties[at].cases[0].box.float32_hull()
        expected |= ((x >= low) & (x <= high)).all(axis=1) & (y[:, 0] <= at)
    assert (violating(properties, x, y) == expected).all()
    assert not violating(properties, x[:0], y[:0]).size
