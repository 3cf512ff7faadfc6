"""Builders against the sentences they promise, by brute force on small integers where ties abound."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.errors import PropertyError
from sutura.property.build import (
    argmax_in,
    argmax_not_in,
    argmin_in,
    argmin_not_in,
    box,
    output_bound,
    robustness,
)
from sutura.property.spec import Box, unsafe_mask
from sutura.property.vnnlib1 import parse

F = Fraction
UNIT = box([0], [1])


def winners(row: list[int], pick) -> set[int]:
    return {i for i, v in enumerate(row) if v == pick(row)}


@given(st.data(), st.integers(2, 5))
@settings(deadline=None, max_examples=150)
def test_a_choice_is_safe_only_if_every_reading_of_a_tie_is(data, outputs):
    labels = data.draw(st.sets(st.integers(0, outputs - 1), min_size=1, max_size=outputs - 1))
    rows = data.draw(
        st.lists(st.lists(st.integers(0, 2), min_size=outputs, max_size=outputs), min_size=1, max_size=9)
    )
    y = np.array(rows, dtype=np.float32)
    for build, pick, inside in [
        (argmax_in, max, True),
        (argmax_not_in, max, False),
        (argmin_in, min, True),
        (argmin_not_in, min, False),
    ]:
        made = build(UNIT, labels, outputs=outputs)
        safe = [winners(r, pick) <= labels if inside else not winners(r, pick) & labels for r in rows]
        assert unsafe_mask(made.cases[0], y).tolist() == [not s for s in safe]
        assert parse(made.text, made.name) == made


def test_robustness_is_a_ball_cut_to_the_domain():
    made = robustness(np.array([[0.5, 0.0]], dtype=np.float32), "0.1", 1, classes=3, name="r")
    assert made.cases[0].box == Box((F("0.4"), F(0)), (F("0.6"), F("0.1")))
    y = np.array([[0, 1, 0], [1, 1, 0], [0, 1, 2]], dtype=np.float32)
    assert unsafe_mask(made.cases[0], y).tolist() == [False, True, True]
    assert (made.name, made.inputs, made.outputs) == ("r", 2, 3)
    free = robustness([0.5], 1, 0, classes=2, low=None, high=None)
    assert free.cases[0].box == Box((F(-1, 2),), (F(3, 2),))


def test_a_float_is_its_exact_value_and_text_is_a_decimal():
    made = box([0.1, np.float32(0.1), "0.1", Decimal("0.1"), 0], [1, 1, "1e0", F(4, 3), True])
    assert made.lower == (F(0.1), F(float(np.float32(0.1))), F(1, 10), F(1, 10), 0)
    assert made.upper == (1, 1, 1, F(4, 3), 1)


def test_output_bounds_reached_exactly_are_safe():
    made = output_bound(UNIT, 1, lower=-1, upper="2.5", outputs=3)
    y = np.array([[9, -1, 9], [9, 2.5, 9], [0, -1.5, 0], [0, 3, 0]], dtype=np.float32)
    assert unsafe_mask(made.cases[0], y).tolist() == [False, False, True, True]
    assert parse(made.text, made.name) == made
    assert output_bound(UNIT, 1, upper=0).outputs == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: box([0, 2], [1, 1]), "the interval of X_1 is empty"),
        (lambda: box([0], [1, 1]), "1 lower and 2 upper bounds"),
        (lambda: box([], []), "0 lower and 0 upper"),
        (lambda: box([float("nan")], [1]), r"lower\[0\] is 'nan'"),
        (lambda: box([0], [float("inf")]), r"upper\[0\] is 'inf'"),
        (lambda: box([0], ["inf"]), r"upper\[0\]: 'inf' is not a number"),
        (lambda: box([0], ["1e999999999"]), r"upper\[0\]: the exponent"),
        (lambda: box([0], [None]), r"upper\[0\] is 'None'"),
        (lambda: robustness([0.5], -1, 0, classes=2), "eps is -1"),
        (lambda: robustness([3], 1, 0, classes=2), "the interval of X_0 is empty"),
        (lambda: robustness([0.5], 1, 2, classes=2), "label 2 is no output"),
        (lambda: argmax_in(UNIT, [-1], outputs=2), "label -1 is no output"),
        (lambda: argmax_in(UNIT, [], outputs=2), "no label is given"),
        (lambda: argmin_not_in(UNIT, [0, 1], outputs=2), "the labels are all 2 outputs"),
        (lambda: argmax_in(UNIT, range(1000), outputs=2000), "more than 500,000 inequalities"),
        (lambda: output_bound(UNIT, 0), "no bound for Y_0"),
        (lambda: output_bound(UNIT, 0, lower=2, upper=1), "lower 2 > upper 1"),
        (lambda: output_bound(UNIT, 3, lower=2, outputs=2), "label 3 is no output"),
    ],
)
def test_errors_teach(make, message):
    with pytest.raises(PropertyError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
