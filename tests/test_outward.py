"""Certified figures as they are shown: rounded away from what would be too good."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sutura.outward import at_least, at_most, share_at_least, share_at_most


@pytest.mark.parametrize(
    ("number", "below", "above"),
    [
        (0.00230909, "0.002309", "0.00231"),
        (-0.00230909, "-0.00231", "-0.002309"),
        (1.0, "1", "1"),
        (99999.0, "9.999e+04", "1e+05"),
        (0.0, "0", "0"),
        (math.inf, "inf", "inf"),
        (-math.inf, "-inf", "-inf"),
        (5e-324, "4.94e-324", "4.941e-324"),
    ],
)
def test_four_digits(number, below, above):
    assert (at_least(number), at_most(number)) == (below, above)


def test_only_the_whole_is_all_and_only_nothing_is_none():
    assert [share_at_least(x) for x in (0.0, 0.99999, 1.0)] == ["0.00%", "99.99%", "100.00%"]
    assert [share_at_most(x) for x in (0.0, 1e-9, 1.0)] == ["0.00%", "0.01%", "100.00%"]
    assert (share_at_least(2 / 3, 4), share_at_most(2 / 3, 4)) == ("66.6666%", "66.6667%")


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 9))
@example(5e-324, 1)
@example(1.7976931348623157e308, 1)
@example(-1.7976931348623157e308, 3)
def test_what_is_shown_never_claims_more(number, digits):
    assert Decimal(at_least(number, digits)) <= Decimal(number) <= Decimal(at_most(number, digits))


@given(st.floats(0.0, 1.0), st.integers(0, 6))
def test_shares_never_claim_more(share, decimals):
    said = (Decimal(text(share, decimals)[:-1]) for text in (share_at_least, share_at_most))
    low, high = said
    assert low <= Decimal(share) * 100 <= high <= low + Decimal(1).scaleb(-decimals)
