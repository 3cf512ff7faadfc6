"""The least of a linear function over a box cut by a plane: a linear program, solved in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from sutura.bounds.cut import Cut


def solved(low, high, plane, room, row):
    """The same by a solver: t_d is the distance from the corner where the plane is lowest."""
    corner = np.where(plane > 0, low, high)
    found = linprog(
        row,
        A_ub=[plane],
        b_ub=[room + (plane * corner).sum()],
        bounds=list(zip(low, high, strict=True)),
        method="highs",
    )
    assert found.status == 0
    return found.fun


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.0, 3.0))
def test_the_least_is_that_of_the_linear_program(seed, size, share):
    random = np.random.default_rng(seed)
    low = random.normal(size=(2, size))
    high = low + random.choice([0.0, 0.5, 1.0], (2, size))
    plane = random.choice([-2.0, -0.5, 0.0, 0.7, 1.0], (2, size))
    room = share * random.random(2)
    rows = random.choice([-1.5, -1.0, 0.0, 0.3, 2.0], (2, 4, size))
    found = Cut(low, high, plane, room).least(rows)
    for i in range(2):
        for j in range(4):
            exact = solved(low[i], high[i], plane[i], room[i], rows[i, j])
            # The solver's constraints hold to 1e-7.
            assert exact - 1e-6 <= found[i, j] <= exact + 1e-6


def test_by_hand():
    # x and y in [0, 1], and x + 2 (1 - y) <= 1/2: y - x is least at x = 1/2, y = 1.
    box = np.zeros((1, 2)), np.ones((1, 2))
    cut = Cut(*box, np.array([[1.0, -2.0]]), np.array([0.5]))
    rows = np.array([[[-1.0, 1.0], [1.0, -1.0], [0.0, 1.0], [-1.0, 0.0]]])
    assert cut.least(rows)[0] == pytest.approx([0.5, -1.0, 0.75, -0.5], abs=1e-8)


def test_rows_of_a_batch_are_its_own():
    random = np.random.default_rng(1)
    cut = Cut(np.zeros((3, 4)), np.ones((3, 4)), random.normal(size=(3, 4)), np.array([0.1, 0.5, 1.0]))
    rows = random.normal(size=(3, 2, 4))
    whole = cut.least(rows)
    for i in range(3):
        assert (cut.take(np.array([i])).least(rows[i : i + 1]) == whole[i : i + 1]).all()
