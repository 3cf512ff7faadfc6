"""Which literals contradict which inequalities: hand-computed, and by trial on float32 vectors."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sutura.certificate.clauses import Above, Below, Linear, Order, contradicts, excludes
from sutura.certificate.vnnlib import Inequality

F = Fraction


def upto(bound, strict=False, **terms):
    return Inequality(tuple((int(k[1:]), F(v)) for k, v in terms.items()), F(bound), strict)


def test_orders():
    assert contradicts(Order(0, 1, True), upto(0, y0=1, y1=-1))
    assert contradicts(Order(0, 1, True), upto(-1, y0=2, y1=-2))
    assert not contradicts(Order(0, 1, True), upto("0.001", y0=1, y1=-1))
    assert not contradicts(Order(1, 0, True), upto(0, y0=1, y1=-1))
    assert contradicts(Order(1, 0, True), upto(0, y0=-1, y1=1))
    assert not contradicts(Order(0, 1, False), upto(0, y0=1, y1=-1))
    assert contradicts(Order(0, 1, False), upto(0, True, y0=1, y1=-1))
    assert not contradicts(Order(0, 1, True), upto(0, y0=1, y1=-2))
    assert not contradicts(Order(0, 1, True), upto(0, y0=1, y1=-1, y2=1))


def test_thresholds_know_that_outputs_are_float32():
    tenth = float(np.float32(0.1))  # a little above 1/10
    assert tenth > F(1, 10)
    assert contradicts(Above(0, tenth), upto("0.1", y0=1))
    below = float(np.nextafter(np.float32(0.1), np.float32(0)))
    assert contradicts(Above(0, below), upto("0.1", y0=1))  # the next float32 is already above 1/10
    assert not contradicts(Above(0, below), upto(tenth, y0=1))
    assert contradicts(Above(0, below), upto(tenth, True, y0=1))
    assert not contradicts(Above(0, 1.0), upto(1, y1=1))
    assert not contradicts(Above(0, 1.0), upto(-1, y0=-1))
    assert contradicts(Below(0, 1.0), upto(-1, y0=-1))
    assert not contradicts(Below(0, 1.5), upto(-1, y0=-1))
    assert contradicts(Below(0, 2.0), upto(-4, y0=-2))
    largest = float(np.finfo(np.float32).max)
    assert contradicts(Above(0, largest), upto(F(10) ** 60, y0=1))


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([-2, F(-1, 3), F(1, 7), 1]),
    st.booleans(),
    st.booleans(),
    st.integers(-3, 3),
)
def test_thresholds_are_decided_exactly(t, b, c, strict, above, nudge):
    """Contradiction must equal what the nearest passing float32 value says."""
    assume(abs(t) < 3e38)
    literal = Above(0, t) if above else Below(0, t)
    inequality = Inequality(((0, F(c)),), F(c) * (F(t) if nudge else F(b)) + F(nudge, 10**9), strict)
    first = float(np.nextafter(np.float32(t), np.float32(np.inf if above else -np.inf)))
    wanted = (c > 0) == above and not inequality.holds([first])
    assert contradicts(literal, inequality) == wanted


def linear(c, bound, scale, slack=None):
    """A column for c . z > bound, scaled; the slack is generous for so few terms."""
    P = np.float32(np.array(c, dtype=np.float64) * scale)
    Q = np.float32(np.abs(P) * 2.0**-18 if slack is None else np.array(slack))
    r = float(
        np.nextafter(np.float32(float(bound) * scale + abs(bound) * scale * 1e-6 + 1e-30), np.float32(1))
    )
    return Linear(tuple(map(float, P)), tuple(map(float, Q)), r)


def test_linear_literals():
    wanted = upto(1, y0=1, y1=2, y2=-1)
    assert contradicts(linear([1, 2, -1], 1, 0.125), wanted)
    assert contradicts(linear([1 / 3, 2 / 3, -1 / 3], F(1, 3), 0.125), wanted)
    assert not contradicts(linear([1, 2, -1], 1, 0.125, [0, 0, 0]), wanted)
    assert not contradicts(linear([1, 2, -1], F(99, 100), 0.125), wanted)
    assert not contradicts(linear([1, 1.99, -1], 1, 0.125), wanted)
    assert not contradicts(linear([-1, -2, 1], -1, 0.125), wanted)


def test_linear_literals_that_may_overflow_are_not_believed():
    # z = (2e38, 2e38, -3.4e38) sums to 6e37, but in float32 passes through infinity, and so every test.
    wanted = upto(1, y0=1, y1=1, y2=1)
    with np.errstate(over="ignore"):
        z = np.float32([2e38, 2e38, -3.4e38])
        assert np.float32(np.float32(z[0] + z[1]) + z[2]) == np.inf
    assert not contradicts(linear([1, 1, 1], 1, 1.0), wanted)
    assert contradicts(linear([1, 1, 1], 1, 0.125), wanted)


@given(st.integers(0, 10**9), st.floats(-40, 40))
@settings(max_examples=200, deadline=None)
def test_linear_literals_hold_in_any_order(seed, size):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    c = [F(int(v), 3) for v in rng.integers(-9, 10, n)]
    assume(any(c))
    scale = F(1, 4) / sum(map(abs, c))
    bound = F(int(rng.integers(-5, 6)))
    inequality = Inequality(tuple((i, v) for i, v in enumerate(c) if v), bound, False)
    literal = linear(c, bound, float(scale))
    assert contradicts(literal, inequality)
    P, Q, r = np.float32(literal.weight), np.float32(literal.slack), np.float32(literal.threshold)
    z = (rng.normal(size=n) * 2.0**size).astype(np.float32)
    k = int(np.argmax([abs(float(v)) for v in c]))  # move z next to the boundary c . z = bound
    rest = sum((c[i] * F(float(z[i])) for i in range(n) if i != k), F(0))
    z[k] = np.float32(float((bound - rest) / c[k]))
    for _ in range(5):
        order = rng.permutation(n)
        left = right = np.float32(0)
        for i in order:
            left = np.float32(left + np.float32(z[i] * P[i]))
        for i in rng.permutation(n):
            right = np.float32(right + np.float32(abs(z[i]) * Q[i]))
        if left > np.float32(right + r):
            assert not inequality.holds([float(v) for v in z])


def test_a_clause_needs_every_literal():
    conjunction = [upto(0, y0=1, y1=-1), upto(5, y2=1)]
    assert excludes((Order(0, 1, True), Above(2, 5.0)), conjunction)
    assert not excludes((Order(0, 1, True), Above(2, 4.0)), conjunction)
    assert not excludes((), conjunction)
    assert not excludes((Order(0, 1, True),), [])
