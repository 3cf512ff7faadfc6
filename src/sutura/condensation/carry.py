"""Proofs on a merged network that hold for the original: unsafe outputs widened by what merging changed."""

from __future__ import annotations

from fractions import Fraction

from sutura.errors import MismatchError
from sutura.property.spec import Case, Inequality, Property
from sutura.property.write import write
from sutura.verdict.difference import Difference


def carried(prop: Property, difference: Difference) -> Property:
    """What to prove on the merged network so that the original has `prop`.

    `difference` is `diff(original, merged, prop)`: with low <= y - y' <= high, an unsafe y, sum a y <= b,
    means sum a y' <= b + sum max(-a low, -a high). Exact over the rationals; sound for what both proofs are
    sound for. Raises MismatchError where the difference is of another number of outputs or not finite.
    """
    ends = list(zip(difference.low.tolist(), difference.high.tolist(), strict=True))
    if len(ends) != prop.outputs:
        raise MismatchError(f"{prop.name} has {prop.outputs} outputs; the difference bounds {len(ends)}")
    if not all(abs(end) < float("inf") for pair in ends for end in pair):
        raise MismatchError(f"the difference on {prop.name} is not bounded; give a smaller region")
    exact = [(Fraction(low), Fraction(high)) for low, high in ends]
    cases = tuple(
        Case(case.box, tuple(tuple(_widened(i, exact) for i in unsafe) for unsafe in case.unsafe))
        for case in prop.cases
    )
    return Property(
        f"{prop.name} carried", prop.inputs, prop.outputs, cases, write(prop.inputs, prop.outputs, cases)
    )


def _widened(unsafe: Inequality, ends: list[tuple[Fraction, Fraction]]) -> Inequality:
    room = sum((max(-a * ends[i][0], -a * ends[i][1]) for i, a in unsafe.terms), Fraction(0))
    return Inequality(unsafe.terms, unsafe.bound + room, unsafe.strict)
