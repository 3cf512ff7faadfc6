"""Certified numbers as people read them: few digits, and never more than is known."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def at_least(number: float, digits: int = 4) -> str:
    """`number` in so many significant digits, never above it: for certified lower bounds."""
    return _rounded(number, digits, ROUND_FLOOR)


def at_most(number: float, digits: int = 4) -> str:
    """`number` in so many significant digits, never below it: for certified upper bounds."""
    return _rounded(number, digits, ROUND_CEILING)


def share_at_least(part: float, decimals: int = 2) -> str:
    """A share as a percentage, never above it: only the whole is 100 %."""
    step = Decimal(1).scaleb(-decimals)
    return f"{(Decimal(part) * 100).quantize(step, rounding=ROUND_FLOOR)}%"


def share_at_most(part: float, decimals: int = 2) -> str:
    """A share as a percentage, never below it: only nothing is 0 %."""
    step = Decimal(1).scaleb(-decimals)
    return f"{(Decimal(part) * 100).quantize(step, rounding=ROUND_CEILING)}%"


def _rounded(number: float, digits: int, rounding: str) -> str:
    if not math.isfinite(number) or number == 0:
        return f"{number:g}"
    outward = Context(prec=digits, rounding=rounding).plus(Decimal(number))
    text = f"{float(outward):.{digits}g}"
    # At the ends of float64's range no float is near enough to the decimal.
    return text if Decimal(text) == outward else f"{outward.normalize():g}"
