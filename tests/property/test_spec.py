"""Exact decisions on float32 outputs and inputs, against rational arithmetic written out plainly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.errors import PropertyError
from sutura.property.spec import Box, Case, Inequality, Property, inequality_mask, unsafe_mask, violates

F = Fraction
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
any_floats = st.floats(width=32)
# Near each other, so that ties and last-place differences occur.
close = st.integers(-3, 3).map(lambda k: float(np.float32(0.1) + np.float32(k) * np.float32(2.0**-27)))
values = st.one_of(any_floats, close, st.sampled_from([0.0, -0.0, 1.0, 3.4028234663852886e38, 1e-45]))
exact = st.one_of(
    floats.map(F),
    close.map(F),
    st.fractions(max_denominator=50),
    st.sampled_from([F(1), F(-1), F(0), F("1e60"), F("-1e400"), F("1e-350"), F("0.1")]),
)


@st.composite
def inequalities(draw):
    indices = sorted(draw(st.sets(st.integers(0, 3), min_size=1)))
    coefficients = st.one_of(st.sampled_from([F(1), F(-1)]), exact.filter(bool))
    bound = draw(st.one_of(st.just(F(0)), exact))
    return Inequality(tuple((i, draw(coefficients)) for i in indices), bound, draw(st.booleans()))


rows = st.lists(st.lists(values, min_size=4, max_size=4), min_size=1, max_size=6)


@given(inequalities(), rows)
@settings(deadline=None, max_examples=400)
def test_masks_agree_with_rational_arithmetic(inequality, batch):
    outputs = np.array(batch, dtype=np.float32)
    assert inequality_mask(inequality, outputs).tolist() == [inequality.holds(row) for row in outputs]


@given(inequalities(), st.lists(floats, min_size=4, max_size=4))
@settings(deadline=None, max_examples=200)
def test_holds_is_the_sum_in_fractions(inequality, row):
    y = np.array(row, dtype=np.float32)
    total = sum(c * F(float(y[i])) for i, c in inequality.terms)
    expected = total < inequality.bound or (not inequality.strict and total == inequality.bound)
    assert inequality.holds(y) is bool(expected)


@given(st.lists(st.lists(inequalities(), max_size=3).map(tuple), max_size=3).map(tuple), rows)
@settings(deadline=None, max_examples=150)
def test_unsafe_is_an_or_of_ands(conjunctions, batch):
    outputs = np.array(batch, dtype=np.float32)
    case = Case(Box((), ()), conjunctions)
    expected = [any(all(i.holds(row) for i in c) for c in conjunctions) for row in outputs]
    assert unsafe_mask(case, outputs).tolist() == expected


def test_a_sum_that_float64_cannot_decide():
    # 2^60 - 2^60 + 1 - 1 cancels to exactly the bound; one unit in the last place of the bound flips it.
    terms = ((0, F(2**60)), (1, F(-(2**60))), (2, F(1)))
    y = np.array([[1, 1, 1], [1, 1, 2]], dtype=np.float32)
    tight = F(1) - F(1, 10**30)
    assert inequality_mask(Inequality(terms, F(1)), y).tolist() == [True, False]
    assert inequality_mask(Inequality(terms, F(1), strict=True), y).tolist() == [False, False]
    assert inequality_mask(Inequality(terms, tight), y).tolist() == [False, False]


def test_thresholds_between_two_float32_numbers():
    # float32(0.1) is slightly above one tenth.
    y = np.array([[np.float32(0.1)], [np.nextafter(np.float32(0.1), np.float32(0))]], dtype=np.float32)
    assert inequality_mask(Inequality(((0, F(1)),), F("0.1")), y).tolist() == [False, True]
    assert inequality_mask(Inequality(((0, F(-1)),), F("-0.1")), y).tolist() == [True, False]
    assert inequality_mask(Inequality(((0, F(-1)),), -F(float(y[0, 0])), True), y).tolist() == [False, False]


def test_infinities_and_not_a_number():
    y = np.array([[np.inf, 0], [-np.inf, 0], [np.nan, 0], [np.inf, np.inf]], dtype=np.float32)
    assert inequality_mask(Inequality(((0, F(-1)),), F(-1500)), y).tolist() == [True, False, False, True]
    assert inequality_mask(Inequality(((0, F(1)), (1, F(-1))), F(0)), y).tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert inequality_mask(Inequality(((0, F(2)), (1, F(-1))), F(0)), y).tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_violates_needs_the_box_and_the_output_of_one_case():
    left = Case(Box((F(0),), (F(1, 2),)), ((Inequality(((0, F(1)),), F(0)),),))
    right = Case(Box((F(1),), (F(2),)), ((Inequality(((0, F(-1)),), F(0)),),))
    both = Property("p", 1, 1, (left, right), b"")

    def at(x: float, y: float) -> bool:
        return violates(both, np.array([x], dtype=np.float32), np.array([y], dtype=np.float32))

    assert [at(0.5, -1), at(0.5, 1), at(0.75, -1), at(1.5, 1), at(1.5, -1)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert not at(float("nan"), -1)
    assert not at(float("inf"), -1)


intervals = st.tuples(exact, exact).map(sorted).filter(lambda p: max(map(abs, p)) < F(10) ** 38)


@given(st.lists(intervals, min_size=1, max_size=4))
@settings(deadline=None, max_examples=300)
def test_hull_and_inside_are_the_tightest(pairs):
    box = Box(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))
    (low, high), (inner_low, inner_high) = box.float32_hull(), box.float32_inside()
    down, up = np.float32(-np.inf), np.float32(np.inf)
    for i, (lo, hi) in enumerate(pairs):
        assert F(float(low[i])) <= lo < F(float(np.nextafter(low[i], up)))
        assert F(float(np.nextafter(high[i], down))) < hi <= F(float(high[i]))
        first = (
            low[i] if F(float(low[i])) == lo else np.nextafter(low[i], up)
        )  # the first number not below lo
        if F(float(first)) <= hi:
            assert lo <= F(float(inner_low[i])) <= F(float(inner_high[i])) <= hi
            assert F(float(np.nextafter(inner_low[i], down))) < lo
            assert F(float(np.nextafter(inner_high[i], up))) > hi
        else:  # nothing between two neighbours: the one nearer to the middle
            assert inner_low[i] == inner_high[i]
            middle = (lo + hi) / 2
            gaps = [abs(F(float(v)) - middle) for v in (low[i], high[i], inner_low[i])]
            assert min(gaps[:2]) == gaps[2]
            assert lo > F(float(low[i]))
            assert hi < F(float(high[i]))


def test_inside_of_a_gap_is_the_nearest_number():
    one = np.float32(1)
    above = np.nextafter(one, np.float32(2))
    gap = F(float(above)) - 1
    box = Box((1 + gap / 8, 1 + gap / 2), (1 + gap / 4, 1 + 3 * gap / 4))
    low, high = box.float32_inside()
    assert low.tolist() == high.tolist() == [float(one), float(above)]
    assert not box.contains(low)


@pytest.mark.parametrize(("lower", "upper", "side"), [("-1e39", "0", "below"), ("0", "3.5e38", "above")])
def test_bounds_beyond_float32_are_refused(lower, upper, side):
    box = Box((F(0), F(lower)), (F(0), F(upper)))
    for method in (box.float32_hull, box.float32_inside):
        with pytest.raises(PropertyError, match=f"X_1 lies {side} the float32 range"):
            method()


def test_zero_bounds_are_positive_zero():
    low, high = Box((F(0),), (F(0),)).float32_hull()
    assert not np.signbit(low[0])
    assert not np.signbit(high[0])
