"""What a row's gate guarantees of the output that it delivers, whatever the network computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from operator import le

from .gates import Gates, Literal, Tree
from .ticks import LARGEST, NORMAL, ONE, Ints, next_above, want
from .vnnlib import Inequality


def settled_by_gate(gates: Gates, row: int, unsafe: Sequence[Sequence[Inequality]]) -> bool:
    """Whether a row's gate makes its outputs safe, rather than the network; refused where neither can."""
    active = [gates.clauses[k] for k in gates.active[row]] if gates.active else []
    ends = [[*ends_of(gates, tree, row)] for tree in gates.guard] if row else []
    still = active or not any(number for found in ends for number, _ in found)
    want(still, f"row {row}: the guard may mend outputs that no active clause tests")
    ways = [[known for number, known in found if number == 0] for found in ends]
    for conjunction in unsafe if active else ():

        def excluded(literals: Sequence[Literal], by: Sequence[Inequality] = conjunction) -> bool:
            return any(contradicts(literal, inequality) for literal in literals for inequality in by)

        safe = any(clause and all(excluded([literal]) for literal in clause) for clause in active)
        want(safe, f"row {row}: no active clause excludes an unsafe conjunction")
        guarded = any(all(excluded(literals) for literals in known) for known in ways)
        want(guarded, f"row {row}: the guard lets an unsafe conjunction through")
        held = all(satisfies(gates.constant[row], inequality) for inequality in conjunction)
        want(not held, f"row {row}: its constant output is unsafe")
    return bool(active)


def acts(gates: Gates, row: int, lower: Ints, upper: Ints) -> bool:
    """Whether the gate of a row mends all of a closed box of inputs."""
    low, high = (end[row] for end in gates.box) if gates.box else (lower, upper)
    return all(map(le, low, lower)) and all(map(le, upper, high))


def ends_of(gates: Gates, tree: Tree, row: int) -> Iterator[tuple[int, list[Literal]]]:
    """Each way of a row through a tree of the guard: its number (0 lets pass), and what is known of outputs.

    y . column <= t is exact where the column takes one number, or the difference of two, but for flushing;
    that it is not so teaches nothing, as a number that is not finite makes it so.
    """
    waiting: list[tuple[int, list[Literal]]] = [(0, [])]
    while waiting:
        at, known = waiting.pop()
        dim, cut, left, right = tree[at]
        if dim < 0:
            yield left, known
        elif gates.knows_row and dim == 0:
            waiting.append((left if row * ONE <= cut else right, known))
        else:
            column = gates.columns[dim - gates.knows_row]
            waiting += [(left, known + learned(column, cut)), (right, known)]


def learned(column: Ints, cut: int) -> list[Literal]:
    """What y . column <= cut says of y in every execution; nothing where arithmetic might blur it."""
    used = sorted((sign, i) for i, sign in enumerate(column) if sign)
    signs = [sign for sign, _ in used]
    if signs == [-ONE, ONE] and cut <= -NORMAL:
        return [("order", used[0][1], used[1][1], True)]
    if len(signs) != 1 or abs(signs[0]) != ONE or abs(cut) < NORMAL:
        return []
    up = signs[0] > 0
    return [("Less" if up else "Greater", used[0][1], next_above(cut) if up else -next_above(cut))]


def satisfies(outputs: Ints, inequality: Inequality) -> bool:
    """Whether outputs in ticks satisfy an unsafe inequality."""
    terms, bound, strict = inequality
    total = sum((factor * outputs[index] for index, factor in terms), Fraction(0))
    return total < bound * ONE if strict else total <= bound * ONE


def contradicts(literal: Literal, inequality: Inequality) -> bool:
    """Whether every float32 vector for which the literal is true makes the inequality false."""
    (terms, bound, strict), (kind, i, *rest) = inequality, literal
    factors = dict(terms)
    if kind == "order":
        pair = len(terms) == 2 and factors.get(i, 0) > 0 and factors[i] == -factors.get(rest[0], 0)
        return pair and (bound <= 0 if strict or rest[1] else bound < 0)
    sign = 1 if kind == "Greater" else -1
    extreme = sign * next_above(sign * rest[0])  # the first number that the literal lets through
    if set(factors) != {i} or factors[i] * sign < 0:
        return False
    total = factors[i] * extreme
    return abs(extreme) > LARGEST or total > bound * ONE or (strict and total == bound * ONE)
