"""Unsafe sets as matrices."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from sutura.property.spec import Inequality
from sutura.verdict.goal import goal, refuted, unsafe_margin

A = Inequality(((0, Fraction(1)), (1, Fraction(-1))), Fraction(0))
B = Inequality(((1, Fraction(2)),), Fraction(1, 3))
C = Inequality(((0, Fraction(-1)),), Fraction(1), strict=True)


def test_rows_are_shared_by_conjunctions():
    aim = goal([(A, B), (B, C)], 2)
    assert aim.rows.tolist() == [[1, -1], [0, 2], [-1, 0]]
    assert aim.members.tolist() == [[True, True, False], [False, True, True]]
    # 1/3 is rounded up, so that reaching the rounded bound is above the bound itself
    assert aim.strict.tolist() == [False, True, True]


def test_bounds_are_rounded_up():
    aim = goal([(B,)], 2)
    assert Fraction(1, 3) <= Fraction(float(aim.bounds[0])) < Fraction(1, 3) + Fraction(1, 2**50)
    huge = [Inequality(((0, Fraction(1)),), sign * Fraction(2) ** 2000) for sign in (1, -1)]
    assert goal([(h,) for h in huge], 1).bounds.tolist() == [np.inf, -np.finfo(np.float64).max]


def test_a_coefficient_becomes_one_only_where_it_is_one():
    # Rows that are one output are bounded without rounding, which would be wrong for 1 + 1e-20.
    near = [Fraction(s) * (1 + Fraction(e, 10**20)) for s in (1, -1) for e in (1, 0, -1)]
    rows = goal([(Inequality(((0, c),), Fraction(0)),) for c in near], 1).rows[:, 0]
    assert [abs(v) == 1.0 for v in rows] == [False, True, False] * 2
    assert abs(rows) == pytest.approx(1.0, abs=1e-15)


def test_one_clear_inequality_refutes_a_conjunction():
    aim = goal([(A, C)], 2)
    lower = np.array(
        [[0.0, 0.5], [1e-300, -9.0], [-1.0, 1.0], [-1.0, np.nextafter(1.0, 0)], [np.nan, -np.inf]]
    )
    assert refuted(aim, lower)[:, 0].tolist() == [False, True, True, False, False]


def test_nothing_refutes_an_empty_conjunction():
    aim = goal([(), (A,)], 2)
    assert refuted(aim, np.array([[1e300]])).tolist() == [[False, True]]
    alone = goal([()], 2)
    assert refuted(alone, np.full((1, len(alone.rows)), 1e300)).tolist() == [[False]]


def test_margin_is_that_of_the_worst_inequality():
    aim = goal([(A, C), (C,)], 2)
    # at y = (2, 0.5): A says 1.5 above 0, C says -2 - 1 = -3 above
    assert unsafe_margin(aim, np.array([[2.0, 0.5]])).tolist() == [[1.5, -3.0]]
