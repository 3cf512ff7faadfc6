"""Properties as canonical VNN-LIB 1.0 text, every number exact."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from sutura.errors import PropertyError
from sutura.property.decimals import format_decimal
from sutura.property.spec import Box, Case, Conjunction, Inequality

_ONE = Fraction(1)


def write(inputs: int, outputs: int, cases: Sequence[Case]) -> bytes:
    """The canonical VNN-LIB 1.0 text of `cases`: parsing it gives equal cases, where no two boxes are equal.

    Raises PropertyError where there is nothing to assert: no case, or a case in which no output is unsafe.
    """
    if not cases or not all(case.unsafe for case in cases):
        raise PropertyError(
            "a property needs a case, and every case an unsafe output: anything else always holds"
        )
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    if len(cases) == 1:
        lines += [f"(assert {side})" for side in _sides(cases[0].box)]
        lines += _unsafe(cases[0].unsafe)
    else:
        disjuncts = [
            f"  (and {' '.join([*_sides(case.box), *map(_inequality, conjunction)])})"
            for case in cases
            for conjunction in case.unsafe
        ]
        lines += ["(assert (or", *disjuncts, "))"]
    return ("\n".join(lines) + "\n").encode("ascii")


def _sides(box: Box) -> list[str]:
    sides: list[str] = []
    for i, (low, high) in enumerate(zip(box.lower, box.upper, strict=True)):
        sides += [f"(>= X_{i} {format_decimal(low)})", f"(<= X_{i} {format_decimal(high)})"]
    return sides


def _unsafe(conjunctions: Sequence[Conjunction]) -> list[str]:
    if len(conjunctions) == 1:
        return [f"(assert {_inequality(inequality)})" for inequality in conjunctions[0]]
    return ["(assert (or", *(f"  (and {' '.join(map(_inequality, c))})" for c in conjunctions), "))"]


def _inequality(inequality: Inequality) -> str:
    match inequality.terms:
        case ((i, a),) if a == _ONE:
            return f"({_relation(inequality, '<')} Y_{i} {format_decimal(inequality.bound)})"
        case ((i, a),) if a == -_ONE:
            return f"({_relation(inequality, '>')} Y_{i} {format_decimal(-inequality.bound)})"
        case ((i, a), (j, b)) if {a, b} == {_ONE, -_ONE} and not inequality.bound:
            small, large = (i, j) if a == _ONE else (j, i)
            return f"({_relation(inequality, '<')} Y_{small} Y_{large})"
        case terms:
            parts = [f"Y_{i}" if c == _ONE else f"(* {format_decimal(c)} Y_{i})" for i, c in terms]
            total = f"(+ {' '.join(parts)})" if len(parts) > 1 else parts[0] if parts else "0.0"
            return f"({_relation(inequality, '<')} {total} {format_decimal(inequality.bound)})"


def _relation(inequality: Inequality, sign: str) -> str:
    return sign if inequality.strict else f"{sign}="
