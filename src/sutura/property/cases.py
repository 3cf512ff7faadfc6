"""From formulas to cases: disjunctive normal form within a budget, then one box a disjunct."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from sutura.errors import PropertyError
from sutura.property.budget import Budget
from sutura.property.formula import All, Either, Formula, Negation, Side, negated
from sutura.property.spec import Box, Case, Conjunction, Inequality

MOST_CONJUNCTIONS = 100_000  # that multiplying `or` by `or` may give
MOST_LITERALS = 4_000_000  # inequalities in all conjunctions together
MOST_CELLS = 4_000_000  # intervals in all boxes together


@dataclass(frozen=True, slots=True)
class Disjunct:
    """Box sides and output inequalities that hold together; `crossed` where sides come from several `or`."""

    sides: tuple[Side, ...] = ()
    inequalities: tuple[Inequality, ...] = ()
    crossed: bool = False


Dnf = tuple[Disjunct, ...]

# A box while it is being narrowed: the tightest side so far, by (input, whether it is the upper one).
Bounds = dict[tuple[int, bool], Side]


@dataclass(frozen=True, slots=True)
class Limits:
    """What is left to spend on normal forms."""

    conjunctions: Budget
    literals: Budget
    cells: Budget


def limits() -> Limits:
    """Fresh budgets for one property."""
    return Limits(
        Budget(MOST_CONJUNCTIONS, "conjunctions that the ors multiply out to"),
        Budget(MOST_LITERALS, "inequalities that the ors multiply out to"),
        Budget(MOST_CELLS, "input intervals of all boxes together"),
    )


def cases_of(bounds: Bounds, formulas: Sequence[Formula], inputs: int, allowed: Limits) -> tuple[Case, ...]:
    """The cases of the conjunction of `bounds` and `formulas` over X_0 ... X_(inputs-1), equal boxes merged.

    Raises PropertyError where a box is unbounded or empty, where the formulas can never hold together, and
    where the normal form is over budget (before it is built).
    """
    if clash := _contradiction({}, bounds):
        raise PropertyError(f"the input box is empty: {clash[0]} contradicts {clash[1]}; correct one of them")
    forms = [normal_form(formula, allowed) for formula in formulas]
    outputs = join([form for form in forms if not _has_sides(form)], allowed)
    boxes = join([form for form in forms if _has_sides(form)], allowed)
    if not outputs or not boxes:
        raise PropertyError(
            "the assertions can never hold together: every network has this property; check them"
        )
    if len(outputs) > 1 and len(boxes) > 1:
        allowed.conjunctions.spend(len(outputs) * len(boxes))
    shared = tuple(d.inequalities for d in outputs)
    return _grouped(bounds, boxes, shared, inputs, allowed)


def normal_form(formula: Formula, allowed: Limits, positive: bool = True) -> Dnf:
    """The disjunctive normal form of `formula`, or of its negation where not `positive`."""
    match formula:
        case Side() | Inequality():
            literal = formula if positive else negated(formula)
            if isinstance(literal, Side):
                return (Disjunct(sides=(literal,)),)
            return (Disjunct(inequalities=(literal,)),)
        case Negation():
            return normal_form(formula.part, allowed, not positive)
        case All() | Either():
            forms = [normal_form(part, allowed, positive) for part in formula.parts]
            if isinstance(formula, All) == positive:
                return join(forms, allowed)
            return tuple(itertools.chain.from_iterable(forms))


def join(forms: Sequence[Dnf], allowed: Limits) -> Dnf:
    """The normal form of the conjunction of `forms`; its size is paid for before it is built."""
    if any(not form for form in forms):
        return ()
    many = [form for form in forms if len(form) > 1]
    single = _merged([form[0] for form in forms if len(form) == 1], False)
    count = math.prod(len(form) for form in many)
    if len(many) > 1:
        allowed.conjunctions.spend(count)
    literals = sum(_size(form) * (count // len(form)) for form in many) + count * _size((single,))
    allowed.literals.spend(literals)
    if not many:
        return (single,)
    crossing = sum(_has_sides(form) for form in many) > 1
    made = [replace(single, crossed=single.crossed or crossing)]
    for form in many:
        made = [_both(left, right) for left in made for right in form]
    return tuple(made)


def _both(left: Disjunct, right: Disjunct) -> Disjunct:
    return Disjunct(
        left.sides + right.sides, left.inequalities + right.inequalities, left.crossed or right.crossed
    )


def _merged(disjuncts: Sequence[Disjunct], crossing: bool) -> Disjunct:
    sides = tuple(itertools.chain.from_iterable(d.sides for d in disjuncts))
    inequalities = tuple(itertools.chain.from_iterable(d.inequalities for d in disjuncts))
    return Disjunct(sides, inequalities, crossing or any(d.crossed for d in disjuncts))


def _size(form: Dnf) -> int:
    return sum(len(d.sides) + len(d.inequalities) for d in form)


def _has_sides(form: Dnf) -> bool:
    return any(d.sides for d in form)


def gather(formulas: Iterable[Formula]) -> tuple[Bounds, list[Formula]]:
    """The sides that hold in every case, and the formulas that remain; `formulas` are taken one by one."""
    base: Bounds = {}
    rest: list[Formula] = []
    for formula in formulas:
        pending = [formula]
        while pending:
            part = pending.pop()
            if isinstance(part, Side):
                _tighten(base, part)
            elif isinstance(part, All):
                pending.extend(reversed(part.parts))
            else:
                rest.append(part)
    return base, rest


def _tighten(bounds: Bounds, side: Side) -> None:
    key = (side.index, side.upper)
    before = bounds.get(key)
    if before is None or (side.value < before.value if side.upper else side.value > before.value):
        bounds[key] = side


def _narrowed(base: Bounds, sides: Sequence[Side]) -> Bounds:
    """Only what `sides` narrow in `base`."""
    changes: Bounds = {}
    for side in sides:
        before = base.get((side.index, side.upper))
        if before is None or (side.value < before.value if side.upper else side.value > before.value):
            _tighten(changes, side)
    return changes


def _contradiction(base: Bounds, changes: Bounds) -> tuple[Side, Side] | None:
    for index, _ in changes:
        low = changes.get((index, False)) or base.get((index, False))
        high = changes.get((index, True)) or base.get((index, True))
        if low is not None and high is not None and low.value > high.value:
            return low, high
    return None


def _grouped(
    base: Bounds, boxes: Dnf, shared: tuple[Conjunction, ...], inputs: int, allowed: Limits
) -> tuple[Case, ...]:
    groups: dict[frozenset[tuple[int, bool, Fraction]], tuple[Bounds, list[Disjunct]]] = {}
    for number, disjunct in enumerate(boxes, start=1):
        changes = _narrowed(base, disjunct.sides)
        clash = _contradiction(base, changes)
        if clash and disjunct.crossed:
            continue  # an empty intersection of two unions of boxes: no input lies there
        if clash:
            where = f"disjunct {number} of {len(boxes)}: " if len(boxes) > 1 else ""
            raise PropertyError(
                f"{where}the input box is empty: {clash[0]} contradicts {clash[1]}; correct one"
            )
        key = frozenset((i, upper, side.value) for (i, upper), side in changes.items())
        if key not in groups:
            allowed.cells.spend(inputs)
            groups[key] = (changes, [])
        groups[key][1].append(disjunct)
    if not groups:
        raise PropertyError("no input satisfies the input constraints of any case; check their bounds")
    return tuple(
        Case(_box(base, changes, inputs), _unsafe(members, shared, allowed))
        for changes, members in groups.values()
    )


def _unsafe(
    members: Sequence[Disjunct], shared: tuple[Conjunction, ...], allowed: Limits
) -> tuple[Conjunction, ...]:
    if len(members) == 1 and not members[0].inequalities:
        return shared
    own = sum(len(member.inequalities) for member in members)
    allowed.literals.spend(own * len(shared) + len(members) * sum(len(c) + 1 for c in shared))
    return tuple(member.inequalities + conjunction for member in members for conjunction in shared)


def _box(base: Bounds, changes: Bounds, inputs: int) -> Box:
    sides: tuple[list[Fraction], list[Fraction]] = ([], [])
    for index in range(inputs):
        for upper in (False, True):
            side = changes.get((index, upper)) or base.get((index, upper))
            if side is None:
                missing = "upper" if upper else "lower"
                raise PropertyError(f"X_{index} has no {missing} bound; every input needs a finite interval")
            sides[upper].append(side.value)
    return Box(tuple(sides[0]), tuple(sides[1]))
