"""Binary32 numbers as whole ticks of 2^-149: exact, and no floating-point number is ever made."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

Ints = Sequence[int]


class RefusedError(Exception):
    """What cannot be believed, in one line."""


def want(holds: object, text: str) -> None:
    """Refuses unless something holds."""
    if not holds:
        raise RefusedError(" ".join(text.split())[:400])


def ticks(bits: int) -> int:
    """The value of a binary32 bit pattern; infinities and not-a-number are refused."""
    exponent, mantissa = bits >> 23 & 255, bits & 0x7FFFFF
    want(exponent < 255, "a file holds a number that is not finite")
    size = mantissa if exponent == 0 else (mantissa | 1 << 23) << exponent - 1
    return -size if bits >> 31 else size


def next_above(t: int) -> int:
    """The next float32 number up."""
    return t + (1 << max(0, (t if t >= 0 else -t - 1).bit_length() - 24))


def round_down(value: Fraction) -> int:
    """The largest float32 number that is not above a rational number."""
    t = (value.numerator << 149) // value.denominator
    want(abs(t) <= LARGEST, "a number of the property is beyond the float32 range")
    shift = max(0, abs(t).bit_length() - 24)
    return t >> shift << shift


def midpoint(low: int, high: int) -> int:
    """float32(float64(low + high) / 2), kept below `high`."""
    middle = nearest(nearest(low + high, 53, 0), 24, 1) >> 1
    return low if middle >= high else middle


def nearest(t: int, bits: int, least: int) -> int:
    """The nearest number of so many bits that ends in `least` zeros or more, ties to even."""
    shift = max(least, abs(t).bit_length() - bits)
    half = 1 << shift >> 1
    return t + half - (shift > 0 and not t >> shift & 1) >> shift << shift


ONE = 1 << 149
NORMAL = 1 << 23  # the smallest normal number, 2^-126
LARGEST = ((1 << 24) - 1) << 253
ENDLESS = 1 << 300
