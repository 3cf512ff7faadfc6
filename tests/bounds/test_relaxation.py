"""Lines and ranges around activations, checked at many points in extended precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.bounds.relaxation import CURVE_ERROR, EXP_ERROR, LINES, RANGES
from sutura.network.ops import Exp, LeakyRelu, Reciprocal, Relu, Sigmoid, Square, Tanh

WIDE = np.longdouble
LEAKY = [LeakyRelu(float(np.float32(s))) for s in (0.0, 0.01, 0.99, 1.0, 1.5, 40.0, -0.3, -2.0)]
CURVES = [Sigmoid(), Tanh()]

ENDS = [
    (-1.0, 1.0), (-1.0, 3.0), (-3.0, 1.0), (0.0, 2.0), (-2.0, 0.0), (0.0, 0.0), (0.7, 0.7), (-0.7, -0.7),
    (-1e-30, 1e-30), (-1e30, 1e30), (-1e30, 1e-30), (-1e-30, 1e30), (-1e-9, 1.0), (-1.0, 1e-9),
    (4.0, 4.0 + 1e-12),
    (-18.0, -17.5), (8.1, 30.0), (-90.0, 90.0), (-1e4, 1e4), (1.0, 1.0 + 1e-7), (-5e-324, 5e-324),
    (-100.0, -1.0),
    (-3.0e38, 3.0e38), (-1.0, 0.3), (-20.0, 0.5), (0.1, 9.0),
]  # fmt: skip


def exact(op, x):
    match op:
        case Relu():
            return np.maximum(x, WIDE(0))
        case LeakyRelu():
            return np.where(x >= 0, x, WIDE(op.slope) * x)
        case Tanh():
            return np.tanh(x)
        case Sigmoid():
            return WIDE(0.5) * (1 + np.tanh(WIDE(0.5) * x))
        case Square():
            return x * x
        case Reciprocal():
            return 1 / x
        case Exp():
            return np.exp(x)


def samples(low, high):
    share = np.concatenate(
        [np.linspace(0, 1, 301), np.geomspace(1e-18, 1, 60), 1 - np.geomspace(1e-18, 1, 60)]
    )
    x = low + (high - low) * share
    near_zero = np.concatenate([np.geomspace(1e-320, 1.0, 40), -np.geomspace(1e-320, 1.0, 40), [0.0]])
    x = np.concatenate([x, near_zero, [low, high]])
    return np.unique(np.clip(x, low, high)).astype(WIDE)


def lines_at(op, low, high, x):
    made = LINES[type(op)](np.array([[low]]), np.array([[high]]), op)
    offset = WIDE(0) if made.lower_offset is None else WIDE(made.lower_offset[0, 0])
    below = WIDE(made.lower_slope[0, 0]) * x + offset
    above = WIDE(made.upper_slope[0, 0]) * x + WIDE(made.upper_offset[0, 0])
    return below, above


def assert_between(below, above, y, error):
    """Extended precision has 11 more bits than float64: 2^-62 of the size is its own rounding."""
    size = np.maximum(abs(below), np.maximum(abs(above), abs(y)))
    own = WIDE(2.0) ** -62 * size
    assert (below <= y - error + own).all() and (y + error <= above + own).all()


@pytest.mark.parametrize(("low", "high"), ENDS)
@pytest.mark.parametrize("op", [Relu(), *LEAKY], ids=str)
def test_lines_of_piecewise_linear_activations_hold_without_tolerance(op, low, high):
    x = samples(low, high)
    below, above = lines_at(op, low, high, x)
    error = 2.0**-24 * abs(op.slope) * np.maximum(-x, 0) if isinstance(op, LeakyRelu) else 0.0
    assert_between(below, above, exact(op, x), error)


@pytest.mark.parametrize(("low", "high"), ENDS)
@pytest.mark.parametrize("op", CURVES, ids=str)
def test_lines_of_curves_leave_room_for_the_runtime(op, low, high):
    x = samples(low, high)
    below, above = lines_at(op, low, high, x)
    assert_between(below, above, exact(op, x), CURVE_ERROR)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from([Relu(), *LEAKY, *CURVES]),
    st.floats(-1e20, 1e20),
    st.floats(0, 1e20) | st.floats(0, 1e-3) | st.floats(0, 10),
)
def test_lines_hold_on_any_interval(op, low, width):
    high = low + width
    x = samples(low, high)
    below, above = lines_at(op, low, high, x)
    error = CURVE_ERROR if op in CURVES else 0.0
    assert_between(below, above, exact(op, x), error)


@pytest.mark.parametrize(("low", "high"), ENDS)
@pytest.mark.parametrize("op", [Relu(), *LEAKY, *CURVES], ids=str)
def test_ranges_hold_what_the_activation_reaches(op, low, high):
    least, most = RANGES[type(op)](np.array([[low]]), np.array([[high]]), op)
    y = exact(op, samples(low, high))
    error = CURVE_ERROR if op in CURVES else 0.0
    assert least[0, 0] <= y.min() - error and y.max() + error <= most[0, 0]


CONVEX = {
    Square(): (2.0**-24, [*ENDS, (1e18, 1e19), (-1e19, 3.0)]),
    Reciprocal(): (
        2.0**-24,
        [(0.5, 2.0), (-2.0, -0.5), (1e-3, 1e3), (-1e30, -1e-30), (3.0, 3.0), (1e-37, 2e-37), (7.0, 3e38)],
    ),
    Exp(): (
        EXP_ERROR,
        [(-1.0, 1.0), (0.0, 0.0), (-3.0, 7.0), (80.0, 88.0), (-200.0, -1.0), (-1e4, 0.0), (5.0, 5.0)],
    ),
}


@pytest.mark.parametrize(("op", "low", "high"), [(op, *ends) for op in CONVEX for ends in CONVEX[op][1]])
def test_lines_and_ranges_of_convex_activations_leave_room_for_the_runtime(op, low, high):
    x = samples(low, high)
    with np.errstate(all="ignore"):
        below, above = lines_at(op, low, high, x)
        least, most = RANGES[type(op)](np.array([[low]]), np.array([[high]]), op)
    y = exact(op, x)
    error = CONVEX[op][0] * abs(y) + WIDE(2.0) ** -126 * 0.99
    assert np.isfinite(below).all()
    assert (below <= y - error).all() and (y + error <= above).all()
    floor = -np.inf if op == Reciprocal() and high < 0 else 0.0
    assert least[0, 0] <= max(floor, (y - error).min())
    assert (y + error).max() <= most[0, 0]


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [(Square(), -1.0, 1e20), (Exp(), 0.0, 100.0), (Exp(), -1.0, 1e4), (Reciprocal(), 1e-39, 1.0)],
    ids=str,
)
def test_what_may_overflow_has_no_upper_line(op, low, high):
    with np.errstate(all="ignore"):
        made = LINES[type(op)](np.array([[low]]), np.array([[high]]), op)
        most = RANGES[type(op)](np.array([[low]]), np.array([[high]]), op)[1]
    assert not np.isfinite(made.upper_offset[0, 0]) and most[0, 0] == np.inf


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (-1e-40, -1e-41), (0.0, 0.0)]
)
def test_a_reciprocal_across_zero_is_anything(low, high):
    made = LINES[Reciprocal](np.array([[low]]), np.array([[high]]), Reciprocal())
    assert (made.lower_offset[0, 0], made.upper_offset[0, 0]) == (-np.inf, np.inf)
    assert [v[0, 0] for v in RANGES[Reciprocal](np.array([[low]]), np.array([[high]]), Reciprocal())] == [
        -np.inf,
        np.inf,
    ]


def test_convex_lines_by_hand():
    # x^2 on [-1, 3]: chord 2x + 3, tangent of slope 2 below: 2x - 1.  1/x on [1, 4]: chord (5 - x) / 4,
    # tangent of slope -1/4 at 2: 1 - x/4.  e^x on [0, 2]: tangent at 1: e x.
    made = LINES[Square](np.array([[-1.0]]), np.array([[3.0]]), Square())
    assert (made.lower_slope[0, 0], made.upper_slope[0, 0]) == (2.0, 2.0)
    assert (made.lower_offset[0, 0], made.upper_offset[0, 0]) == pytest.approx((-1.0, 3.0), abs=1e-5)
    made = LINES[Reciprocal](np.array([[1.0]]), np.array([[4.0]]), Reciprocal())
    assert (made.lower_slope[0, 0], made.upper_slope[0, 0]) == (-0.25, -0.25)
    assert (made.lower_offset[0, 0], made.upper_offset[0, 0]) == pytest.approx((1.0, 1.25), abs=1e-6)
    made = LINES[Exp](np.array([[0.0]]), np.array([[2.0]]), Exp())
    assert made.lower_slope[0, 0] == pytest.approx(np.e) and made.lower_offset[0, 0] == pytest.approx(
        0, abs=1e-5
    )
    assert made.upper_slope[0, 0] == pytest.approx((np.e**2 - 1) / 2)
    assert made.upper_offset[0, 0] == pytest.approx(1.0, abs=1e-5)


def test_relu_lines_by_hand():
    # [-1, 3]: chord 3/4 x + 3/4, lower slope 1 as 3 > 1; [-3, 1]: chord 1/4 x + 3/4, lower slope 0.
    made = LINES[Relu](np.array([[-1.0, -3.0, 2.0, -2.0]]), np.array([[3.0, 1.0, 5.0, -1.0]]), Relu())
    assert made.upper_slope[0].tolist() == [0.75, 0.25, 1.0, 0.0]
    assert made.upper_offset[0] == pytest.approx([0.75, 0.75, 0.0, 0.0], abs=1e-12)
    assert made.lower_slope[0].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert made.lower_offset is None


def test_leaky_lines_by_hand():
    # slope 1/2 on [-2, 2]: f(-2) = -1, f(2) = 2, chord 3/4 x + 1/2 above; below: 2 > 2 is false, so x/2.
    # slope 2 on [-2, 2]: f(-2) = -4, f(2) = 2, chord 3/2 x - 1 below; above, the piece 2 x.
    low, high = np.array([[-2.0]]), np.array([[2.0]])
    half = LINES[LeakyRelu](low, high, LeakyRelu(0.5))
    assert (half.upper_slope[0, 0], half.lower_slope[0, 0]) == (0.75, 0.5)
    assert half.upper_offset[0, 0] == pytest.approx(0.5, abs=1e-6)
    double = LINES[LeakyRelu](low, high, LeakyRelu(2.0))
    assert (double.upper_slope[0, 0], double.lower_slope[0, 0]) == (2.0, 1.5)
    assert double.lower_offset[0, 0] == pytest.approx(-1.0, abs=1e-6)


def test_curve_lines_by_hand():
    # tanh on [-1, 1]: parallel lines of slope 1 - tanh(1)^2 through the ends.
    made = LINES[Tanh](np.array([[-1.0]]), np.array([[1.0]]), Tanh())
    steep = 1 - np.tanh(1.0) ** 2
    assert (made.lower_slope[0, 0], made.upper_slope[0, 0]) == (pytest.approx(steep), pytest.approx(steep))
    assert made.upper_offset[0, 0] == pytest.approx(np.tanh(1.0) - steep, abs=1e-6)
    # sigmoid on [1, 3], concave there: the chord lies below, the line of slope f'(3) above.
    made = LINES[Sigmoid](np.array([[1.0]]), np.array([[3.0]]), Sigmoid())
    at = 1 / (1 + np.exp(-np.array([1.0, 3.0])))
    assert made.lower_slope[0, 0] == pytest.approx((at[1] - at[0]) / 2)
    assert made.upper_slope[0, 0] == pytest.approx(at[1] * (1 - at[1]))


@pytest.mark.parametrize("op", [Relu(), LEAKY[1], LEAKY[4], LEAKY[6], *CURVES], ids=str)
@pytest.mark.parametrize(
    ("low", "high"), [(-np.inf, np.inf), (np.nan, np.nan), (-np.inf, 1.0), (-1.0, np.inf)]
)
def test_without_finite_bounds_no_line_is_wrong(op, low, high):
    # A line either promises nothing (infinite or not a number) or holds at a few far points.
    x = np.array([v for v in (-1e30, -3.0, 0.0, 0.5, 1e30) if not (v < low or v > high)], WIDE)
    with np.errstate(all="ignore"):
        below, above = lines_at(op, low, high, x)
    y = exact(op, x)
    if np.isnan(low):
        return
    assert (np.isnan(below) | (below <= y)).all() and (np.isnan(above) | (above >= y)).all()
