"""Decimals, exactly, both ways."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.errors import PropertyError
from sutura.property.decimals import format_decimal, parse_decimal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0.0", 0),
        ("3", 3),
        ("+3.", 3),
        (".5", Fraction(1, 2)),
        ("-0.10", Fraction(-1, 10)),
        ("1e3", 1000),
        ("12.5E-2", Fraction(1, 8)),
        ("1.5e+01", 15),
    ],
)
def test_known_values(text, value):
    assert parse_decimal(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "-", ".", "e5", "1e", "1e5.0", "0x10", "1_0", "١", "nan", "inf", "-Infinity", "1/3", "1 ", "--1"],
)
def test_what_is_no_number(text):
    with pytest.raises(PropertyError, match="is not a number"):
        parse_decimal(text)


@pytest.mark.parametrize(
    "text", ["1e999999999", "1e-999999999", "0e99999999999999999999", "1" * 2101, "9" * 1300]
)
def test_numbers_too_large_are_refused(text):
    with pytest.raises(PropertyError):
        parse_decimal(text)


@given(
    st.one_of(st.decimals(allow_nan=False, allow_infinity=False, places=20).map(str), st.floats().map(repr))
)
@settings(deadline=None)
def test_parsing_agrees_with_fractions(text):
    if text in ("nan", "inf", "-inf"):
        return
    assert parse_decimal(text) == Fraction(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None, max_examples=300)
def test_every_float_goes_there_and_back(value):
    assert parse_decimal(format_decimal(Fraction(value))) == Fraction(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(0), "0.0"),
        (Fraction(-3), "-3.0"),
        (Fraction(1, 8), "0.125"),
        (Fraction(-1, 400), "-0.0025"),
        (Fraction(-2, 3), "(/ -2.0 3.0)"),
    ],
)
def test_exact_text(value, text):
    assert format_decimal(value) == text
