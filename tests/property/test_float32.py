"""Directed rounding, against neighbours."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.property.float32 import LARGEST, nearest, round_down, round_up

INF = np.float32(np.inf)
exact = st.one_of(
    st.fractions(),
    st.floats(allow_nan=False, allow_infinity=False).map(Fraction),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(Fraction),
    st.tuples(st.floats(0.5, 1, width=32), st.integers(-60, 60)).map(
        lambda p: Fraction(p[0]) + Fraction(p[1], 2**84)
    ),
)


@given(exact.filter(lambda v: abs(v) <= LARGEST))
@settings(max_examples=400, deadline=None)
def test_rounding_is_to_the_neighbours(value):
    low, high = round_down(value), round_up(value)
    assert Fraction(float(low)) <= value <= Fraction(float(high))
    with np.errstate(over="ignore"):
        assert high in (low, np.nextafter(low, INF))
    gap = min(value - Fraction(float(low)), Fraction(float(high)) - value)
    assert abs(Fraction(float(nearest(value))) - value) == gap


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (LARGEST + 1, float(LARGEST), np.inf),
        (-LARGEST - 1, -np.inf, -float(LARGEST)),
        (Fraction(1, 10**60), 0.0, 2.0**-149),
        (-Fraction(1, 10**60), -(2.0**-149), 0.0),
        (Fraction(1, 10), 0.09999999403953552, 0.10000000149011612),
    ],
)
def test_known_values(value, low, high):
    assert (float(round_down(value)), float(round_up(value))) == (low, high)
