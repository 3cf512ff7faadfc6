"""Linear expressions over the inputs X and the outputs Y, in exact arithmetic with a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sutura.errors import PropertyError
from sutura.property.budget import Budget
from sutura.property.decimals import checked, weight

Variable = tuple[str, int]  # ("X", 3) is X_3

ZERO = Fraction(0)
ONE = Fraction(1)


@dataclass(frozen=True, slots=True)
class Linear:
    """sum of coefficient * variable + constant; no coefficient is zero."""

    terms: Mapping[Variable, Fraction]
    constant: Fraction


def scaled(a: Linear, factor: Fraction, budget: Budget) -> Linear:
    """a * factor."""
    if factor == ONE:
        return a
    if not factor:
        return Linear({}, ZERO)
    budget.spend(len(a.terms) * weight(factor) + weight(a.constant))
    terms = {v: checked(c * factor) for v, c in a.terms.items()}
    return Linear(terms, checked(a.constant * factor))


def total(parts: Sequence[Linear], budget: Budget) -> Linear:
    """The sum of the parts."""
    terms: dict[Variable, Fraction] = {}
    constant = ZERO
    for part in parts:
        budget.spend(len(part.terms) + weight(part.constant))
        constant = checked(constant + part.constant) if part.constant else constant
        for variable, coefficient in part.terms.items():
            before = terms.get(variable)
            terms[variable] = coefficient if before is None else _sum(before, coefficient, budget)
    return Linear({v: c for v, c in terms.items() if c}, constant)


def difference(parts: Sequence[Linear], budget: Budget) -> Linear:
    """The first part less all others; a single part is negated."""
    head, rest = (parts[0], parts[1:]) if len(parts) > 1 else (Linear({}, ZERO), parts)
    return total([head, *(scaled(part, -ONE, budget) for part in rest)], budget)


def product(parts: Sequence[Linear], budget: Budget) -> Linear:
    """The product of the parts; raises PropertyError where more than one holds a variable."""
    holders = [part for part in parts if part.terms]
    if len(holders) > 1:
        raise PropertyError("a product of variables is not linear; only * by a number is supported")
    factor = ONE
    for part in parts:
        if not part.terms:
            budget.spend(weight(factor) + weight(part.constant))
            factor = checked(factor * part.constant)
    return scaled(holders[0], factor, budget) if holders else Linear({}, factor)


def quotient(parts: Sequence[Linear], budget: Budget) -> Linear:
    """The first part divided by all others, which are numbers and not zero."""
    if len(parts) < 2:
        raise PropertyError("/ needs a dividend and a divisor, as in (/ 1.0 3.0)")
    result = parts[0]
    for part in parts[1:]:
        if part.terms:
            raise PropertyError("a division by a variable is not linear; only / by a number is supported")
        if not part.constant:
            raise PropertyError("division by zero; correct the divisor")
        result = scaled(result, 1 / part.constant, budget)
    return result


def _sum(a: Fraction, b: Fraction, budget: Budget) -> Fraction:
    budget.spend(weight(a) + weight(b))
    return checked(a + b)
