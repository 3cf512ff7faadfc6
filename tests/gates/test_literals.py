"""Every float32 comparison implies the literal that it stands for, whatever the outputs are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sutura.errors import RepairError
from sutura.gates.literals import comparisons, kind
from sutura.gates.safe_set import Literal
from sutura.property.spec import Inequality

UP, DOWN = np.float32(np.inf), np.float32(-np.inf)
LARGEST = float(np.finfo(np.float32).max)
floats = st.floats(width=32, allow_nan=False)
thresholds = st.one_of(
    st.floats(-(2.0**99), 2.0**99, width=32).map(Fraction),
    st.floats(-1e30, 1e30).map(Fraction),
    st.fractions(),
    st.sampled_from(
        [Fraction(0), Fraction(1, 2**149), Fraction(1, 2**151), -Fraction(1, 2**151), Fraction(LARGEST)]
    ),
)


def denied(literal, y):
    """Whether the unsafe inequality holds."""
    return Inequality(literal.terms, literal.bound, not literal.strict).holds(y)


def neighbours(value):
    near = np.float32(min(max(float(value), -LARGEST), LARGEST))
    with np.errstate(over="ignore"):
        beside = [np.nextafter(near, UP), np.nextafter(near, DOWN)]
    return [near, *beside, np.float32(0), np.float32(-0.0), UP, DOWN]


@given(thresholds, st.fractions().filter(bool), st.booleans())
@example(Fraction(0), Fraction(1), False)
@example(Fraction(LARGEST), Fraction(1), True)
@example(Fraction(LARGEST), Fraction(1), False)
@example(-Fraction(LARGEST), Fraction(-1), False)
def test_thresholds_decide_exactly(bound, coefficient, strict):
    literal = Literal(((0, coefficient),), bound, strict)
    try:
        found = comparisons([literal], 1)
    except RepairError:
        assert abs(bound / coefficient) >= Fraction(LARGEST)
        return
    for v in neighbours(bound / coefficient):
        if found.above.size:
            decided = v > found.above_than[0]
        else:
            decided = v < found.below_than[0]
        if np.isfinite(v):
            assert decided == literal.holds(np.float32([v]))
        elif decided:
            assert not denied(literal, np.float32([v]))


@given(st.lists(floats, min_size=2, max_size=2), st.sampled_from([1, -1, 3, Fraction(-1, 7)]), st.booleans())
def test_orders_decide_exactly(values, c, strict):
    literal = Literal(((0, Fraction(c)), (1, -Fraction(c))), Fraction(0), strict)
    found = comparisons([literal], 2)
    y = np.float32(values)
    if strict:
        assert not found.greater_eq.size
        decided = y[found.greater[0]] > y[found.less[0]]
    else:
        assert not found.greater.size
        decided = y[found.greater_eq[0]] >= y[found.less_eq[0]]
    if np.isfinite(y).all():
        assert decided == literal.holds(y)
    elif decided:
        assert not denied(literal, y)


def in_order(terms):
    total = np.float32(0)
    for term in terms:
        total = np.float32(total + term)
    return total


def pairwise(terms):
    terms = list(terms)
    while len(terms) > 1:
        pairs = [np.float32(a + b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + (terms[-1:] if len(terms) % 2 else [])
    return np.float32(terms[0])


def sums(y, weights, draw):
    """The inner product in float32 in several orders, and rounded once (fused)."""
    products = y * weights
    orders = [products, products[::-1], products[draw.permutation(len(products))], np.sort(products)]
    fused = [np.float32(products.astype(np.float64).sum()), np.float32(y.astype(np.float64) @ weights)]
    return [*(in_order(o) for o in orders), pairwise(products), np.float32(y @ weights), *fused]


coefficients = st.one_of(
    st.integers(-5, 5).filter(bool).map(Fraction),
    st.fractions(-10, 10, max_denominator=1000).filter(bool),
    st.floats(1e-20, 1e20).map(Fraction),
)


@st.composite
def sum_literals(draw):
    n = draw(st.integers(2, 7))
    count = draw(st.integers(2, n))
    indices = draw(st.lists(st.integers(0, n - 1), min_size=count, max_size=count, unique=True))
    terms = tuple((i, draw(coefficients)) for i in sorted(indices))
    bound = draw(st.one_of(st.just(Fraction(0)), st.fractions(-100, 100), st.floats(-1e9, 1e9).map(Fraction)))
    return n, Literal(terms, bound, draw(st.booleans()))


ordinary = st.floats(-1000, 1000, width=32)
wild = st.one_of(
    floats, st.floats(-(2.0**-120), 2.0**-120, width=32), st.sampled_from([LARGEST, -LARGEST, 3e38])
)


@settings(deadline=None, max_examples=300)
@given(sum_literals(), st.data(), st.booleans())
def test_sums_that_pass_in_any_order_satisfy_the_literal(drawn, data, near_the_border):
    n, literal = drawn
    assume(kind(literal) == "linear")
    found = comparisons([literal], n)
    y = np.float32(data.draw(st.lists(ordinary if near_the_border else wild, min_size=n, max_size=n)))
    if near_the_border:
        # Move one output so that the sum is as near to the bound as float32 allows, then a few steps around.
        at, c = literal.terms[0]
        rest = sum((k * Fraction(float(y[i])) for i, k in literal.terms[1:]), Fraction(0))
        y[at] = np.float32(min(max(float((literal.bound - rest) / c), -1e38), 1e38))
        for _ in range(data.draw(st.integers(0, 4))):
            y[at] = np.nextafter(y[at], UP if c > 0 else DOWN)
    draw = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        slack = min(sums(abs(y), found.slack[:, 0], draw))
        passed = any(s > np.float32(slack + found.linear_than[0]) for s in sums(y, found.linear[:, 0], draw))
    if passed:
        assert not denied(literal, y)
        assert np.isfinite(y).all() or not literal.holds(y)


@settings(deadline=None)
@given(sum_literals(), st.data())
def test_sums_with_clear_room_pass(drawn, data):
    n, literal = drawn
    assume(kind(literal) == "linear")
    found = comparisons([literal], n)
    y = np.float32(data.draw(st.lists(ordinary, min_size=n, max_size=n)))
    size = sum(abs(c) * Fraction(abs(float(y[i]))) for i, c in literal.terms) + abs(literal.bound)
    value = sum(c * Fraction(float(y[i])) for i, c in literal.terms)
    largest = max(abs(c) for _, c in literal.terms)
    assume(value - literal.bound > size / 10**5 + largest / 10**30)
    with np.errstate(all="ignore"):
        assert y @ found.linear[:, 0] > np.float32(abs(y) @ found.slack[:, 0] + found.linear_than[0])


def test_huge_outputs_cannot_overflow_into_a_pass():
    literal = Literal(((0, Fraction(1)), (1, Fraction(1)), (2, Fraction(-2))), Fraction(1), True)
    found = comparisons([literal], 3)
    y = np.float32([3e38, 3e38, 3e38])
    with np.errstate(all="raise"):
        total = np.float32(
            np.float32(y[0] * found.linear[0, 0] + y[1] * found.linear[1, 0]) + y[2] * found.linear[2, 0]
        )
    assert not total > found.linear_than[0]
    assert abs(found.linear).sum() <= 0.5


def test_blocks_list_their_literals_in_order():
    sum_literal = Literal(((0, Fraction(1)), (1, Fraction(2))), Fraction(0), True)
    below = Literal(((1, Fraction(-1)),), Fraction(3), True)
    above = Literal(((0, Fraction(1)),), Fraction(3), False)
    order_eq = Literal(((0, Fraction(1)), (1, Fraction(-1))), Fraction(0), False)
    order = Literal(((0, Fraction(1)), (1, Fraction(-1))), Fraction(0), True)
    found = comparisons([sum_literal, below, above, order_eq, order], 2)
    assert found.order == (order, order_eq, above, below, sum_literal)
    assert (found.greater, found.less, found.greater_eq, found.less_eq) == ([0], [1], [0], [1])
    assert found.below_than.tolist() == [-3.0]
    assert found.above_than.tolist() == [float(np.nextafter(np.float32(3), DOWN))]


@pytest.mark.parametrize(
    "literal",
    [
        Literal(((0, Fraction(1)),), -(Fraction(10) ** 39), True),
        Literal(((0, Fraction(-1)),), -(Fraction(10) ** 39), True),
        Literal(((0, Fraction(1)), (1, Fraction(2))), Fraction(10) ** 39, True),
    ],
)
def test_bounds_beyond_float32_are_refused(literal):
    with pytest.raises(RepairError, match="the property bounds"):
        comparisons([literal], 2)
