"""VNN-LIB 2.0, through the official package `vnnlib` (the extra of the same purpose, `sutura[vnnlib2]`)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sutura.errors import MissingExtraError, PropertyError
from sutura.property.budget import Budget
from sutura.property.cases import cases_of, gather, limits
from sutura.property.decimals import parse_decimal, weight
from sutura.property.formula import All, Either, Formula, Negation, compare
from sutura.property.linear import ONE, ZERO, Linear, difference, product, total
from sutura.property.quote import quote
from sutura.property.rehearsal import rehearse
from sutura.property.sexpr import fold
from sutura.property.source import read_source, stem
from sutura.property.spec import Property
from sutura.property.vnnlib1 import MOST_ARITHMETIC, MOST_INEQUALITIES, MOST_VARIABLES
from sutura.property.write import write

if TYPE_CHECKING:
    import vnnlib

MOST_LISTS = 500_000


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a query declares it; `type` is the word of the standard, float32 or real."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A query about one network: what it declares, and the property that it asks to refute."""

    network: str
    input: Tensor
    output: Tensor
    property: Property


@dataclass(frozen=True, slots=True)
class _Scope:
    """The two tensors by name (kind and shape), and the budgets left."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    arithmetic: Budget
    inequalities: Budget


def read(path: Path) -> Property:
    """The property in a VNN-LIB 2.0 file, plain or gzip; named by the file's stem. Raises as `parse` does."""
    return parse(read_source(path), stem(path), source=str(path))


def parse(text: bytes, name: str, *, source: str | None = None) -> Property:
    """The property that a VNN-LIB 2.0 text states; `source` stands for it in errors (`name` where not given).

    One network with one input and one output, both of type real or float32; elements are numbered row-major.
    Literals are taken as the exact decimals they spell. The property's `text` is the same in VNN-LIB 1.0.
    Raises MissingExtraError where the package `vnnlib` is not installed, PropertyError for everything else.
    """
    return parse_query(text, name, source=source).property


def parse_query(text: bytes, name: str, *, source: str | None = None) -> Query:
    """As `parse`, with the names, types and shapes that the query declares."""
    source = source or name
    query = _query(text, source)
    try:
        tensors = _tensors(query)
        scope = _Scope(
            tensors,
            Budget(MOST_ARITHMETIC, "numbers and operations"),
            Budget(MOST_INEQUALITIES, "inequalities"),
        )
        inputs, outputs = (math.prod(shape) for _, shape in tensors.values())
        bounds, formulas = gather(_formula(scope, assertion.expr) for assertion in query.assertions)
        cases = cases_of(bounds, formulas, inputs, limits())
        prop = Property(name, inputs, outputs, cases, write(inputs, outputs, cases))
        network = query.networks[0]
        return Query(network.name, _declared(network.inputs[0]), _declared(network.outputs[0]), prop)
    except PropertyError as error:
        raise PropertyError(f"{source}: {error}") from None


def _query(text: bytes, source: str) -> vnnlib.Query:
    try:
        import vnnlib
    except ImportError as error:
        raise MissingExtraError(
            f"{source}: VNN-LIB 2.0 needs the package vnnlib; pip install sutura[vnnlib2]"
        ) from error
    decoded = _decoded(text, source)
    # The package's parser is recursive C++ and dies on deep nesting: walk the parentheses first.
    lists = Budget(MOST_LISTS, "parentheses")
    for _ in fold(decoded, source, lambda _items, _line: lists.spend(1)):
        pass
    rehearse(decoded, source)
    try:
        return vnnlib.parse_query_string(decoded)
    except vnnlib.VNNLibException as error:
        raise PropertyError(f"{source}{_explained(str(error))}") from None
    except (IndexError, ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise PropertyError(f"{source}: the vnnlib package fails on a number or size: {error}") from None


def _decoded(text: bytes, source: str) -> str:
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise PropertyError(f"{source}:{line}: not UTF-8 text; save the file as UTF-8") from None
    if "\0" in decoded:  # the package would stop reading there
        line = decoded.count("\n", 0, decoded.index("\0")) + 1
        raise PropertyError(f"{source}:{line}: a NUL character; is this a text file?")
    return decoded


def _explained(message: str) -> str:
    """The package's report, JSON or plain, as `:line: what is wrong` in one line."""
    try:
        report: object = json.loads(message)
        first = cast("dict[str, list[dict[str, object]]]", report)["errors"][0]
        return f":{first['line']}: {first['message']}: {first['hint']}"
    except (ValueError, KeyError, IndexError, TypeError):
        return ": " + " ".join(message.split())[:200]


def _tensors(query: vnnlib.Query) -> dict[str, tuple[str, tuple[int, ...]]]:
    if len(query.networks) != 1:
        raise PropertyError(f"{len(query.networks)} networks are declared; sutura takes properties of one")
    network = query.networks[0]
    if network.equal_to or network.isometric_to:
        raise PropertyError(f"network {quote(network.name)} is tied to another one; sutura takes one alone")
    if network.hidden:
        raise PropertyError(
            f"hidden value {quote(network.hidden[0].name)} is declared; only X and Y may occur"
        )
    _check_one("input", network.inputs)
    _check_one("output", network.outputs)
    found = {d.name: (kind, tuple(d.shape)) for kind, (d,) in zip("XY", _ends(network), strict=True)}
    for (tensor,) in _ends(network):
        shape = tuple(tensor.shape)
        if tensor.dtype.name not in _TYPES:
            raise PropertyError(f"{quote(tensor.name)} is of type {tensor.dtype.name}; use real or float32")
        if any(d < 1 for d in shape) or math.prod(shape) > MOST_VARIABLES:
            raise PropertyError(
                f"{quote(tensor.name)} has {list(shape)} elements; 1 to {MOST_VARIABLES:,} are allowed"
            )
    return found


def _ends(
    network: vnnlib.Network,
) -> tuple[Sequence[vnnlib.InputDefinition], Sequence[vnnlib.OutputDefinition]]:
    return network.inputs, network.outputs


def _declared(tensor: vnnlib.InputDefinition | vnnlib.OutputDefinition) -> Tensor:
    return Tensor(tensor.name, _TYPES[tensor.dtype.name], tuple(tensor.shape))


def _check_one(end: str, tensors: Sequence[vnnlib.InputDefinition | vnnlib.OutputDefinition]) -> None:
    if len(tensors) != 1:
        raise PropertyError(f"the network has {len(tensors)} {end} tensors; sutura takes one {end}")


def _formula(scope: _Scope, node: vnnlib.BoolExpr) -> Formula:
    kind = type(node).__name__
    if kind in _CONNECTIVES:
        return _CONNECTIVES[kind](
            tuple(_formula(scope, part) for part in cast("vnnlib.Connective", node).args)
        )
    if kind not in _RELATIONS:
        raise PropertyError(f"{quote(str(node))} is not a comparison, and, or or")
    comparison = cast("vnnlib.Comparison", node)
    scope.inequalities.spend(1)
    sides = _linear(scope, comparison.lhs), _linear(scope, comparison.rhs)
    line = _line(comparison)
    try:
        formula = compare(_RELATIONS[kind], *sides, line, scope.arithmetic)
    except PropertyError as error:
        raise PropertyError(f"line {line}: {error}") from None
    return Negation(formula) if kind == "NotEqual" else formula


def _linear(scope: _Scope, node: vnnlib.ArithExpr) -> Linear:
    kind = type(node).__name__
    if kind == "Var":
        return _variable(scope, cast("vnnlib.Var", node))
    if kind in _LITERALS:
        value = parse_decimal(cast("vnnlib.Literal", node).lexeme)
        scope.arithmetic.spend(weight(value))
        return Linear({}, value)
    if kind not in _OPERATIONS:
        raise PropertyError(
            f"line {_line(node)}: {quote(str(node))} is not linear arithmetic; use + - * and numbers"
        )
    parts = [_linear(scope, cast("vnnlib.ArithExpr", part)) for part in node.children()]
    try:
        return _OPERATIONS[kind](parts, scope.arithmetic)
    except PropertyError as error:
        raise PropertyError(f"line {_line(node)}: {error}") from None


def _variable(scope: _Scope, node: vnnlib.Var) -> Linear:
    kind, shape = scope.tensors[node.name]
    scope.arithmetic.spend(1)
    index = 0
    for position, length in zip(node.indices, shape, strict=True):
        index = index * length + position
    return Linear({(kind, index): ONE}, ZERO)


def _line(node: vnnlib.Node) -> int:
    """The line of the first leaf; inner nodes know none."""
    while children := node.children():
        node = children[0]
    return cast("vnnlib.Var | vnnlib.Literal", node).line


_TYPES = {"Real": "real", "F32": "float32"}
_LITERALS = frozenset({"Float", "Int", "IntExpr", "Literal"})

_CONNECTIVES: dict[str, Callable[[tuple[Formula, ...]], Formula]] = {"And": All, "Or": Either}

_RELATIONS = {
    "LessEqual": "<=",
    "GreaterEqual": ">=",
    "LessThan": "<",
    "GreaterThan": ">",
    "Equal": "=",
    "NotEqual": "=",
}

_OPERATIONS: dict[str, Callable[[Sequence[Linear], Budget], Linear]] = {
    "Plus": total,
    "Minus": difference,
    "Negate": difference,
    "Multiply": product,
}
