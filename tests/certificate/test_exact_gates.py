"""What a literal of a gate, or a step of its guard, says of outputs: tried out on numbers at the edges."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from sutura.certificate import exact

ONE = 1 << 149


def in_ticks(value):
    return exact.ticks.ticks(int(np.float32(value).view(np.uint32)))


def near(value):
    x = np.float32(value)
    return [float(np.nextafter(x, np.float32(-9))), float(x), float(np.nextafter(x, np.float32(9)))]


EDGES = [*near(-1.0), *near(0.5), 0.0, 3.0]
TERMS = [
    ((0, Fraction(1)),), ((0, Fraction(-1)),), ((0, Fraction(-2)),), ((0, Fraction(1)), (1, Fraction(-1))),
    ((0, Fraction(-3)), (1, Fraction(3))), ((0, Fraction(1)), (1, Fraction(1))), ((1, Fraction(1)),),
    ((0, Fraction(1)), (1, Fraction(-2))), ((0, Fraction(1)), (1, Fraction(-1)), (2, Fraction(1))),
    ((1, Fraction(1)), (2, Fraction(-1))), ((0, Fraction(1)), (2, Fraction(-1))),
]  # fmt: skip
LITERALS = [("order", 0, 1, True), ("order", 0, 1, False), ("order", 1, 0, True), ("order", 1, 0, False)]
LITERALS += [(kind, 0, in_ticks(t)) for kind in ("Greater", "Less") for t in (-1.0, 0.5)]


def true(literal, y):
    kind, i, *rest = literal
    if kind == "order":
        return y[i] > y[rest[0]] or (not rest[1] and y[i] == y[rest[0]])
    return in_ticks(y[i]) > rest[0] if kind == "Greater" else in_ticks(y[i]) < rest[0]


def holds(inequality, y):
    terms, bound, strict = inequality
    total = sum(factor * Fraction(y[i]) for i, factor in terms)
    return total < bound if strict else total <= bound


@pytest.mark.parametrize("literal", LITERALS)
@pytest.mark.parametrize("strict", [False, True])
def test_a_literal_contradicts_exactly_what_no_number_satisfies_with_it(literal, strict):
    for terms in TERMS:
        for bound in (Fraction(v) for v in (*EDGES, -0.5, 1.0, 2.0, -2.0)):
            inequality = (terms, bound, strict)
            both = any(
                true(literal, y) and holds(inequality, y) for y in product(EDGES, EDGES, (0.0, -9.0, 9.0))
            )
            found = exact.delivered.contradicts(literal, inequality)
            assert not (found and both), (literal, inequality)
            alone = len(terms) == 1 and literal[0] != "order" and terms[0][0] == 0
            grows = alone and (terms[0][1] > 0) == (literal[0] == "Greater")
            pair = (
                literal[0] == "order" and terms in (TERMS[3], TERMS[4]) and abs(bound) in (0, Fraction(1, 2))
            )
            if grows or (pair and bound == 0):
                assert found != both, (literal, inequality)


def test_numbers_beyond_the_largest_contradict_everything():
    largest = exact.ticks.LARGEST
    up, down = ((0, Fraction(1)),), ((0, Fraction(-1)),)
    assert exact.delivered.contradicts(("Greater", 0, largest), (up, Fraction(2**130), False))
    assert exact.delivered.contradicts(("Less", 0, -largest), (down, Fraction(2**130), False))
    below = -exact.ticks.next_above(-largest)
    assert not exact.delivered.contradicts(("Greater", 0, below), (up, Fraction(2**130), False))


@pytest.mark.parametrize("strict", [False, True])
def test_an_output_satisfies_what_it_does(strict):
    for terms in TERMS:
        for bound in (-1, 0, Fraction(1, 2), 1):
            for y in product((-1.0, 0.5, 0.0), repeat=3):
                inequality = (terms, Fraction(bound), strict)
                found = exact.delivered.satisfies([in_ticks(v) for v in y], inequality)
                assert found == holds(inequality, y)


SMALLEST = 2.0**-126


@pytest.mark.parametrize(
    ("column", "cut", "known"),
    [
        ([-1, 1], -SMALLEST, [("order", 0, 1, True)]),
        ([1, -1], -SMALLEST, [("order", 1, 0, True)]),
        ([0, 1, -1], -1.0, [("order", 2, 1, True)]),
        ([-1, 1], -SMALLEST / 2, []), ([-1, 1], 0.0, []), ([-1, 2], -1.0, []), ([-1, 1, 1], -1.0, []),
        ([2, 0], 1.0, []), ([0, 0], 1.0, []), ([1, 0], SMALLEST / 2, []), ([-1, 0], 0.0, []),
        ([0, 1], 0.5, [("Less", 1, near(0.5)[2])]), ([0, 1], -0.5, [("Less", 1, -near(0.5)[0])]),
        ([0, -1], 0.5, [("Greater", 1, -near(0.5)[2])]), ([-1, 0], -0.5, [("Greater", 0, near(0.5)[0])]),
        ([1, 0], SMALLEST, [("Less", 0, float(np.nextafter(np.float32(SMALLEST), np.float32(1))))]),
        ([1, 0], -SMALLEST, [("Less", 0, -float(np.nextafter(np.float32(SMALLEST), np.float32(0))))]),
    ],
)  # fmt: skip
def test_a_step_of_the_guard_teaches_what_every_execution_keeps(column, cut, known):
    known = [x if x[0] == "order" else (*x[:2], in_ticks(x[2])) for x in known]
    assert exact.delivered.learned([in_ticks(v) for v in column], in_ticks(cut)) == known


LESS = (((0, Fraction(1)), (1, Fraction(-1))), Fraction(0), False)  # y0 <= y1
LOW = (((0, Fraction(1)),), Fraction(-1), False)  # y0 <= -1
HIGH = (((0, Fraction(-1)),), Fraction(-9), False)  # y0 >= 9
FIRST, ABOVE = ("order", 0, 1, True), ("Greater", 0, in_ticks(-1.0))


def gates(clauses, constant=(1.0, 0.0), guard=(((0, -ONE, 1, 2), (-1, 0, 0, 0), (-1, 0, 1, 0)),)):
    every = [*range(len(clauses))]
    values = [[0, 0], [in_ticks(v) for v in constant]]
    columns = [[-ONE, ONE], [-ONE, 0]]
    return exact.gates.Gates("", "", 2, (), guard, columns, False, clauses, [[], every], values)


@pytest.mark.parametrize(
    ("clauses", "unsafe", "settled"),
    [
        ([[FIRST]], [[LESS]], True),
        ([[FIRST, FIRST]], [[LESS]], True),
        ([[FIRST, ABOVE]], [[LESS]], False),
        ([[ABOVE, FIRST]], [[LESS]], False),
        ([[ABOVE], [FIRST]], [[LESS]], True),
        ([[]], [[LESS]], False),
        ([[FIRST]], [[LESS, LOW]], True),
        ([[FIRST]], [[LESS, HIGH]], True),
        ([[FIRST]], [[HIGH, LESS]], True),
        ([[FIRST]], [[LOW, LESS]], True),
        ([[FIRST]], [[LESS], [LOW]], False),
        ([[FIRST]], [[LOW]], False),
    ],
)
def test_one_clause_must_exclude_every_unsafe_conjunction(clauses, unsafe, settled):
    assert not exact.delivered.settled_by_gate(gates(clauses), 0, unsafe)
    if settled:
        assert exact.delivered.settled_by_gate(gates(clauses), 1, unsafe)
        return
    with pytest.raises(exact.ticks.RefusedError):
        exact.delivered.settled_by_gate(gates(clauses), 1, unsafe)


LEAF0, LEAF1 = (-1, 0, 0, 0), (-1, 0, 1, 0)


@pytest.mark.parametrize(
    ("guard", "settled"),
    [
        ([[(0, -ONE, 1, 2), LEAF0, LEAF1]], True),
        ([[(0, -ONE, 1, 2), LEAF1, LEAF0]], False),
        ([[(0, -ONE, 1, 2), LEAF0, LEAF0]], False),
        ([[LEAF0]], False),
        ([[LEAF1]], True),
        ([[(0, -ONE, 1, 2), (0, -ONE, 3, 4), LEAF1, LEAF0, LEAF0]], True),
        ([[(1, -ONE, 1, 2), LEAF0, (0, -ONE, 3, 4), LEAF0, LEAF1]], False),
        ([[LEAF0], [(0, -ONE, 1, 2), LEAF0, LEAF1]], True),
    ],
)
def test_one_tree_of_the_guard_must_let_nothing_unsafe_through(guard, settled):
    made = gates([[FIRST]], guard=guard)
    if settled:
        assert exact.delivered.settled_by_gate(made, 1, [[LESS]])
        return
    with pytest.raises(exact.ticks.RefusedError):
        exact.delivered.settled_by_gate(made, 1, [[LESS]])


def test_a_constant_is_unsafe_where_it_satisfies_a_whole_conjunction():
    lower = gates([[FIRST]], constant=(0.0, 0.0))
    assert exact.delivered.settled_by_gate(lower, 1, [[LESS, LOW]])
    assert exact.delivered.settled_by_gate(lower, 1, [[LOW, LESS]])
    with pytest.raises(exact.ticks.RefusedError):
        exact.delivered.settled_by_gate(lower, 1, [[LESS], [LESS, LOW]])


@pytest.mark.parametrize(("cut", "number"), [(0.5, 1), (1.0, 0), (1.5, 0)])
def test_a_guard_that_knows_the_row_goes_its_way(cut, number):
    tree = ((0, in_ticks(cut), 1, 2), LEAF0, LEAF1)
    made = gates([[FIRST]])._replace(knows_row=True)
    assert [*exact.delivered.ends_of(made, tree, 1)] == [(number, [])]
    column = ((1, -ONE, 1, 2), LEAF0, LEAF1)
    assert sorted(exact.delivered.ends_of(made, column, 1)) == [(0, [("order", 0, 1, True)]), (1, [])]


@pytest.mark.parametrize(("low", "high", "rows"), [(-2, -1, [1]), (-1, 0, [1]), (1, 2, [2]), (0, 1, [1, 2])])
def test_boxes_reach_the_rows_that_their_points_do(low, high, rows):
    tree = ((0, 0, 1, 2), (-1, 0, 1, 0), (-1, 0, 2, 0))
    assert exact.gates.reached(tree, [low], [high]) == rows
