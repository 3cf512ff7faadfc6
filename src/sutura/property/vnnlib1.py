"""VNN-LIB 1.0: the whole language that properties of one network need, read and written exactly."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sutura.errors import PropertyError
from sutura.property.budget import Budget
from sutura.property.cases import cases_of, gather, limits
from sutura.property.decimals import parse_decimal, weight
from sutura.property.formula import FALSE, TRUE, All, Either, Formula, Negation, Side, compare
from sutura.property.linear import ONE, ZERO, Linear, difference, product, quotient, total
from sutura.property.quote import quote
from sutura.property.sexpr import fold
from sutura.property.source import read_source, stem
from sutura.property.spec import Property
from sutura.property.write import write as write

MOST_ARITHMETIC = 600_000  # numbers and operations, long numbers counting more
MOST_INEQUALITIES = 200_000  # that must be kept: all but the input bounds outside of every `or`
MOST_VARIABLES = 200_000  # images of 224 x 224 x 3 have 150,528
MOST_REPEATED = 50_000  # bounds of inputs that are bounded already
MOST_IDLE = 10_000  # words of statements that assert nothing
MOST_EMPTY = MOST_VARIABLES  # empty lists; each (declare-fun X_0 () Real) has one
_MOST_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class _Done:
    """A statement that has been dealt with and asserts nothing."""

    empty: bool = False  # the () of a declare-fun


@dataclass(frozen=True, slots=True)
class _Asserted:
    formula: Formula


_Value = Linear | Formula | _Asserted | _Done


@dataclass(frozen=True, slots=True)
class _Script:
    """What has been read so far: the variables by name, the numbers by spelling, the budgets left."""

    variables: dict[str, Linear]
    declared: dict[str, dict[int, int]]  # kind -> index -> line
    numbers: dict[str, Linear]
    bounded: set[tuple[int, bool]]  # inputs with a lower (False) or upper (True) bound
    arithmetic: Budget
    inequalities: Budget
    repeated: Budget
    idle: Budget
    empty: Budget


def read(path: Path) -> Property:
    """The property in a VNN-LIB 1.0 file, plain or gzip; its name is the file's stem.

    Raises PropertyError as `parse` does, and where the file cannot be read or is too large.
    """
    return parse(read_source(path), stem(path), source=str(path))


def parse(text: bytes, name: str, *, source: str | None = None) -> Property:
    """The property that a VNN-LIB 1.0 text states; `source` stands for it in errors (`name` where not given).

    Inputs X_i must be bounded, each on its own; a strict input bound is read as closed, so a proof covers its
    edge too. Strictness of output inequalities is kept; `or` may mix inputs and outputs. PropertyError,
    in one line with source:line, is raised for anything else, and before time or memory exceed fixed budgets.
    """
    source = source or name
    script = _Script(
        {},
        {"X": {}, "Y": {}},
        {},
        set(),
        Budget(MOST_ARITHMETIC, "numbers and operations"),
        Budget(MOST_INEQUALITIES, "inequalities"),
        Budget(MOST_REPEATED, "bounds of inputs that are bounded already"),
        Budget(MOST_IDLE, "words of statements that assert nothing"),
        Budget(MOST_EMPTY, "empty lists"),
    )
    latin = text.removeprefix(b"\xef\xbb\xbf").decode(
        "latin-1"
    )  # one byte a character; only comments go beyond ASCII
    values = fold(latin, source, partial(_reduce, script))
    bounds, formulas = gather(value.formula for value in values if isinstance(value, _Asserted))
    try:
        inputs, outputs = _counted(script, "X"), _counted(script, "Y")
        cases = cases_of(bounds, formulas, inputs, limits())
    except PropertyError as error:
        raise PropertyError(f"{source}: {error}") from None
    return Property(name, inputs, outputs, cases, text)


def _counted(script: _Script, kind: str) -> int:
    lines = script.declared[kind]
    if not lines:
        raise PropertyError(f"no {_KINDS[kind]} is declared; add (declare-const {kind}_0 Real)")
    count = len(lines)
    if (last := max(lines)) >= count:
        gap = next(i for i in range(count) if i not in lines)
        raise PropertyError(
            f"{kind}_{last} is declared (line {lines[last]}) but {kind}_{gap} is not; leave no gaps"
        )
    return count


def _reduce(script: _Script, items: list[str | _Value], line: int) -> _Value:
    if not items:
        script.empty.spend(1)
        return _Done(empty=True)
    head = items[0]
    if not isinstance(head, str):
        raise PropertyError("a list starts with another list; it must start with an operator or a statement")
    rule = _RULES.get(head)
    if rule is None:
        raise PropertyError(f"{quote(head)} is not supported; VNN-LIB 1.0 here knows {' '.join(_RULES)}")
    return rule(script, head, items[1:], line)


def _compare(script: _Script, head: str, items: Sequence[str | _Value], line: int) -> Formula:
    if len(items) < 2:
        raise PropertyError(f"{head} needs two sides, as in ({head} Y_0 0.5)")
    sides = [_linear(script, item) for item in items]
    if len(sides) == 2:
        return compare(head, sides[0], sides[1], line, script.arithmetic)
    pairs = itertools.pairwise(sides)  # a chain: a <= b <= c
    return All(tuple(compare(head, a, b, line, script.arithmetic) for a, b in pairs))


def _arithmetic(script: _Script, head: str, items: Sequence[str | _Value], line: int) -> Linear:
    if not items:
        raise PropertyError(f"{head} needs operands")
    return _OPERATIONS[head]([_linear(script, item) for item in items], script.arithmetic)


def _connective(script: _Script, head: str, items: Sequence[str | _Value], line: int) -> Formula:
    parts = tuple(_formula(item) for item in items)
    script.inequalities.spend(len(parts))
    return All(parts) if head == "and" else Either(parts)


def _not(script: _Script, head: str, items: Sequence[str | _Value], line: int) -> Formula:
    if len(items) != 1:
        raise PropertyError(f"not takes one formula, here are {len(items)}")
    return Negation(_formula(items[0]))


def _assert(script: _Script, head: str, items: Sequence[str | _Value], line: int) -> _Asserted:
    if len(items) != 1:
        raise PropertyError(f"assert takes one formula, here are {len(items)}; join them with (and ...)")
    formula = _formula(items[0])
    if not isinstance(formula, Side):
        script.inequalities.spend(1)
    elif (side := (formula.index, formula.upper)) in script.bounded:
        script.repeated.spend(1)
    else:
        script.bounded.add(side)
    return _Asserted(formula)


def _declare(script: _Script, head: str, items: Sequence[str | _Value], line: int) -> _Done:
    signature = items[1:] if head == "declare-const" else items[2:]
    empty = head == "declare-const" or (len(items) > 1 and items[1] == _Done(empty=True))
    name = items[0] if items else None
    if not isinstance(name, str) or len(signature) != 1 or not empty:
        raise PropertyError(f"malformed {head}; write (declare-const X_0 Real)")
    if signature[0] != "Real":
        raise PropertyError(
            f"{quote(name)} is declared with a type other than Real; inputs and outputs are Real"
        )
    match = _VARIABLE.fullmatch(name)
    if match is None:
        raise PropertyError(
            f"{quote(name)} is not a variable of VNN-LIB 1.0; inputs are X_0, X_1, ..., outputs Y_0, ..."
        )
    kind, index = match.group(1), int(match.group(2))
    lines = script.declared[kind]
    if index in lines:
        raise PropertyError(
            f"{name} is declared twice (first in line {lines[index]}); remove one declaration"
        )
    if len(script.variables) == MOST_VARIABLES:
        raise PropertyError(f"more than {MOST_VARIABLES:,} variables")
    lines[index] = line
    script.variables[name] = Linear({(kind, index): ONE}, ZERO)
    return _Done()


def _ignore(script: _Script, head: str, items: Sequence[str | _Value], line: int) -> _Done:
    script.idle.spend(1 + len(items))
    return _Done()


def _formula(item: str | _Value) -> Formula:
    if isinstance(item, str):
        if item in _CONSTANTS:
            return _CONSTANTS[item]
        raise PropertyError(f"{quote(item)} stands where a formula must, such as (<= Y_0 0.5)")
    if isinstance(item, Linear | _Done | _Asserted):
        raise PropertyError(f"{_NAMES[type(item)]} stands where a formula must, such as (<= Y_0 0.5)")
    return item


def _linear(script: _Script, item: str | _Value) -> Linear:
    if isinstance(item, Linear):
        return item
    if not isinstance(item, str):
        raise PropertyError(f"{_NAMES.get(type(item), 'a formula')} stands where a number or variable must")
    known = script.variables.get(item) or script.numbers.get(item)
    return known or _number(script, item)


def _number(script: _Script, token: str) -> Linear:
    if token[0] in _KINDS and _VARIABLE.fullmatch(token):
        raise PropertyError(
            f"{quote(token)} is not declared; add (declare-const {quote(token)[1:-1]} Real) above"
        )
    value = parse_decimal(token)
    script.arithmetic.spend(weight(value))
    number = Linear({}, value)
    if len(script.numbers) < _MOST_REMEMBERED:
        script.numbers[token] = number
    return number


_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
_KINDS = {"X": "input", "Y": "output"}
_CONSTANTS: dict[str, Formula] = {"true": TRUE, "false": FALSE}
_NAMES: dict[type, str] = {Linear: "an arithmetic expression", _Done: "a statement", _Asserted: "an assert"}

_OPERATIONS: dict[str, Callable[[Sequence[Linear], Budget], Linear]] = {
    "+": total,
    "-": difference,
    "*": product,
    "/": quotient,
}

_Rule = Callable[[_Script, str, Sequence["str | _Value"], int], _Value]

_RULES: dict[str, _Rule] = {
    "<=": _compare,
    ">=": _compare,
    "<": _compare,
    ">": _compare,
    "=": _compare,
    "+": _arithmetic,
    "-": _arithmetic,
    "*": _arithmetic,
    "/": _arithmetic,
    "and": _connective,
    "or": _connective,
    "not": _not,
    "assert": _assert,
    "declare-const": _declare,
    "declare-fun": _declare,
    "set-logic": _ignore,
    "set-info": _ignore,
    "set-option": _ignore,
    "check-sat": _ignore,
    "get-model": _ignore,
    "exit": _ignore,
}
