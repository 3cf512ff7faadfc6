"""Properties: VNN-LIB 1.0 in exact rational numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

from .ticks import Ints, round_down, want

Inequality = tuple[tuple[tuple[int, Fraction], ...], Fraction, bool]  # sum of c Y_i <= bound, or < where True
Term = Mapping[tuple[str, int], Fraction]  # coefficients of (kind, number), and of ("", 0): the constant


class Case(NamedTuple):
    """A box of inputs in ticks, and the conjunctions of inequalities that are unsafe in it."""

    lower: Ints
    upper: Ints
    unsafe: Sequence[Sequence[Inequality]]


def read_property(data: bytes) -> tuple[int, int, list[Case]]:
    """Numbers of inputs and outputs, and the cases."""
    counts, choices = {"X": 0, "Y": 0}, list[list[tuple[Any, ...]]]()
    for word, *rest in parse(str(data, "utf-8")):
        if word in {"declare-const", "declare-fun"}:
            kind, number = variable(rest[0]) or ("X", -1)
            want(number == counts[kind], f"{rest[0]!r} is no variable, or declared out of order")
            counts[kind] += 1
        elif word == "assert" and len(rest) == 1:
            choices.append(disjuncts(rest[0], counts))
        else:
            want(word in {"set-logic", "set-info", "check-sat"}, f"unknown command {word!r}")
    want(min(counts.values()) > 0, "the property declares no input or no output")
    boxes: dict[Any, list[list[Inequality]]] = {}
    for conjunction in multiplied(choices):
        bounds = tuple(atom for kind, atom in conjunction if kind == "X")
        boxes.setdefault(bounds, []).append([atom for kind, atom in conjunction if kind == "Y"])
    cases = [case for bounds, unsafe in boxes.items() for case in cases_of(counts["X"], bounds, unsafe)]
    want(cases, "every input box of the property is empty")
    return counts["X"], counts["Y"], cases


def parse(source: str) -> Iterator[list[Any]]:
    """The top-level lists of the text."""
    stack: list[list[Any]] = [[]]
    for word in TOKEN.findall(source):
        if word == "(":
            stack.append([])
            want(len(stack) <= 64, "the property nests too deep")
        elif word[0] != ";":
            want(len(stack) > 1, f"{word!r} stands outside of parentheses")
            done: Any = stack.pop() if word == ")" else word
            stack[-1].append(done)
    want(len(stack) == 1, "a parenthesis of the property is never closed")
    return iter(stack[0])


def variable(word: Any) -> tuple[str, int] | None:
    """("X" or "Y", number), if the word names a variable."""
    name = VARIABLE.fullmatch(word)
    return (name[1], int(name[2])) if name else None


def disjuncts(formula: Any, counts: Mapping[str, int]) -> list[tuple[Any, ...]]:
    """A formula as an OR of ANDs of ("X" or "Y", inequality)."""
    word, *parts = formula
    if word in {"and", "or"} and parts:
        options = [disjuncts(part, counts) for part in parts]
        return multiplied(options) if word == "and" else [one for option in options for one in option]
    if word == "=":
        return multiplied([disjuncts([side, *parts], counts) for side in ("<=", ">=")])
    want(word in {"<=", ">=", "<", ">"} and len(parts) == 2, f"{word!r} is no formula known here")
    left, right = (linear(part, counts) for part in (parts if word[0] == "<" else parts[::-1]))
    total = plus(left, right, -1)
    bound = -total.pop(("", 0), Fraction(0))
    terms = sorted((key, factor) for key, factor in total.items() if factor)
    kinds = [kind for (kind, _), _ in terms]
    want(kinds == ["X"] or {*kinds} == {"Y"}, "an inequality must bound one input, or outputs")
    return [((kinds[0], (tuple((index, factor) for (_, index), factor in terms), bound, len(word) == 1)),)]


def multiplied(choices: Sequence[Sequence[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """An AND of ORs of ANDs, multiplied out."""
    want(prod(map(len, choices)) <= 100_000, "the property has more than 100,000 disjuncts, multiplied out")
    found: list[tuple[Any, ...]] = [()]
    for options in choices:
        found = [left + right for left in found for right in options]
    return found


def linear(term: Any, counts: Mapping[str, int]) -> Term:
    """A linear term."""
    if isinstance(term, str):
        name = variable(term)
        known = NUMBER.fullmatch(term) or (name and name[1] < counts[name[0]])
        want(known, f"{term!r} is no number or variable")
        return {name: Fraction(1)} if name else {("", 0): Fraction(term)}
    word, *parts = (term[0], *(linear(part, counts) for part in term[1:]))
    want(word in {"+", "-", "*"} and parts, f"{word!r} makes no linear term")
    total = parts[0] if len(parts) > 1 or word != "-" else plus({}, parts[0], -1)
    for part in parts[1:]:
        if word == "*":
            scalar, other = (part, total) if set(part) == {("", 0)} else (total, part)
            want(set(scalar) == {("", 0)}, "the property multiplies variables")
            total = plus({}, other, scalar["", 0])
        else:
            total = plus(total, part, 1 if word == "+" else -1)
    return total


def plus(a: Term, b: Term, factor: Fraction | int) -> dict[tuple[str, int], Fraction]:
    """a + factor b."""
    return {**a, **{key: a.get(key, Fraction(0)) + factor * value for key, value in b.items()}}


def cases_of(inputs: int, bounds: Sequence[Inequality], unsafe: list[list[Inequality]]) -> list[Case]:
    """The box that bounds leave, rounded outward to float32; none where it holds no point at all."""
    sides: list[list[list[Fraction]]] = [[[], []] for _ in range(inputs)]
    for ((index, factor),), bound, _ in bounds:
        sides[index][factor > 0].append(bound / factor)
    want(all(low and high for low, high in sides), "an input has no bound on one side")
    lower, upper = ([max(low) for low, _ in sides], [min(high) for _, high in sides])
    if any(low > high for low, high in zip(lower, upper, strict=True)):
        return []
    return [Case([round_down(v) for v in lower], [-round_down(-v) for v in upper], unsafe)]


VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,7})")
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?")
TOKEN = re.compile(r"[()]|;[^\n]*|[^\s();]+")
