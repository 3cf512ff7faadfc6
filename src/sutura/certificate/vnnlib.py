"""A small VNN-LIB 1.0 reader in exact rationals, written apart from the one that the repair uses.

A property says: for inputs in a box, an output that satisfies all inequalities of any one conjunction is
unsafe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from sutura.certificate.errors import CertificateError, brief
from sutura.certificate.float32 import round_down, round_up

Term = str | list["Term"]


@dataclass(frozen=True, slots=True)
class Inequality:
    """sum of c * Y_i <= bound, or < where `strict`; indices ascend, no c is zero."""

    terms: tuple[tuple[int, Fraction], ...]
    bound: Fraction
    strict: bool

    def holds(self, outputs: Sequence[float]) -> bool:
        """Decides it for finite outputs, exactly."""
        total = sum((c * Fraction(outputs[i]) for i, c in self.terms), Fraction(0))
        return total < self.bound if self.strict else total <= self.bound


@dataclass(frozen=True, slots=True)
class Case:
    """A box of inputs, rounded outward to float32, and the conjunctions that are unsafe in it."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    unsafe: tuple[tuple[Inequality, ...], ...]


@dataclass(frozen=True, slots=True)
class Property:
    """The cases of one file, for networks of so many inputs and outputs."""

    inputs: int
    outputs: int
    cases: tuple[Case, ...]


def read_property(data: bytes) -> Property:
    """The property in VNN-LIB 1.0 text; CertificateError (with the line) for all that is not understood."""
    counts = {"X": 0, "Y": 0}
    shared: list[_Atom] = []
    choices: list[list[list[_Atom]]] = []
    for line, command in _commands(data):
        match command:
            case ["declare-const" | "declare-fun", str(name), *_]:
                _declare(name, counts, line)
            case ["assert", formula]:
                options = _disjuncts(formula, False, counts, line)
                if len(options) == 1:
                    shared += options[0]
                else:
                    choices.append(options)
            case [str(word), *_] if word in IGNORED:
                pass
            case _:
                raise CertificateError(f"line {line}: {brief(command)} is no command known here")
    if not counts["X"] or not counts["Y"]:
        raise CertificateError("the property declares no input X_0 or no output Y_0")
    return Property(counts["X"], counts["Y"], _cases(counts["X"], shared, choices))


@dataclass(frozen=True, slots=True)
class _Atom:
    """`index` None: an inequality of outputs; else the input that it bounds, from above or from below."""

    index: int | None
    inequality: Inequality


def _cases(inputs: int, shared: list[_Atom], choices: list[list[list[_Atom]]]) -> tuple[Case, ...]:
    joined: list[list[_Atom]] = [[]]
    for options in choices:
        if len(joined) * len(options) > MAX_CONJUNCTIONS:
            raise CertificateError(
                f"the property has more than {MAX_CONJUNCTIONS} disjuncts when multiplied out"
            )
        joined = [left + right for left in joined for right in options]
        if sum(map(len, joined)) > MAX_ATOMS:
            raise CertificateError(f"the property has more than {MAX_ATOMS} inequalities when multiplied out")
    bounds = [atom for atom in shared if atom.index is not None]
    common = [atom.inequality for atom in shared if atom.index is None]
    boxes: dict[tuple[_Atom, ...], list[tuple[Inequality, ...]]] = {}
    for conjunction in joined:
        own = tuple(atom for atom in conjunction if atom.index is not None)
        outputs = [atom.inequality for atom in conjunction if atom.index is None]
        boxes.setdefault(own, []).append((*common, *outputs))
    if len(boxes) * inputs > MAX_ATOMS:
        raise CertificateError(f"the property has {len(boxes)} boxes of {inputs} inputs; too many")
    cases = [_case(inputs, [*bounds, *own], unsafe) for own, unsafe in boxes.items()]
    found = tuple(case for case in cases if case is not None)
    if not found:
        raise CertificateError("every input box of the property is empty")
    return found


def _case(inputs: int, bounds: list[_Atom], unsafe: list[tuple[Inequality, ...]]) -> Case | None:
    """The box that the bounds leave, as float32 numbers; None where it holds no point at all."""
    lower: list[Fraction | None] = [None] * inputs
    upper: list[Fraction | None] = [None] * inputs
    for atom in bounds:
        ((index, factor),) = atom.inequality.terms
        value = atom.inequality.bound / factor
        side, pick = (upper, min) if factor > 0 else (lower, max)
        old = side[index]
        side[index] = value if old is None else pick(old, value)
    low: list[float] = []
    high: list[float] = []
    for index, (below, above) in enumerate(zip(lower, upper, strict=True)):
        if below is None or above is None:
            raise CertificateError(f"input X_{index} has no {'lower' if below is None else 'upper'} bound")
        if below > above:
            return None
        low.append(round_down(below))
        high.append(round_up(above))
    return Case(tuple(low), tuple(high), tuple(unsafe))


def _declare(name: str, counts: dict[str, int], line: int) -> None:
    kind, number = _variable(name, line)
    if number != counts[kind] or number >= MAX_VARIABLES:
        raise CertificateError(
            f"line {line}: {brief(name)} is declared out of order; {kind}_{counts[kind]} is due"
        )
    counts[kind] += 1


def _variable(name: str, line: int) -> tuple[str, int]:
    found = VARIABLE.fullmatch(name)
    if not found:
        raise CertificateError(f"line {line}: {brief(name)} is no variable; inputs are X_0.., outputs Y_0..")
    return found[1], int(found[2])


def _disjuncts(formula: Term, negated: bool, counts: dict[str, int], line: int) -> list[list[_Atom]]:
    """The formula (or its negation) as an OR of ANDs."""
    match formula:
        case ["not", inner]:
            return _disjuncts(inner, not negated, counts, line)
        case ["and" | "or" as word, *parts] if parts:
            options = [_disjuncts(part, negated, counts, line) for part in parts]
            if (word == "or") != negated:
                return [conjunction for option in options for conjunction in option]
            return _product(options, line)
        case ["=", left, right]:
            both: Term = ["and", ["<=", left, right], [">=", left, right]]
            return _disjuncts(both, negated, counts, line)
        case ["<=" | ">=" | "<" | ">" as relation, left, right]:
            return [[_atom(NEGATED[relation] if negated else relation, (left, right), counts, line)]]
        case _:
            raise CertificateError(f"line {line}: {brief(formula)} is no formula known here")


def _product(options: list[list[list[_Atom]]], line: int) -> list[list[_Atom]]:
    found: list[list[_Atom]] = [[]]
    for option in options:
        if len(option) == 1:
            for conjunction in found:
                conjunction += option[0]
        else:
            if len(found) * len(option) > MAX_CONJUNCTIONS:
                raise CertificateError(
                    f"line {line}: more than {MAX_CONJUNCTIONS} disjuncts when multiplied out"
                )
            found = [left + right for left in found for right in option]
        if len(found) > 1 and sum(map(len, found)) > MAX_ATOMS:
            raise CertificateError(f"line {line}: more than {MAX_ATOMS} inequalities when multiplied out")
    return found


def _atom(relation: str, sides: tuple[Term, Term], counts: dict[str, int], line: int) -> _Atom:
    left, right = (_linear(side, counts, line) for side in sides)
    if relation in {">=", ">"}:
        left, right = right, left
    terms = {key: left.get(key, Fraction(0)) - right.get(key, Fraction(0)) for key in left | right}
    bound = -terms.pop(None, Fraction(0))
    used = sorted((key, c) for key, c in terms.items() if key is not None and c)
    kinds = {kind for (kind, _), _ in used}
    inequality = Inequality(tuple((index, c) for (_, index), c in used), bound, relation in {"<", ">"})
    if kinds == {"Y"}:
        return _Atom(None, inequality)
    if kinds == {"X"} and len(used) == 1:
        return _Atom(used[0][0][1], replace(inequality, strict=False))
    raise CertificateError(f"line {line}: an inequality must bound one input, or outputs only")


_Key = tuple[str, int] | None


def _linear(term: Term, counts: dict[str, int], line: int) -> dict[_Key, Fraction]:
    """A linear term as coefficients of variables, and of None for the constant."""
    if isinstance(term, str):
        if NUMBER.fullmatch(term):
            return {None: _number(term, line)}
        kind, number = _variable(term, line)
        if number >= counts[kind]:
            raise CertificateError(f"line {line}: {brief(term)} is used but not declared")
        return {(kind, number): Fraction(1)}
    match term:
        case ["+" | "-" | "*" | "/" as word, first, *rest]:
            parts = [_linear(part, counts, line) for part in rest]
            total = _linear(first, counts, line)
            if word == "-" and not rest:
                return _scaled(total, Fraction(-1))
            for part in parts:
                total = _combine(word, total, part, line)
            return total
        case _:
            raise CertificateError(f"line {line}: {brief(term)} is no linear term")


def _combine(word: str, a: dict[_Key, Fraction], b: dict[_Key, Fraction], line: int) -> dict[_Key, Fraction]:
    if word in {"+", "-"}:
        sign = 1 if word == "+" else -1
        return a | {key: a.get(key, Fraction(0)) + sign * value for key, value in b.items()}
    if word == "*" and set(a) == {None}:
        a, b = b, a
    if set(b) != {None} or (word == "/" and not b[None]):
        raise CertificateError(f"line {line}: a product of variables, or a division by one or by zero")
    factor = b[None] if word == "*" else 1 / b[None]
    if max(factor.numerator.bit_length(), factor.denominator.bit_length()) > MAX_BITS:
        raise CertificateError(f"line {line}: a number with more than {MAX_BITS} bits")
    return _scaled(a, factor)


def _scaled(term: dict[_Key, Fraction], factor: Fraction) -> dict[_Key, Fraction]:
    return {key: value * factor for key, value in term.items()}


def _number(text: str, line: int) -> Fraction:
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or "0")) > MAX_DIGITS:
        raise CertificateError(f"line {line}: the number {brief(text)} is too long or its exponent too large")
    return Fraction(mantissa) * Fraction(10) ** int(exponent or "0")


def _commands(data: bytes) -> Iterator[tuple[int, list[Term]]]:
    """The top-level lists of the text, each with the line it begins on."""
    if len(data) > MAX_BYTES:
        raise CertificateError(f"the property has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise CertificateError("the property is no UTF-8 text") from None
    stack: list[list[Term]] = []
    line = start = 1
    for token in TOKEN.finditer(text):
        word = token[0]
        if word == "\n":
            line += 1
        elif word[0] != ";":
            start = start if stack else line
            done = _nest(stack, word, line)
            if done is not None:
                yield start, done
    if stack:
        raise CertificateError(f"line {start}: a parenthesis is never closed")


def _nest(stack: list[list[Term]], word: str, line: int) -> list[Term] | None:
    """Takes the next token; gives the list that it completes, if that is a top-level one."""
    if word == "(":
        if len(stack) >= MAX_NESTING:
            raise CertificateError(f"line {line}: more than {MAX_NESTING} nested parentheses")
        stack.append([])
        return None
    if not stack:
        raise CertificateError(f"line {line}: {brief(word)} stands outside of parentheses")
    if word != ")":
        stack[-1].append(word)
        return None
    done = stack.pop()
    if not stack:
        return done
    stack[-1].append(done)
    return None


TOKEN = re.compile(r"\n|[()]|;[^\n]*|[^\s();]+")
VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
NEGATED = {"<=": ">", ">=": "<", "<": ">=", ">": "<="}
IGNORED = {"set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"}
MAX_BYTES = 1 << 25
MAX_VARIABLES = 1 << 24
MAX_NESTING = 64
MAX_CONJUNCTIONS = 100_000
MAX_ATOMS = 1_000_000
MAX_DIGITS = 400
MAX_BITS = 4096
