"""What a passed test of the output gate says about the delivered output, and when that makes it safe.

A literal compares float32 numbers of the output vector z, which is exact, or is a rounded linear form with
slack. A clause is an OR of literals. A conjunction of inequalities is unsafe only if all of them hold; so
one clause all of whose literals each contradict some inequality of the conjunction makes every vector that
passes it safe. No literal is true where a number that it reads is not-a-number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from sutura.certificate.float32 import next_below
from sutura.certificate.tree import next_above
from sutura.certificate.vnnlib import Inequality


@dataclass(frozen=True, slots=True)
class Order:
    """z[high] > z[low], or >= where not `strict`."""

    high: int
    low: int
    strict: bool


@dataclass(frozen=True, slots=True)
class Above:
    """z[index] > threshold."""

    index: int
    threshold: float


@dataclass(frozen=True, slots=True)
class Below:
    """z[index] < threshold."""

    index: int
    threshold: float


@dataclass(frozen=True, slots=True)
class Linear:
    """fl(z . weight) > fl(fl(|z| . slack) + threshold), each computed in float32 in any order."""

    weight: tuple[float, ...]
    slack: tuple[float, ...]
    threshold: float


Literal = Order | Above | Below | Linear
Clause = tuple[Literal, ...]


def excludes(clause: Clause, conjunction: Sequence[Inequality]) -> bool:
    """Whether no vector that passes the clause satisfies all inequalities (False where there are none)."""
    return bool(clause) and all(
        any(contradicts(literal, inequality) for inequality in conjunction) for literal in clause
    )


def contradicts(literal: Literal, inequality: Inequality) -> bool:
    """Whether every float32 vector for which the literal is true violates the inequality."""
    match literal:
        case Order():
            return _order(literal, inequality)
        case Above(index, threshold):
            return _threshold(index, next_above(threshold), inequality, 1)
        case Below(index, threshold):
            return _threshold(index, next_below(threshold), inequality, -1)
        case Linear():
            return _linear(literal, inequality)


def _order(literal: Order, inequality: Inequality) -> bool:
    """The inequality is c (z[high] - z[low]) <= b with c > 0, whose left side the literal puts above zero."""
    if len(inequality.terms) != 2:
        return False
    terms = dict(inequality.terms)
    factor = terms.get(literal.high, Fraction(0))
    if factor <= 0 or terms.get(literal.low) != -factor:
        return False
    return inequality.bound <= 0 if literal.strict or inequality.strict else inequality.bound < 0


def _threshold(index: int, extreme: float, inequality: Inequality, sign: int) -> bool:
    """The literal says sign * z[index] >= sign * extreme, the float32 number next to its threshold."""
    if len(inequality.terms) != 1 or inequality.terms[0][0] != index or inequality.terms[0][1] * sign <= 0:
        return False
    if math.isinf(extreme):
        return True  # only an infinite output passes, and that violates every finite bound on this side
    total = inequality.terms[0][1] * Fraction(extreme)
    return total >= inequality.bound if inequality.strict else total > inequality.bound


def _linear(literal: Linear, inequality: Inequality) -> bool:
    """Whether fl(z.P) > fl(fl(|z|.Q) + r) implies c.z > b, for all float32 z in any order of summation.

    Let u = 2^-24, n the number of products, g(k) = k u / (1 - k u). A computed inner product is off by at
    most g(n) times the sum of the absolute products, plus underflow. With Q >= 0, if the literal is true
    then

        z.P + g(n) |z|.|P| + E  >  (1 - u) (1 - g(n)) |z|.Q + r - u |r|

    as fl(a + r) >= a + r - u (a + |r|) for a >= 0. For any scale s > 0 we have s c.z >= z.P - |z|.|P - s
    c|, so

        s c.z  >  |z| . ((1 - g(n + 1)) Q - g(n) |P| - |P - s c|)  +  r - u |r| - E .

    If the vector in brackets is nowhere negative and r - u |r| - E >= s b, then c.z > b. E pays for
    underflow, gradual or to zero: at most 2n operations on each side lose 2^-126 each, subnormal z read as
    zero lose 2^-126 (|P| + |Q|) each, and later roundings amplify that by less than two; no P, Q is itself
    subnormal. Nothing overflows, whatever finite z is, as the |P| sum to at most 1/2 and the Q too. For
    infinite z either side that reads it is infinite or not-a-number on the right, and the literal is false.
    So P must be a scaled down c; the scale does not matter here, and is taken from the largest coefficient.
    """
    P = [Fraction(value) for value in literal.weight]
    Q = [Fraction(value) for value in literal.slack]
    r, n = Fraction(literal.threshold), len(P)
    c = [Fraction(0)] * n
    for index, factor in inequality.terms:
        c[index] = factor
    largest = max(range(n), key=lambda i: abs(c[i]))
    scale = P[largest] / c[largest] if c[largest] else Fraction(0)
    if scale <= 0 or any(0 < abs(value) < SUBNORMAL for value in (*P, *Q)):
        return False
    if sum(map(abs, P)) > HALF or sum(Q) > HALF or min(Q) < 0 or abs(r) > 2**100:
        return False
    for p, q, wanted in zip(P, Q, c, strict=True):
        if (1 - _gamma(n + 1)) * q < _gamma(n) * abs(p) + abs(p - scale * wanted):
            return False
    underflow = (4 * n + 4) * SUBNORMAL * (1 + max(map(abs, P)) + max(Q))
    return r - UNIT * abs(r) - underflow >= scale * inequality.bound


def _gamma(count: int) -> Fraction:
    return count * UNIT / (1 - count * UNIT)


UNIT = Fraction(1, 2**24)
SUBNORMAL = Fraction(1, 2**126)
HALF = Fraction(1, 2)
