"""Rational numbers to float32 numbers, rounded in a stated direction; float32 values are held as Python
floats.
"""

from __future__ import annotations

import struct
from fractions import Fraction

from sutura.certificate.errors import CertificateError
from sutura.certificate.tree import next_above


def next_below(value: float) -> float:
    """The largest float32 value below a finite float32 value."""
    return -next_above(-value)


def round_down(value: Fraction) -> float:
    """The largest float32 value <= value; CertificateError beyond the float32 range."""
    if abs(value) > LARGEST:
        raise CertificateError("a number of the property is beyond the float32 range")
    # Rounding to float64 and then to float32 may miss by one; the comparisons are exact.
    near = float(struct.unpack("<f", struct.pack("<f", float(value)))[0])
    while Fraction(near) > value:
        near = next_below(near)
    return near


def round_up(value: Fraction) -> float:
    """The smallest float32 value >= value; CertificateError beyond the float32 range."""
    return -round_down(-value)


LARGEST = Fraction((2 - 2**-23) * 2.0**127)
