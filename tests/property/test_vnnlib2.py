"""VNN-LIB 2.0: the same meanings as 1.0, and one clear line for what sutura does not take."""

from __future__ import annotations

import builtins
from fractions import Fraction

import pytest

from sutura.errors import MissingExtraError, PropertyError
from sutura.property import vnnlib1
from sutura.property.vnnlib2 import parse

pytest.importorskip("vnnlib")
F = Fraction
HEAD = """(vnnlib-version <2.0>)
(declare-network N
  (declare-input X real [1,2,2])
  (declare-output Y float32 [1,3]))
"""
BOUNDS = "".join(
    f"(assert (and (>= X[0,{i},{j}] 0.0) (<= X[0,{i},{j}] {2 * i + j + 1}.5)))\n"
    for i in (0, 1)
    for j in (0, 1)
)
HEAD1 = "".join(f"(declare-const X_{i} Real)" for i in range(4)) + "".join(
    f"(declare-const Y_{i} Real)" for i in range(3)
)
BOUNDS1 = "".join(f"(assert (and (>= X_{i} 0.0) (<= X_{i} {i + 1}.5)))\n" for i in range(4))


@pytest.mark.parametrize(
    ("second", "first"),
    [
        ("(<= Y[0,0] 0.1)", "(<= Y_0 0.1)"),
        ("(< Y[0,0] -0.1)", "(< Y_0 -0.1)"),
        ("(> Y[0,2] Y[0,1])", "(> Y_2 Y_1)"),
        ("(>= (+ Y[0,0] (* 2.0 Y[0,1])) (- Y[0,2] 1.0 Y[0,0]))", "(>= (+ Y_0 (* 2.0 Y_1)) (- Y_2 1.0 Y_0))"),
        ("(== Y[0,0] (- Y[0,1]))", "(= Y_0 (- Y_1))"),
        ("(!= Y[0,0] 3.25)", "(not (= Y_0 3.25))"),
        (
            "(or (and (<= X[0,1,0] 1.0) (<= Y[0,0] 0.0)) (>= Y[0,1] 2.0))",
            "(or (and (<= X_2 1.0) (<= Y_0 0.0)) (>= Y_1 2.0))",
        ),
    ],
)
def test_the_same_meaning_as_in_version_1(second, first):
    # The tensors may differ in type; each comparison stays within one.
    got = parse(f"{HEAD}{BOUNDS}(assert {second})".encode(), "p")
    expected = vnnlib1.parse(f"{HEAD1}{BOUNDS1}(assert {first})".encode(), "p")
    assert (got.inputs, got.outputs, got.cases) == (4, 3, expected.cases)
    assert vnnlib1.parse(got.text, "p").cases == got.cases


def test_literals_are_exact_and_elements_row_major():
    digits = "0.1234567890123456789012345678901234567890"
    got = parse(f"{HEAD}{BOUNDS}(assert (<= Y[0,1] {digits}))".encode(), "p")
    assert got.cases[0].unsafe[0][0].bound == F(digits)
    assert got.cases[0].box.upper == (F(3, 2), F(5, 2), F(7, 2), F(9, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "(assert (<= X[0,0,0] X[0,0,1]))", "p: line 5: input constraints must be intervals"),
        (
            HEAD.replace("float32", "real") + "(assert (<= X[0,0,0] Y[0,1]))",
            "p: line 5: one inequality relates",
        ),
        (HEAD + "(assert (<= (* Y[0,0] Y[0,1]) 1.0))", "p: line 5: a product of variables"),
        (HEAD + "(assert (<= Y[0,0] 1.0))", "p: X_0 has no lower bound"),
        (HEAD + "(assert (<= Y[0,0] 1))", "p:5: "),
        (HEAD + "(assert (<= Y[0,7] 1.0))", "p:5: "),
        (HEAD + "(assert (<= Y[0,0] nan))", "p:5: "),
        (HEAD + "(assert (<= Y[0,0] 1.0)", "p:5: the parenthesis opened here"),
        (HEAD + "(assert (% Y[0,0] 1.0))", "p: Parse error"),
        (HEAD.replace("float32", "float64") + "(assert (<= Y[0,0] 1.0))", "p: 'Y' is of type F64"),
        (HEAD.replace("[1,3]", "[4000000000,3]") + "(assert (<= Y[0,0] 1.0))", "p: 'Y' has [4000000000, 3]"),
        (HEAD.replace("[1,3]", "[99999999999999999999]") + "(assert (<= Y[0] 1.0))", "p: the vnnlib package"),
        (HEAD.replace("<2.0>", "<3.0>") + "(assert (<= Y[0,0] 1.0))", "p:1: "),
        (HEAD + "\0(assert (<= Y[0,0] 1.0))", "p:5: a NUL character"),
        (
            HEAD.replace("[1,2,2])", "[1,2,2])(declare-input Z real [1])") + "(assert (<= Y[0,0] 1.0))",
            "p: the network has 2 input tensors",
        ),
        (
            HEAD
            + "(declare-network M (declare-input A real [1])(declare-output B real [1]))"
            + "(assert (<= Y[0,0] 1.0))",
            "p: 2 networks are declared",
        ),
    ],
)
def test_errors_are_one_line_with_the_place(text, message):
    with pytest.raises(PropertyError) as caught:
        parse(text.encode(), "p")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8():
    with pytest.raises(PropertyError, match="p:2: not UTF-8"):
        parse(b"(vnnlib-version <2.0>)\n;\xff", "p")


def test_the_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "vnnlib":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install sutura\[vnnlib2\]"):
        parse(f"{HEAD}{BOUNDS}".encode(), "p")
