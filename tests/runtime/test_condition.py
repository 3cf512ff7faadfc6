"""The guard's tables say what the properties say, number for number."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.property.build import argmin_in, box
from sutura.property.spec import Box, Case, Inequality, Property, unsafe_mask
from sutura.runtime.condition import conditions
from sutura.runtime.single import single

INPUTS, OUTPUTS = 2, 3
LARGEST = float(np.finfo(np.float32).max)
NUMBERS = [0.0, -0.0, 0.5, np.float32(0.1), 1.0, -1.0, 1e-45, LARGEST, -LARGEST, np.inf, -np.inf, np.nan]
BOUNDS = [Fraction(0), Fraction(1, 2), Fraction(1, 10), Fraction(1, 3), Fraction(float(np.float32(0.1)))]
BOUNDS += [
    Fraction(LARGEST),
    -Fraction(LARGEST),
    Fraction(10) ** 40,
    -(Fraction(10) ** 40),
    Fraction(1, 10**60),
]


@st.composite
def inequalities(draw):
    strict, bound = draw(st.booleans()), draw(st.sampled_from(BOUNDS))
    kind = draw(st.sampled_from(["order", "threshold", "threshold", "sum"]))
    if kind == "threshold":
        coefficient = draw(st.sampled_from([1, -1, Fraction(3, 7), Fraction(-2, 3)]))
        return Inequality(((draw(st.integers(0, OUTPUTS - 1)), Fraction(coefficient)),), bound, strict)
    i, j = sorted(draw(st.permutations(range(OUTPUTS)))[:2])
    a = draw(st.sampled_from([Fraction(1), Fraction(-1), Fraction(2)]))
    if kind == "order":
        return Inequality(((i, a), (j, -a)), Fraction(0), strict)
    return Inequality(((i, a), (j, Fraction(1, 3))), bound, strict)


@st.composite
def properties(draw):
    cases = []
    for _ in range(draw(st.integers(1, 3))):
        low = [draw(st.sampled_from(BOUNDS[:5])) for _ in range(INPUTS)]
        high = [v + draw(st.sampled_from([0, Fraction(1, 3), 1])) for v in low]
        conjunction = st.lists(inequalities(), min_size=draw(st.integers(0, 1)), max_size=3)
        unsafe = draw(st.lists(conjunction, min_size=1, max_size=3))
        cases.append(Case(Box(tuple(low), tuple(high)), tuple(tuple(c) for c in unsafe)))
    return Property("p", INPUTS, OUTPUTS, tuple(cases), b"")


@settings(max_examples=150, deadline=None)
@given(
    properties(),
    st.lists(st.lists(st.sampled_from(NUMBERS), min_size=OUTPUTS, max_size=OUTPUTS), min_size=1, max_size=6),
    st.data(),
)
def test_tables_agree_with_the_property(prop, rows, data):
    outputs = np.array(rows, np.float32)
    tested = conditions([prop])
    inputs = data.draw(
        st.lists(
            st.lists(st.sampled_from(NUMBERS), min_size=INPUTS, max_size=INPUTS),
            min_size=len(rows),
            max_size=len(rows),
        )
    )
    points = np.array(inputs, np.float32)
    inside = tested.boxes.holding(points)
    hulls = [case.box.float32_hull() for case in prop.cases]
    for case, (low, high) in enumerate(hulls):
        wanted = [bool(np.all(low <= p) and np.all(p <= high)) for p in points]
        assert inside[:, case].tolist() == wanted
    expected = np.zeros(len(rows), bool)
    for number, case in enumerate(prop.cases):
        expected |= inside[:, number] & unsafe_mask(case, outputs)
    assert tested.broken(inside, outputs).tolist() == expected.tolist()
    for x, y, held, bad in zip(points, outputs, inside, expected.tolist(), strict=True):
        assert bool(tested.first_broken(held, y)) == bad
        assert bool(tested.unsafe_somewhere(y)) == any(unsafe_mask(case, y[None])[0] for case in prop.cases)
        quick = single(tested)
        if quick is None:
            continue
        found = quick.holding(x, x.tolist())
        if not np.isfinite(x).all():
            assert found is None
            continue
        assert found == np.flatnonzero(held).tolist()
        assert quick.passes(found, y.tolist()) == (not bad and bool(np.isfinite(y).all()))


def test_the_quick_tests_are_for_properties_without_sums():
    small = argmin_in(box([0, 0], [1, 1]), [0], outputs=3)
    assert single(conditions([small])) is not None
    large = argmin_in(box([0] * 300, [1] * 300), [0], outputs=3)
    quick = single(conditions([large]))
    assert quick.boxes == ()
    for value, found in ((0.5, [0]), (2.0, []), (np.nan, None), (np.inf, None)):
        assert quick.holding(np.full(300, value, np.float32), [value] * 300) == found
    total = Inequality(((0, Fraction(1)), (1, Fraction(1))), Fraction(1))
    summed = Property("s", 2, 3, (Case(small.cases[0].box, ((total,),)),), b"")
    assert single(conditions([summed])) is None
    always = Property("a", 2, 3, (Case(small.cases[0].box, ((),)),), b"")
    for part in (summed, always):
        assert single(conditions([small, part])) is single(conditions([part, small])) is None


def test_boxes_are_rounded_outward():
    tenth = box(["0.1", "0"], ["0.1", "1"])
    tested = conditions([argmin_in(tenth, [0], outputs=2)])
    around = [np.nextafter(np.float32(0.1), np.float32(-1)), np.float32(0.1), np.float32(0.10000001)]
    held = tested.boxes.holding(np.array([[v, 0.5] for v in around], np.float32))[:, 0]
    assert held.tolist() == [True, True, False]


@pytest.mark.parametrize("most", [1, 14, 50, 99, 100])
def test_many_inputs_are_compared_piece_by_piece(monkeypatch, most):
    tested = conditions([argmin_in(box([0, 0], [1, 1]), [0], outputs=2)])
    points = np.random.default_rng(0).uniform(-1, 2, (50, 2)).astype(np.float32)
    whole = tested.boxes.holding(points)
    monkeypatch.setattr("sutura.runtime.condition.MOST_COMPARED", most)
    assert (tested.boxes.holding(points) == whole).all()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("coefficient", [1, -1, Fraction(3, 7), Fraction(-2, 3)])
@pytest.mark.parametrize("threshold", [0, Fraction(1, 3), Fraction(float(np.float32(0.1))), 2**130])
@pytest.mark.parametrize("sign", [1, -1])
def test_thresholds_are_exact_at_their_edges(strict, coefficient, threshold, sign):
    bound = Fraction(sign * threshold) * coefficient
    inequality = Inequality(((1, Fraction(coefficient)),), bound, strict)
    case = Case(box([0, 0], [1, 1]), ((inequality,),))
    tested = conditions([Property("p", 2, 2, (case,), b"")])
    middle = np.float32(np.clip(float(sign * threshold), -LARGEST, LARGEST))
    with np.errstate(over="ignore"):
        ends = [np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf)]
    outputs = np.array([[9, y] for y in (*ends, middle, -LARGEST, LARGEST)], np.float32)
    outputs = outputs[np.isfinite(outputs).all(axis=1)]
    (unsafe,) = tested.unsafe
    assert unsafe.holds(outputs).tolist() == unsafe_mask(case, outputs).tolist()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("a", "b"), [(1, -1), (-1, 1), (3, -3), (1, Fraction(1, 3)), (2, -1), (-1, -1)])
@pytest.mark.parametrize("bound", [0, Fraction(1, 2), Fraction(-1, 2)])
def test_two_outputs_are_compared_or_summed_as_the_property_says(strict, a, b, bound):
    inequality = Inequality(((0, Fraction(a)), (1, Fraction(b))), Fraction(bound), strict)
    case = Case(box([0, 0], [1, 1]), ((inequality,),))
    tested = conditions([Property("p", 2, 2, (case,), b"")])
    grid = np.array([(y, z) for y in (-1, -0.5, 0, 0.25, 0.5, 1) for z in (-1, -0.5, 0, 0.5, 1)], np.float32)
    wanted = unsafe_mask(case, grid).tolist()
    assert tested.unsafe[0].holds(grid).tolist() == wanted
    quick = single(tested)
    assert (quick is None) == (a + b != 0 or bound != 0)
    assert quick is None or [not quick.passes([0], y) for y in grid.tolist()] == wanted


def test_the_first_property_that_is_broken_is_named():
    unit = box([0, 0], [1, 1])
    tested = conditions([argmin_in(unit, [at], outputs=3, name=f"p{at}") for at in (0, 1, 2)])
    inside = np.array([True, True, True])
    for y, name in (([0, 1, 2], "p1"), ([1, 0, 2], "p0"), ([1, 1, 0], "p0")):
        assert tested.first_broken(inside, np.array(y, np.float32)) == name
    assert tested.first_broken(np.array([False, False, True]), np.array([0, 1, 2], np.float32)) == "p2"


@pytest.mark.parametrize(("y", "name"), [([0, 1, 1], ""), ([1, 1, 2], "p"), ([1, 0, 2], "p")])
def test_a_tie_is_unsafe_where_the_property_says_so(y, name):
    tested = conditions([argmin_in(box([0, 0], [1, 1]), [0], outputs=3, name="p")])
    assert tested.unsafe_somewhere(np.array(y, np.float32)) == name
