"""Literals as float32 comparisons that any runtime decides exactly, in blocks of one kind each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Int64

from sutura.errors import RepairError
from sutura.gates.safe_set import Literal
from sutura.property.float32 import nearest, round_down, round_up


@dataclass(frozen=True, slots=True, eq=False)
class Comparisons:
    """Blocks of tests of an output vector y, each of which implies a literal; `order` lists those literals.

    In this order: y[greater] > y[less]; y[greater_eq] >= y[less_eq]; y[above] > above_than;
    y[below] < below_than; y @ linear > |y| @ slack + linear_than, whose slack covers every rounding.
    """

    greater: Int64[np.ndarray, " a"]
    less: Int64[np.ndarray, " a"]
    greater_eq: Int64[np.ndarray, " b"]
    less_eq: Int64[np.ndarray, " b"]
    above: Int64[np.ndarray, " c"]
    above_than: Float32[np.ndarray, " c"]
    below: Int64[np.ndarray, " d"]
    below_than: Float32[np.ndarray, " d"]
    linear: Float32[np.ndarray, "n e"]
    slack: Float32[np.ndarray, "n e"]
    linear_than: Float32[np.ndarray, " e"]
    order: tuple[Literal, ...]


def comparisons(literals: Sequence[Literal], outputs: int) -> Comparisons:
    """Sort literals into blocks. Each comparison implies its literal for every finite output, in any runtime.

    Where outputs are not finite it implies that the unsafe inequality, which the literal denies, is false.

    Raises RepairError for a threshold beyond the range of float32.
    """
    blocks: dict[str, list[Literal]] = {
        name: [] for name in ("order", "order_eq", "above", "below", "linear")
    }
    for literal in literals:
        blocks[kind(literal)].append(literal)
    pairs, pairs_eq = [_pair(x) for x in blocks["order"]], [_pair(x) for x in blocks["order_eq"]]
    linear, slack, than = _linear(blocks["linear"], outputs)
    return Comparisons(
        _indices([i for i, _ in pairs]),
        _indices([j for _, j in pairs]),
        _indices([i for i, _ in pairs_eq]),
        _indices([j for _, j in pairs_eq]),
        _indices([x.terms[0][0] for x in blocks["above"]]),
        np.array([_threshold(x) for x in blocks["above"]], dtype=np.float32),
        _indices([x.terms[0][0] for x in blocks["below"]]),
        np.array([_threshold(x) for x in blocks["below"]], dtype=np.float32),
        linear,
        slack,
        than,
        tuple(literal for block in blocks.values() for literal in block),
    )


def _indices(values: Sequence[int]) -> Int64[np.ndarray, " k"]:
    return np.array(values, dtype=np.int64)


def kind(literal: Literal) -> str:
    """The block that decides a literal: order, order_eq, above, below, or linear (sums, which round)."""
    coefficients = [c for _, c in literal.terms]
    if len(coefficients) == 2 and coefficients[0] == -coefficients[1] and literal.bound == 0:
        return "order" if literal.strict else "order_eq"
    if len(coefficients) == 1:
        return "above" if coefficients[0] > 0 else "below"
    return "linear"


def _pair(literal: Literal) -> tuple[int, int]:
    (first, c), (second, _) = literal.terms
    return (first, second) if c > 0 else (second, first)


def _threshold(literal: Literal) -> np.float32:
    """t such that y > t (y < t for a negative coefficient) decides the literal exactly over float32."""
    _, coefficient = literal.terms[0]
    value = literal.bound / coefficient
    infinity = np.float32(np.inf)
    with np.errstate(over="ignore"):
        if coefficient > 0:
            t = round_down(value) if literal.strict else np.nextafter(round_up(value), -infinity)
        else:
            t = round_up(value) if literal.strict else np.nextafter(round_down(value), infinity)
    if not np.isfinite(t):
        index, side = literal.terms[0][0], "above" if value > 0 else "below"
        raise RepairError(
            f"the property bounds output Y_{index} by a number {side} the range of float32 (3.4e38); "
            "write a bound that an output can reach"
        )
    return t


def _linear(
    literals: Sequence[Literal], outputs: int
) -> tuple[Float32[np.ndarray, "n e"], Float32[np.ndarray, "n e"], Float32[np.ndarray, " e"]]:
    """Columns P, Q and r such that fl(yP) > fl(|y|Q + r) implies the literal for every order of summation.

    Each term of yP is off by at most gamma_{n+1} |y||P|, of |y|Q by gamma_{n+2}; P is the scaled coefficients
    rounded to float32, off by |P - c|; Q is doubled to cover its own rounding, and r is moved up past the
    underflow allowance. The |P| and the Q sum to at most one half each, so that no finite y overflows.
    """
    relative = Fraction(2 * (outputs + 4), 2**24 - (outputs + 4))
    tiny = 8 * (outputs + 2) * NORMAL
    linear, slack = (
        np.zeros((outputs, len(literals)), np.float32),
        np.zeros((outputs, len(literals)), np.float32),
    )
    than = np.zeros(len(literals), np.float32)
    for at, literal in enumerate(literals):
        scale = _scale(literal)
        for index, coefficient in literal.terms:
            exact = coefficient / scale
            if abs(exact) >= NORMAL:
                linear[index, at] = nearest(exact)
            error = abs(exact - Fraction(float(linear[index, at])))
            slack[index, at] = round_up(max(2 * NORMAL, relative * (abs(exact) + error) + 2 * error))
        bound = literal.bound / scale
        than[at] = round_up(bound + abs(bound) * relative + tiny)
    if not (abs(than) <= LARGEST_SUM).all():
        raise RepairError("the property bounds a sum of outputs beyond 1e30 times its coefficients")
    return linear, slack, than


def _scale(literal: Literal) -> Fraction:
    """A power of two that brings the sum of the absolute coefficients to between 1/16 and 1/4."""
    total = sum(abs(c) for _, c in literal.terms)
    power = total.numerator.bit_length() - total.denominator.bit_length()
    return Fraction(2) ** (power + 3)


NORMAL = Fraction(1, 2**126)
"""The smallest normal float32 number."""

LARGEST_SUM = 1e30
