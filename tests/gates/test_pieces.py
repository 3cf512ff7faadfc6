"""Convex pieces that the others cover: no safe order is lost, and none that is needed goes."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import at_most, less

from sutura.gates.pieces import MOST_NUMBERS, needed
from sutura.gates.projection import projection
from sutura.gates.safe_set import Literal, alternatives, safe_set

WEAK_LEFT_OR_COC = [[less(3, 0), less(3, 1), less(3, 2)], [less(4, 0), less(4, 1), less(4, 2)]]
NOT_LEAST = [[less(0, i) for i in range(1, 5)]]


def holds(pieces, y):
    return any(all(literal.holds(y) for literal in piece) for piece in pieces)


def test_pieces_without_a_single_leader_go():
    pieces = alternatives(safe_set(WEAK_LEFT_OR_COC))
    found = needed(pieces)
    assert (len(pieces), len(found)) == (9, 3)
    leaders = [{literal.terms[0][0] for literal in piece} for piece in found]
    assert sorted(leader for found in leaders for leader in found) == [0, 1, 2]


def test_pieces_that_contradict_themselves_go():
    pieces = alternatives(safe_set([*WEAK_LEFT_OR_COC, *NOT_LEAST]))
    found = needed(pieces)
    assert (len(pieces), len(found)) == (36, 2)
    assert projection([safe_set([*WEAK_LEFT_OR_COC, *NOT_LEAST])], 5).exact


@st.composite
def unsafe_sets(draw):
    def inequality():
        i, j = draw(st.permutations(range(4)))[:2]
        strict = draw(st.booleans())
        if draw(st.integers(0, 3)):
            return less(i, j, strict=strict)
        sign, bound = draw(st.sampled_from([1, -1])), draw(st.sampled_from([0, Fraction(1, 2), 2]))
        return at_most({i: sign}, sign * bound, strict=strict)

    return [[inequality() for _ in range(draw(st.integers(1, 3)))] for _ in range(draw(st.integers(1, 4)))]


@settings(max_examples=300, deadline=None)
@given(unsafe_sets(), st.integers(0, 2**31))
def test_the_union_keeps_its_inside_and_no_piece_is_left_that_the_others_cover(unsafe, seed):
    pieces = alternatives(safe_set(unsafe))
    found = needed(pieces)
    assert set(found) <= set(pieces)
    draw = np.random.default_rng(seed)
    y = np.concatenate([draw.uniform(-1, 3, (300, 4)), draw.choice([-1.0, 0.25, 1.0, 3.0], (50, 4))])
    levels = np.array(list(permutations([-1, 0.25, 1, 3])), np.float32)
    inner = [v for v in (*y.astype(np.float32), *levels) if len({*v.tolist(), 0.0, 0.5, 2.0}) == 7]
    assert all(holds(pieces, v) == holds(found, v) for v in inner)


def test_ties_without_an_inside_stay():
    ties = frozenset(
        [
            Literal(((0, Fraction(1)), (1, Fraction(-1))), Fraction(0), strict=False),
            Literal(((0, Fraction(-1)), (1, Fraction(1))), Fraction(0), strict=False),
        ]
    )
    other = frozenset([Literal(((2, Fraction(1)),), Fraction(0), strict=True)])
    assert needed([ties, other]) == (ties, other)


@pytest.mark.parametrize("extra", [[at_most({0: 1, 1: 1}, 1)], [less(i, i + 1) for i in range(MOST_NUMBERS)]])
def test_sums_and_many_numbers_are_left_alone(extra):
    pieces = alternatives(safe_set([*WEAK_LEFT_OR_COC, extra]))
    assert needed(pieces) == pieces
