"""Lines of free slopes hold the activation that the runtime computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.bounds.program import ACTIVATIONS
from sutura.bounds.slopes import CURVES, FIXED, RANGES, sound_lines, support
from sutura.network.ops import Exp, LeakyRelu, Relu, Sigmoid, Square, Tanh

ENDS = st.floats(-12, 12, width=32)
SHARES = st.floats(-0.1, 1.3)
OPS = [Relu(), LeakyRelu(0.125), LeakyRelu(3.0), LeakyRelu(-0.5), Sigmoid(), Tanh(), Square(), Exp()]


@pytest.mark.parametrize("op", OPS, ids=str)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(ENDS, ENDS, SHARES, SHARES)
def test_no_slope_whatever_lets_the_activation_out(op, a, b, lower, upper):
    low, high = np.array([[min(a, b)]]), np.array([[max(a, b)]])
    lines = sound_lines(op, low, high, np.full((1, 1), lower), np.full((1, 1), upper))
    x = np.linspace(low[0, 0], high[0, 0], 201)[None]
    y = ACTIVATIONS[type(op)](x, op)
    below = 0.0 if lines.lower_offset is None else lines.lower_offset
    assert np.all(lines.lower_slope * x + below <= y + 1e-14 * (1 + abs(y)))
    assert np.all(lines.upper_slope * x + lines.upper_offset >= y - 1e-14 * (1 + abs(y)))


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()], ids=str)
def test_a_tangent_touches_the_curve(op):
    curve = CURVES[type(op)]
    slope = np.asarray(curve.slope(np.array([[-1.5]])))
    offset, touch = support(curve, slope, np.array([[-4.0]]), np.array([[-0.5]]), 1.0)
    np.testing.assert_allclose(touch, -1.5, atol=1e-9)
    np.testing.assert_allclose(offset, curve.value(np.array([[-1.5]])) + 1.5 * slope, atol=1e-12)
    above, mirrored = support(curve, slope, np.array([[0.5]]), np.array([[4.0]]), -1.0)
    np.testing.assert_allclose(mirrored, 1.5, atol=1e-9)
    np.testing.assert_allclose(above, curve.value(np.array([[1.5]])) - 1.5 * slope, atol=1e-12)


def test_a_relu_may_have_any_lower_slope_where_it_is_open_and_none_elsewhere():
    low, high = np.array([[-1.0, 1.0, -2.0]]), np.array([[3.0, 2.0, -1.0]])
    below, above = RANGES[Relu](low, high, Relu())
    np.testing.assert_allclose(below.least, [[0, 1, 0]])
    np.testing.assert_allclose(below.most, [[1, 1, 0]])
    np.testing.assert_allclose(above.slope(np.full((1, 3), 0.3)), [[0.75, 1, 0]])
    np.testing.assert_allclose(above.offset, [[0.75, 0, 0]])


def test_other_activations_have_the_lines_of_plain_crown():
    below, above = FIXED(np.array([[1.0]]), np.array([[3.0]]), Square())
    np.testing.assert_allclose((below.least, below.most, above.least), 4.0)
    np.testing.assert_allclose(below.offset, -4.0, atol=1e-5)
    np.testing.assert_allclose(above.offset, -3.0, atol=1e-5)
