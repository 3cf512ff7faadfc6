"""Safe sets: what the clauses mean, their convex pieces, and constants inside them."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import at_most, less

from sutura.errors import RepairError
from sutura.gates import safe_set as module
from sutura.gates.safe_set import Literal, alternatives, inner_point, normal, safe_set
from sutura.property.spec import Inequality

OUTPUTS = 4
COEFFICIENTS = st.sampled_from([Fraction(n, d) for n in (-3, -2, -1, 1, 2, 3) for d in (1, 2)])


def satisfies(safe, outputs):
    """Whether an output is safe, literal by literal."""
    return all(any(literal.holds(outputs) for literal in clause) for clause in safe)


@st.composite
def inequalities(draw):
    indices = draw(st.lists(st.integers(0, OUTPUTS - 1), min_size=1, max_size=3, unique=True))
    terms = tuple((i, draw(COEFFICIENTS)) for i in sorted(indices))
    return Inequality(terms, Fraction(draw(st.integers(-2, 2))), draw(st.booleans()))


unsafe_sets = st.lists(st.lists(inequalities(), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3)
vectors = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=OUTPUTS, max_size=OUTPUTS)


@settings(deadline=None)
@given(unsafe_sets, vectors)
def test_safe_is_the_negation_of_unsafe(unsafe, values):
    y = np.array(values, np.float32)
    assert satisfies(safe_set(unsafe), y) == (not any(all(i.holds(y) for i in c) for c in unsafe))


@settings(deadline=None)
@given(unsafe_sets)
def test_alternatives_are_the_minimal_choices_of_the_truth_table(unsafe):
    safe = safe_set(unsafe)
    literals = sorted({x for clause in safe for x in clause}, key=repr)
    hitting = []
    for bits in product((False, True), repeat=len(literals)):
        chosen = frozenset(x for x, on in zip(literals, bits, strict=True) if on)
        if all(not chosen.isdisjoint(clause) for clause in safe):
            hitting.append(chosen)
    minimal = {c for c in hitting if not any(other < c for other in hitting)}
    found = alternatives(safe)
    assert set(found) == minimal
    assert len(found) == len(minimal)


@given(inequalities(), st.fractions(min_value=Fraction(1, 100), max_value=100))
def test_normal_form_forgets_a_positive_factor(inequality, factor):
    literal = Literal(inequality.terms, inequality.bound, inequality.strict)
    scaled = Literal(tuple((i, c * factor) for i, c in literal.terms), literal.bound * factor, literal.strict)
    assert normal(scaled) == normal(literal)
    assert abs(normal(literal).terms[0][1]) == 1
    assert (normal(literal).terms[0][1] > 0) == (literal.terms[0][1] > 0)


def test_equal_demands_become_one_clause():
    doubled = Inequality(((0, Fraction(2)), (1, Fraction(-2))), Fraction(0))
    assert len(safe_set([(less(0, 1),), (doubled,), (less(0, 1), doubled)])) == 1


def test_not_finite_outputs_satisfy_no_literal():
    literal = Literal(((0, Fraction(1)),), Fraction(0), True)
    assert literal.holds(np.float32([1.0]))
    assert not literal.holds(np.float32([np.inf]))
    assert not literal.holds(np.float32([np.nan]))


@settings(deadline=None, max_examples=40)
@given(unsafe_sets, st.lists(st.floats(-5, 5, width=32), min_size=OUTPUTS, max_size=OUTPUTS))
def test_inner_points_satisfy_the_set_exactly(unsafe, near):
    safe = safe_set(unsafe)
    point = inner_point(safe, np.array(near, np.float64))
    if point is None:
        # Every unsafe set here has few small inequalities: a safe grid point would have been within reach.
        grid = np.array(list(product(np.linspace(-8, 8, 9), repeat=OUTPUTS)), np.float32)
        rows = [np.array([float(c.bound) for c in clause]) for clause in safe]
        ok = np.ones(len(grid), bool)
        for clause, bounds in zip(safe, rows, strict=True):
            ok &= (np.stack([grid @ x.row(OUTPUTS) for x in clause], 1) > bounds + 1e-3).any(axis=1)
        assert not ok.any()
    else:
        assert point.dtype == np.float32
        assert satisfies(safe, point)


def test_inner_point_stays_where_it_is_safe_with_room():
    near = np.array([5.0, 1.0, 2.0])
    assert np.array_equal(inner_point(safe_set([(less(0, 1),), (less(0, 2),)]), near), np.float32(near))


def test_inner_point_far_away():
    safe = safe_set([(at_most({0: 1}, 10**6),)])
    point = inner_point(safe, np.zeros(2))
    assert point is not None
    assert point[0] > 1e6


@pytest.mark.parametrize("near", [0.0, 1e-12, 1e-6, 1e6])
def test_inner_point_at_every_scale(near):
    safe = safe_set([(less(0, i),) for i in range(1, 5)])
    point = inner_point(safe, np.full(5, near))
    assert point is not None
    assert satisfies(safe, point)
    assert abs(point - np.full(5, near)).max() <= 0.1 * (near or 1.0)


@pytest.mark.parametrize(
    "unsafe",
    [
        [(less(0, 1),), (less(1, 0),)],
        [(at_most({0: 1}, 1),), (at_most({0: -1}, -1),)],
        [(at_most({0: 1, 1: 1}, 1),), (at_most({0: -1}, 0),), (at_most({1: -1}, 0),)],
        [()],
    ],
    ids=["order both ways", "above and below", "sum of negatives", "every output"],
)
def test_contradictions_have_no_inner_point(unsafe):
    assert inner_point(safe_set(unsafe), np.zeros(3)) is None


def test_too_many_pieces_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_ALTERNATIVES", 30)
    unsafe = [tuple(at_most({i: 1}, b) for i in range(3)) for b in range(4)]
    with pytest.raises(RepairError, match="more than 30 convex pieces"):
        alternatives(safe_set(unsafe))


def test_numbers_beyond_float64_are_refused_in_one_line():
    with pytest.raises(RepairError, match="beyond 1e300") as caught:
        safe_set([(Inequality(((0, Fraction(1)),), Fraction(10) ** 400),)])
    assert "\n" not in str(caught.value)
