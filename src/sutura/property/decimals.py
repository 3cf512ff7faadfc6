"""Decimal text to exact rational numbers and back."""

from __future__ import annotations

import re
from fractions import Fraction

from sutura.errors import PropertyError
from sutura.property.quote import quote

LARGEST_BITS = 4096  # of numerator and of denominator; a float64 number needs at most 1,075
LONGEST_NUMBER = 2100  # characters
LARGEST_EXPONENT = 1100  # the last decimal place of a float64 number is the 1,074th

_NUMBER = re.compile(r"([+-]?)(?:(\d+)(?:\.(\d*))?|\.(\d+))(?:[eE]([+-]?\d{1,20}))?", re.ASCII)


def parse_decimal(token: str) -> Fraction:
    """The exact value of a decimal such as `-0.25`, `.5`, `3` or `1.5e-07`.

    Raises PropertyError where `token` is no decimal (nan and inf among them), or one too long or too large.
    """
    if len(token) > LONGEST_NUMBER:
        raise PropertyError(
            f"number {quote(token)} has {len(token):,} characters, {LONGEST_NUMBER:,} are allowed"
        )
    match = _NUMBER.fullmatch(token)
    if match is None:
        raise PropertyError(f"{quote(token)} is not a number; write a finite decimal such as -0.25 or 1.5e-7")
    sign, whole, after, alone, power = match.groups()
    places = alone or after or ""
    exponent = int(power or "0") - len(places)
    if abs(int(power or "0")) > LARGEST_EXPONENT or abs(exponent) > 2 * LONGEST_NUMBER:
        raise PropertyError(
            f"the exponent of {quote(token)} is beyond +-{LARGEST_EXPONENT}; no float32 needs it"
        )
    digits = int((whole or "") + places)
    if sign == "-":
        digits = -digits
    if exponent >= 0:
        return checked(Fraction(digits * 10**exponent))
    return checked(Fraction(digits, 10**-exponent))


def checked(value: Fraction) -> Fraction:
    """`value` itself; raises PropertyError where its numerator or denominator is too large to work with."""
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    if bits > LARGEST_BITS:
        raise PropertyError(f"a number needs {bits:,} bits, {LARGEST_BITS:,} are allowed; use fewer digits")
    return value


def weight(value: Fraction) -> int:
    """How much arithmetic with `value` costs: 1 for every number of everyday length, more for long ones."""
    return 1 + (value.numerator.bit_length() + value.denominator.bit_length()) // 128


def decimal_places(value: Fraction) -> int | None:
    """How many places after the point `value` needs; None where no finite number of places is enough."""
    rest, twos, fives = value.denominator, 0, 0
    twos = (rest & -rest).bit_length() - 1
    rest >>= twos
    while rest % 5 == 0:
        rest //= 5
        fives += 1
    return max(twos, fives) if rest == 1 else None


def format_decimal(value: Fraction) -> str:
    """The exact value as VNN-LIB 1.0 text: a decimal, or `(/ n d)` where none is exact or short enough."""
    places = decimal_places(value)
    if places is None or places > LARGEST_EXPONENT:
        numerator, denominator = f"{value.numerator}.0", f"{value.denominator}.0"
        return f"(/ {numerator} {denominator})"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    if places == 0:
        return f"{sign}{digits}.0"
    return f"{sign}{digits[:-places]}.{digits[-places:]}"
