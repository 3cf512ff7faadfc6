"""Formulas over box sides and output inequalities, and the literals they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sutura.errors import PropertyError
from sutura.property.budget import Budget
from sutura.property.linear import ONE, ZERO, Linear, difference, scaled
from sutura.property.spec import Inequality


@dataclass(frozen=True, slots=True)
class Side:
    """X_index <= value where `upper`, else X_index >= value; `line` is where the file says so."""

    index: int
    value: Fraction
    upper: bool
    line: int

    def __str__(self) -> str:
        return f"X_{self.index} {'<=' if self.upper else '>='} {_short(self.value)} (line {self.line})"


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; true where there is none."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Some part holds; false where there is none."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """The part does not hold."""

    part: Formula


Formula = Side | Inequality | All | Either | Negation

TRUE = All(())
FALSE = Either(())


def negated(literal: Side | Inequality) -> Side | Inequality:
    """The opposite literal. Box sides are closed, so X <= a becomes X >= a: the proof covers the edge too."""
    if isinstance(literal, Side):
        return Side(literal.index, literal.value, not literal.upper, literal.line)
    terms = tuple((i, -c) for i, c in literal.terms)
    return Inequality(terms, -literal.bound, not literal.strict)


def compare(relation: str, left: Linear, right: Linear, line: int, budget: Budget) -> Formula:
    """The formula `left relation right`, relation being one of <= >= < > =.

    Raises PropertyError where it relates two inputs, or an input and an output.
    """
    if relation != "=" and (literal := _plain(relation, left, right, line)) is not None:
        return literal
    gap = difference([left, right], budget)
    if relation == "=":
        return All((_below(gap, False, line), _below(scaled(gap, -ONE, budget), False, line)))
    if relation in (">=", ">"):
        gap = scaled(gap, -ONE, budget)
    return _below(gap, relation in ("<", ">"), line)


def _plain(relation: str, left: Linear, right: Linear, line: int) -> Formula | None:
    """The short way for a bare variable and a number, or two bare outputs: nearly every line there is."""
    if len(left.terms) != 1 or left.constant:
        return None
    (((kind, i), coefficient),) = left.terms.items()
    if coefficient is not ONE:
        return None
    upper = relation in ("<=", "<")
    strict = relation in ("<", ">")
    if not right.terms:
        if kind == "X":
            return Side(i, right.constant, upper, line)
        if upper:
            return Inequality(((i, ONE),), right.constant, strict)
        return Inequality(((i, _MINUS),), -right.constant, strict)
    if kind == "X" or len(right.terms) != 1 or right.constant:
        return None
    (((other, j), coefficient),) = right.terms.items()
    if other == "X" or coefficient is not ONE or i == j:
        return None
    small, large = ((i, ONE), (j, _MINUS)) if upper else ((i, _MINUS), (j, ONE))
    return Inequality((small, large) if i < j else (large, small), ZERO, strict)


def _below(gap: Linear, strict: bool, line: int) -> Formula:
    bound = -gap.constant
    if not gap.terms:
        return TRUE if (bound > ZERO if strict else bound >= ZERO) else FALSE
    kinds = {kind for kind, _ in gap.terms}
    if kinds == {"Y"}:
        return Inequality(tuple(sorted((i, c) for (_, i), c in gap.terms.items())), bound, strict)
    names = ", ".join(f"{kind}_{i}" for kind, i in sorted(gap.terms)[:4])
    if len(kinds) > 1:
        raise PropertyError(
            f"one inequality relates inputs and outputs ({names}); relate only X or only Y in each"
        )
    if len(gap.terms) > 1:
        raise PropertyError(
            f"input constraints must be intervals, but one relates {names}; bound each X_i on its own"
        )
    (((_, index), coefficient),) = gap.terms.items()
    return Side(index, bound / coefficient, coefficient > 0, line)


def _short(value: Fraction) -> str:
    near = float(value) if abs(value) < 10**300 else None
    return str(near) if near is not None and Fraction(near) == value else _rounded(value)


def _rounded(value: Fraction) -> str:
    try:
        return f"{float(value):.17g}"
    except OverflowError:
        return "a number beyond 1e300"


_MINUS = -ONE
