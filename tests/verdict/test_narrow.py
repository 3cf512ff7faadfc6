"""Stronger refutation: sums of inequalities, and boxes cut down to where no plane refutes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import at_least, at_most, dense, loaded

from sutura.bounds.lower import lower
from sutura.bounds.region import Region
from sutura.network import ops
from sutura.network.evaluate import forward
from sutura.verdict.blend import blend
from sutura.verdict.clip import clip
from sutura.verdict.goal import goal
from sutura.verdict.narrow import narrow
from sutura.verdict.step import step


def box(*ends):
    low, high = zip(*ends, strict=True)
    return Region(np.array([low], dtype=np.float64), np.array([high], dtype=np.float64))


def clipped(region, gap, slopes, refuted=None):
    gap, slopes = np.array([gap], dtype=np.float64), np.array([slopes], dtype=np.float64)
    none = np.zeros(gap.shape[:2], dtype=bool)
    return clip(region, none if refuted is None else np.array([refuted]), gap, slopes)


def test_a_plane_cuts_off_where_it_is_positive():
    # -1 + 2 (x0 - 0) + (3 - x1) <= 0: x0 <= 1/2 and x1 >= 2.
    rest = clipped(box((0, 1), (0, 3)), [[-1]], [[[2, -1]]])
    assert rest.low.tolist() == [[0, 2]] and rest.high.tolist() == [[0.5, 3]]


def test_ends_move_inward_to_float32_numbers():
    # x <= 0.3 for float32 x means x <= the float32 number below 0.3; x >= 0.7 that above.
    rest = clipped(box((0, 1), (0, 1)), [[-0.3, -0.3]], [[[1, 0], [0, -1]]])
    assert rest.high[0, 0] == np.nextafter(np.float32(0.3), np.float32(0)) < 0.3
    assert rest.low[0, 1] == np.nextafter(np.float32(0.7), np.float32(1)) > 0.7


def test_planes_of_a_conjunction_cut_after_one_another_and_may_leave_nothing():
    # x <= 0.25 and x >= 0.5.
    rest = clipped(box((0, 1)), [[-0.25, -0.5]], [[[1], [-1]]])
    assert (rest.low > rest.high).any()


def test_what_is_left_of_several_conjunctions_is_their_hull():
    # Conjunction 0: x <= 0.25; conjunction 1: x in [0.5, 0.75]; conjunction 2 is refuted.
    gap, slopes = [[-0.25, -1], [-0.75, -0.5], [-1, -1]], [[[1], [0]], [[1], [-1]], [[0], [0]]]
    rest = clipped(box((0, 1)), gap, slopes, [False, False, True])
    assert (rest.low[0, 0], rest.high[0, 0]) == (0, pytest.approx(0.75))
    rest = clipped(box((0, 1)), gap, slopes, [True, False, True])
    assert (rest.low[0, 0], rest.high[0, 0]) == (pytest.approx(0.5), pytest.approx(0.75))
    assert (clipped(box((0, 1)), gap, slopes, [True] * 3).low > 1).all()


@pytest.mark.parametrize("gap", [-np.inf, np.nan])
def test_a_plane_that_says_nothing_cuts_nothing(gap):
    rest = clipped(box((0, 1), (2, 2)), [[gap]], [[[np.nan, 1]]])
    assert rest.low.tolist() == [[0, 2]] and rest.high.tolist() == [[1, 2]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_no_point_where_all_planes_are_at_most_zero_is_cut_off(seed):
    random = np.random.default_rng(seed)
    n, r = int(random.integers(1, 4)), int(random.integers(1, 4))
    scale = 10.0 ** random.integers(-3, 4, n)
    low = (random.normal(size=(1, n)) * scale).astype(np.float32).astype(np.float64)
    high = (low + random.random((1, n)) * scale).astype(np.float32).astype(np.float64)
    region = Region(low, np.maximum(low, high))
    slopes = random.normal(size=(1, 1, r, n)) * 10.0 ** random.integers(-3, 3, (1, 1, r, n))
    gap = -random.random((1, 1, r)) * (abs(slopes) * (region.high - region.low)).sum(axis=3)
    rest = clip(region, np.zeros((1, 1), dtype=bool), gap, slopes)
    share = random.random((64, n))
    points = (region.low + share * (region.high - region.low)).astype(np.float32).astype(np.float64)
    ends = np.concatenate([rest.low, rest.high])
    beside = [np.nextafter(ends.astype(np.float32), np.float32(s)) for s in (np.inf, -np.inf)]
    places = np.concatenate([points, ends, *(b.astype(np.float64) for b in beside)])
    for x in np.clip(places, region.low, region.high):
        if all(_plane(gap[0, 0, i], slopes[0, 0, i], x, region) <= 0 for i in range(r)):
            assert (rest.low[0] <= x).all() and (x <= rest.high[0]).all()


def _plane(gap, slopes, x, region):
    """Exactly."""
    total = Fraction(float(gap))
    for s, v, lo, hi in zip(slopes, x, region.low[0], region.high[0], strict=True):
        total += Fraction(float(s)) * (Fraction(float(v)) - Fraction(float(lo if s > 0 else hi)))
    return total


def test_a_sum_refutes_what_no_inequality_does():
    # x + 0.1 and 0.1 - x on [-1, 1]: each may be -0.9, their mean is 0.1.
    gap, slopes = np.array([[[-0.9, -0.9]]]), np.array([[[[1.0], [-1.0]]]])
    weights = blend(box((-1, 1)), gap, slopes, np.ones((1, 1, 2), dtype=bool))
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert weights[0, 0].tolist() == pytest.approx([0.5, 0.5])


def test_weights_find_the_best_of_unequal_planes():
    # -1 + 4 t and -1 + (2 - t) on t in [0, 2]; they meet at t = 0.4 where both are 0.6: weights 1/5 and 4/5.
    gap, slopes = np.array([[[-1.0, -1.0, np.nan]]]), np.array([[[[4.0], [-1.0], [0.0]]]])
    weights = blend(box((0, 2)), gap, slopes, np.ones((1, 1, 3), dtype=bool))[0, 0]
    assert weights[2] == 0
    t = np.array([0.0, 2.0])
    assert (weights[0] * (-1 + 4 * t) + weights[1] * (1 - t)).min() > 0.4


def test_no_plane_no_weights():
    gap, slopes = np.array([[[-np.inf, 1.0]]]), np.ones((1, 1, 2, 1))
    weights = blend(box((0, 1)), gap, slopes, np.array([[[True, False]]]))
    assert weights.tolist() == [[[0, 0]]]


def test_narrow_proves_what_step_does_not():
    # y = (x, -x): both at most -0.1 is impossible.
    program = lower(loaded(1, dense([[1], [-1]], [0, 0])).network)
    aim = goal([(at_most(0, Fraction(-1, 10)), at_most(1, Fraction(-1, 10)))], 2)
    assert not step(program, aim, box((-1, 1))).safe[0]
    assert narrow(program, aim, box((-1, 1))).safe[0]
    # At most 0.1 is possible, between -0.1 and 0.1.
    found = narrow(program, goal([(at_most(0, "0.1"), at_most(1, "0.1"))], 2), box((-1, 1)))
    assert not found.safe[0]
    assert (found.rest.low[0, 0], found.rest.high[0, 0]) == pytest.approx((-0.1, 0.1), abs=1e-5)
    assert found.kept[0] == pytest.approx(0.1, abs=1e-5)


def test_slopes_below_a_relu_are_chosen_for_the_output():
    # y = relu(x) - x / 2 >= 0 on [-1, 0.9]. A lower slope of 0 or 1 gives -0.45 or -0.5, one half gives 0.
    program = lower(loaded(1, dense([[1], [1]], [0, 3]), ops.Relu(), dense([[1, -0.5]], [1.5])).network)
    aim, region = goal([(at_most(0, Fraction(-1, 10)),)], 1), box((-1, 0.9))
    assert not step(program, aim, region).safe[0]
    assert narrow(program, aim, region).safe[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_no_unsafe_point_is_cut_off(seed):
    """Conjunctions of random networks, with bounds near what samples reach."""
    random = np.random.default_rng(seed)
    n, hidden, m = int(random.integers(1, 4)), int(random.integers(3, 9)), int(random.integers(2, 4))
    layers, width = [], n
    for _ in range(int(random.integers(1, 4))):
        layers += [dense(random.normal(size=(hidden, width)), random.normal(size=hidden) / 2), ops.Relu()]
        width = hidden
    network = loaded(n, *layers, dense(random.normal(size=(m, hidden)), random.normal(size=m))).network
    region = box(*[(-1, 1)] * n)
    points = random.uniform(-1, 1, (400, n)).astype(np.float32)
    outputs = forward(network, points)[network.output].astype(np.float64)
    conjunctions = []
    for _ in range(int(random.integers(1, 3))):
        at, signs = outputs[random.integers(400)], random.choice([-1.0, 1.0], m)
        make = {1.0: at_most, -1.0: at_least}
        conjunctions.append(tuple(make[s](i, float(at[i] + s * 0.05)) for i, s in enumerate(signs)))
    found = narrow(lower(network), goal(conjunctions, m), region)
    aim = goal(conjunctions, m)
    gap = outputs @ aim.rows.T - aim.bounds
    unsafe = np.array([(gap[:, members] <= 0).all(axis=1) for members in aim.members]).any(axis=0)
    inside = ((points >= found.rest.low[0]) & (points <= found.rest.high[0])).all(axis=1)
    assert unsafe.any() and not found.safe[0]
    assert inside[unsafe].all()
