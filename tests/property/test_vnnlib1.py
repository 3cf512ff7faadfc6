"""VNN-LIB 1.0: hand-derived meanings, one-line errors, and the way back through the writer."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.errors import PropertyError
from sutura.property.spec import Box, Case, Inequality
from sutura.property.vnnlib1 import parse, read, write

F = Fraction
HEAD = """(declare-const X_0 Real)
(declare-fun X_1 () Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
"""
BOUNDS = "(assert (and (>= X_0 0) (<= X_0 1) (<= -0.5 X_1) (<= X_1 .5e0)))\n"
BOX = Box((F(0), F(-1, 2)), (F(1), F(1, 2)))


def cases(body: str, bounds: str = BOUNDS) -> tuple[Case, ...]:
    return parse((HEAD + bounds + body).encode(), "p").cases


def unsafe(body: str):
    (case,) = cases(body)
    assert case.box == BOX
    return case.unsafe


def below(bound: object, *terms: tuple[int, object], strict: bool = False) -> Inequality:
    return Inequality(tuple((i, F(c)) for i, c in terms), F(bound), strict)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("(<= Y_0 0.1)", ((below("0.1", (0, 1)),),)),
        ("(>= Y_0 0.1)", ((below("-0.1", (0, -1)),),)),
        ("(< Y_0 1e-3)", ((below("0.001", (0, 1), strict=True),),)),
        ("(> 2 Y_1)", ((below(2, (1, 1), strict=True),),)),
        ("(<= Y_1 Y_0)", ((below(0, (0, -1), (1, 1)),),)),
        ("(> Y_1 Y_0)", ((below(0, (0, 1), (1, -1), strict=True),),)),
        ("(= Y_0 3)", ((below(3, (0, 1)), below(-3, (0, -1))),)),
        ("(not (= Y_0 3))", ((below(-3, (0, -1), strict=True),), (below(3, (0, 1), strict=True),))),
        ("(not (<= Y_0 3))", ((below(-3, (0, -1), strict=True),),)),
        ("(not (not (< Y_0 3)))", ((below(3, (0, 1), strict=True),),)),
        ("(<= 0 Y_0 Y_1)", ((below(0, (0, -1)), below(0, (0, 1), (1, -1))),)),
        ("(<= (+ (* 2 Y_0) (- Y_1) 1) (- 4 0.5))", ((below("2.5", (0, 2), (1, -1)),),)),
        ("(<= (- Y_0 Y_1 Y_0 Y_0) (/ 1 3))", ((below(F(1, 3), (0, -1), (1, -1)),),)),
        ("(<= (/ Y_0 4) (* Y_1 0.5 2))", ((below(0, (0, F(1, 4)), (1, -1)),),)),
        ("(and (<= Y_0 Y_0) (<= Y_0 1))", ((below(1, (0, 1)),),)),
        ("(or (< Y_0 Y_0) (<= Y_0 1))", ((below(1, (0, 1)),),)),
        ("(or (<= Y_0 1) false)", ((below(1, (0, 1)),),)),
        ("true", ((),)),
        (
            "(not (and (<= Y_0 1) (<= Y_1 2)))",
            ((below(-1, (0, -1), strict=True),), (below(-2, (1, -1), strict=True),)),
        ),
    ],
)
def test_meaning_of_output_formulas(formula, expected):
    got = unsafe(f"(assert {formula})")
    assert {frozenset(c) for c in got} == {frozenset(c) for c in expected}
    assert len(got) == len(expected)


def test_no_output_constraint_makes_every_output_unsafe():
    assert unsafe("") == ((),)


def test_output_ors_multiply_out():
    body = "(assert (or (<= Y_0 1) (<= Y_0 2)))(assert (or (<= Y_1 3) (<= Y_1 4)))(assert (<= Y_0 9))"
    got = {tuple(sorted((i.terms[0][0], i.bound) for i in c)) for c in unsafe(body)}
    assert got == {((0, F(a)), (0, F(9)), (1, F(b))) for a in (1, 2) for b in (3, 4)}


def test_disjuncts_may_mix_inputs_and_outputs_and_equal_boxes_merge():
    body = """(assert (or (and (<= X_0 0.5) (<= Y_0 1))
    (and (>= X_0 0.5) (<= Y_0 2)) (and (<= X_0 0.5) (<= Y_1 3))))
    (assert (<= Y_1 7))"""
    left, right = cases(body)
    shared = below(7, (1, 1))
    assert left == Case(
        Box((F(0), F(-1, 2)), (F(1, 2), F(1, 2))),
        ((below(1, (0, 1)), shared), (below(3, (1, 1)), shared)),
    )
    assert right == Case(Box((F(1, 2), F(-1, 2)), (F(1), F(1, 2))), ((below(2, (0, 1)), shared),))


def test_a_strict_input_bound_is_closed():
    (case,) = cases("(assert (< X_0 0.75))(assert (not (<= X_0 0.25)))(assert (<= Y_0 0))")
    assert (case.box.lower[0], case.box.upper[0]) == (F(1, 4), F(3, 4))


def test_the_tightest_bound_wins_and_scaled_inputs_count():
    (case,) = cases("(assert (<= (* -2 X_0) -0.5))(assert (<= X_0 5))(assert (<= Y_0 0))")
    assert (case.box.lower[0], case.box.upper[0]) == (F(1, 4), F(1))


def test_empty_intersections_of_two_unions_are_left_out():
    body = (
        "(assert (or (<= X_0 0.25) (>= X_0 0.75)))(assert (or (<= X_0 0.5) (>= X_0 0.8)))(assert (<= Y_0 0))"
    )
    assert [(c.box.lower[0], c.box.upper[0]) for c in cases(body)] == [(0, F(1, 4)), (F(4, 5), 1)]


def test_comments_strings_and_other_commands_are_read_over():
    text = f'; (\r\n(set-logic QF)(set-info :x "a ; ( b")\n{HEAD}{BOUNDS}(assert (<= Y_0 0)); ä\n(exit)'
    assert parse(text.encode(), "p").cases == (Case(BOX, ((below(0, (0, 1)),),)),)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("(assert (<= X_0 X_1))", "p:6: input constraints must be intervals"),
        ("(assert (<= X_0 Y_1))", "p:6: one inequality relates inputs and outputs (X_0, Y_1)"),
        ("\n(assert (<= Y_0 Y_7))", "p:7: 'Y_7' is not declared"),
        ("(assert (<= Y_0 nan))", "p:6: 'nan' is not a number"),
        ("(assert (<= Y_0 -inf))", "p:6: '-inf' is not a number"),
        ("(assert (<= Y_0 1e999999999))", "p:6: the exponent of '1e999999999'"),
        ("(assert (<= Y_0 1e1000000000000000000000000000))", "p:6: '1e10000"),
        ("(assert (<= Y_0 1_0))", "p:6: '1_0' is not a number"),
        ("(assert (<= Y_0 " + "9" * 3000 + "))", "p:6: number '9999"),
        ("(assert (<= (* Y_0 Y_1) 1))", "p:6: a product of variables"),
        ("(assert (<= (/ 1 Y_1) 1))", "p:6: a division by a variable"),
        ("(assert (<= Y_0 (/ 1 0)))", "p:6: division by zero"),
        ("(assert (<= Y_0 (/ 1)))", "p:6: / needs"),
        ("(assert (<= Y_0))", "p:6: <= needs two sides"),
        ("(assert (+ Y_0 1))", "p:6: an arithmetic expression stands where a formula must"),
        ("(assert (<= (and) 1))", "p:6: a formula stands where a number"),
        ("(assert (=> true false))", "p:6: '=>' is not supported"),
        ("(assert true true)", "p:6: assert takes one formula"),
        ("(assert ((<= Y_0 1)))", "p:6: a list starts with another list"),
        ("(assert (not))", "p:6: not takes one formula"),
        ("(assert (<= Y_0 1)", "p:6: the parenthesis opened here is never closed"),
        ("(assert (<= Y_0 1)))", "p:6: a closing parenthesis too many"),
        ("assert", "p:6: unexpected 'assert'"),
        ('(set-info "', "p:6: unexpected '\"'; the string opened here is never closed"),
        ("(declare-const X_0 Real)", "p:6: X_0 is declared twice (first in line 1)"),
        ("(declare-const Z_0 Real)", "p:6: 'Z_0' is not a variable"),
        ("(declare-const X_01 Real)", "p:6: 'X_01' is not a variable"),
        ("(declare-const X_2)", "p:6: malformed declare-const; write (declare-const X_0 Real)"),
        ("(declare-const X_2 Int)", "p:6: 'X_2' is declared with a type other than Real"),
        ("(declare-fun X_2 (Real) Real)", "p:6: 'Real' is not supported"),
        ("(declare-const Y_3 Real)", "p: Y_3 is declared (line 6) but Y_2 is not"),
        ("(declare-const X_2 Real)", "p: X_2 has no lower bound"),
        (
            "(assert (<= X_0 -1))",
            "p: the input box is empty: X_0 >= 0.0 (line 5) contradicts X_0 <= -1.0 (line 6)",
        ),
        (
            "(assert (or (<= X_0 0.5)\n (<= X_0 -2)))",
            "p: disjunct 2 of 2: the input box is empty: X_0 >= 0.0 (line 5)",
        ),
        ("(assert (< Y_0 Y_0))", "p: the assertions can never hold together"),
    ],
)
def test_errors_name_the_line_and_the_cause(body, message):
    with pytest.raises(PropertyError) as caught:
        cases(body)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_inputs_and_outputs_must_be_declared():
    with pytest.raises(PropertyError, match="no input is declared"):
        parse(b"", "p")
    with pytest.raises(PropertyError, match="no output is declared"):
        parse(b"(declare-const X_0 Real)", "p")


# The writer.


def test_exact_bytes_of_one_case():
    case = Case(
        BOX, ((below("0.1", (0, 1)), below(0, (0, -1), (1, 1), strict=True)), (below(F(1, 3), (0, 2)),))
    )
    assert write(2, 2, [case]) == (
        b"(declare-const X_0 Real)\n(declare-const X_1 Real)\n"
        b"(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
        b"(assert (>= X_0 0.0))\n(assert (<= X_0 1.0))\n(assert (>= X_1 -0.5))\n(assert (<= X_1 0.5))\n"
        b"(assert (or\n  (and (<= Y_0 0.1) (< Y_1 Y_0))\n  (and (<= (* 2.0 Y_0) (/ 1.0 3.0)))\n))\n"
    )


def test_nothing_to_assert_is_refused():
    with pytest.raises(PropertyError, match="always holds"):
        write(2, 2, [Case(BOX, ())])


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(F),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(F),
    st.fractions(max_denominator=997),
)


@st.composite
def inequalities(draw):
    indices = sorted(draw(st.sets(st.integers(0, 3), min_size=1)))
    coefficients = st.one_of(st.sampled_from([F(1), F(-1)]), numbers.filter(bool))
    bound = draw(st.one_of(st.just(F(0)), numbers))
    return Inequality(tuple((i, draw(coefficients)) for i in indices), bound, draw(st.booleans()))


@st.composite
def boxes(draw):
    pairs = [sorted((draw(numbers), draw(numbers))) for _ in range(3)]
    return Box(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))


@st.composite
def many_cases(draw):
    places = draw(st.lists(boxes(), min_size=1, max_size=3, unique=True))
    conjunctions = st.lists(st.lists(inequalities(), max_size=3).map(tuple), min_size=1, max_size=3).map(
        tuple
    )
    return tuple(Case(box, draw(conjunctions)) for box in places)


@given(many_cases())
@settings(deadline=None, max_examples=150)
def test_writing_and_parsing_gives_equal_cases(some):
    text = write(3, 4, some)
    assert parse(text, "p").cases == some
    assert write(3, 4, parse(text, "p").cases) == text


# The evaluation data.


def acas(shared_data: Path, number: int):
    return read(shared_data / "acasxu" / "vnnlib" / f"prop_{number}.vnnlib")


def less(small: int, large: int) -> Inequality:
    return below(0, *sorted([(small, 1), (large, -1)]))


def test_acas_properties_say_what_they_say(shared_data):
    one, two, six, seven, eight = (acas(shared_data, n) for n in (1, 2, 6, 7, 8))
    start = Box(
        (F("0.6"), F("-0.5"), F("-0.5"), F("0.45"), F("-0.5")),
        (F("0.679857769"), F("0.5"), F("0.5"), F("0.5"), F("-0.45")),
    )
    assert (one.name, one.inputs, one.outputs) == ("prop_1", 5, 5)
    assert one.cases == (Case(start, ((below("-3.991125645861615", (0, -1)),),)),)
    assert two.cases == (Case(start, (tuple(less(i, 0) for i in (1, 2, 3, 4)),)),)
    left, right = six.cases
    assert (left.box.lower[1], left.box.upper[1]) == (F("0.11140846"), F("0.499999896"))
    assert (right.box.lower[1], right.box.upper[1]) == (F("-0.499999896"), F("-0.11140846"))
    assert left.unsafe == right.unsafe == tuple((less(i, 0),) for i in (1, 2, 3, 4))
    assert seven.cases[0].unsafe == tuple(tuple(less(i, j) for j in (0, 1, 2)) for i in (3, 4))
    assert eight.cases[0].unsafe == tuple(tuple(less(i, j) for j in (0, 1)) for i in (2, 3, 4))


def test_collins_rl_safenlp_and_mnist(shared_data):
    place = shared_data / "vnncomp"

    def first(folder: str, pattern: str):
        return read(sorted((place / folder / "vnnlib").glob(pattern))[0])

    collins = first("collins_rul_cnn", "if_then_5levels_w20*")
    assert (collins.inputs, collins.outputs) == (400, 1)
    assert collins.cases[0].unsafe == ((below(-41, (0, -1)), below(236, (0, 1))),)
    dubins = first("rl_benchmarks", "dubinsrejoin_case_unsafe_88*")
    pairs = [(1, 0), (2, 0), (3, 0), (5, 4), (6, 4), (7, 4)]
    assert dubins.cases[0].unsafe == (tuple(less(a, b) for a, b in pairs),)
    medical = first("safenlp", "medical/*")
    assert (medical.inputs, medical.outputs, medical.cases[0].unsafe) == (30, 2, ((less(0, 1),),))
    mnist = first("mnist_fc", "prop_8_0.03*")
    assert (mnist.name, mnist.inputs) == ("prop_8_0.03", 784)
    assert mnist.cases[0].unsafe == tuple((less(6, j),) for j in range(10) if j != 6)
    assert mnist.cases[0].box.upper[783] == F("0.029999999329447746")


def test_every_file_of_the_evaluation_data_parses(shared_data):
    places = [p for p in sorted(shared_data.rglob("*.vnnlib*")) if p.is_file()]
    assert len(places) > 300
    for place in places:
        found = read(place)
        assert found.cases
        assert all(len(c.box.lower) == found.inputs and c.unsafe for c in found.cases), place


def test_a_large_file_parses_quickly(shared_data):
    place = sorted((shared_data / "vnncomp" / "vit_cifar10" / "vnnlib").iterdir())[0]
    start = time.process_time()
    found = read(place)
    assert time.process_time() - start < 1.0
    assert found.inputs == 3072
