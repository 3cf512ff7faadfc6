"""The safe outputs of a region: clauses, each an OR of linear inequalities, all of which must hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Float64
from scipy.optimize import linprog

from sutura.errors import RepairError
from sutura.property.spec import Conjunction, Inequality

LARGEST_NUMBER = Fraction(10) ** 300

MOST_ALTERNATIVES = 4096
FLAT = 1e-6
MOST_PROGRAMS = 256
"""Convex pieces that are searched for a safe constant, the nearest first."""


@dataclass(frozen=True, slots=True)
class Literal:
    """sum of coefficient * Y_index > bound (>= where not `strict`): the negation of an unsafe inequality."""

    terms: tuple[tuple[int, Fraction], ...]
    bound: Fraction
    strict: bool

    def holds(self, outputs: Float32[np.ndarray, " n"]) -> bool:
        """Decide it exactly."""
        opposite = Inequality(self.terms, self.bound, strict=not self.strict)
        return all(np.isfinite(outputs[i]) for i, _ in self.terms) and not opposite.holds(outputs)

    def row(self, outputs: int) -> Float64[np.ndarray, " n"]:
        """The coefficients as a vector."""
        row = np.zeros(outputs)
        for index, coefficient in self.terms:
            row[index] = float(coefficient)
        return row


Clause = tuple[Literal, ...]
SafeSet = tuple[Clause, ...]
Alternative = frozenset[Literal]
"""Literals that together make every clause true: one convex piece of the safe set."""


def safe_set(unsafe: Iterable[Conjunction]) -> SafeSet:
    """The clauses that exclude every unsafe conjunction, without duplicates.

    A conjunction without inequalities calls every output unsafe: it gives the empty clause, never true.
    """
    clauses: dict[frozenset[Literal], Clause] = {}
    for conjunction in unsafe:
        clause = tuple(normal(Literal(i.terms, i.bound, not i.strict)) for i in conjunction)
        clauses.setdefault(frozenset(clause), clause)
    return tuple(clauses.values())


def normal(literal: Literal) -> Literal:
    """The same literal with a first coefficient of +1 or -1, so that equal demands compare equal.

    Raises RepairError where that gives a number that float64 cannot hold.
    """
    if not literal.terms:
        return literal
    scale = abs(literal.terms[0][1])
    terms = tuple((i, c / scale) for i, c in literal.terms)
    if max(abs(literal.bound / scale), *(abs(c) for _, c in terms)) > LARGEST_NUMBER:
        raise RepairError(
            f"a bound or a coefficient of output Y_{terms[0][0]} is beyond 1e300, once the inequality is "
            "scaled to a first coefficient of one; no float32 output comes near it"
        )
    return Literal(terms, literal.bound / scale, literal.strict)


def alternatives(safe: SafeSet) -> tuple[Alternative, ...]:
    """The convex pieces whose union is the safe set: minimal sets of literals that hit every clause.

    Raises RepairError beyond MOST_ALTERNATIVES of them.
    """
    pieces: list[Alternative] = [frozenset()]
    for clause in sorted(safe, key=len):
        grown = dict.fromkeys(
            piece if not piece.isdisjoint(clause) else piece | {literal}
            for piece in pieces
            for literal in clause
        )
        pieces = _minimal(list(grown))
        if len(pieces) > MOST_ALTERNATIVES:
            raise RepairError(
                f"the safe outputs fall into more than {MOST_ALTERNATIVES:,} convex pieces; "
                "repair fewer properties at once"
            )
    return tuple(pieces)


def _minimal(pieces: Sequence[Alternative]) -> list[Alternative]:
    ordered = sorted(pieces, key=len)
    kept: list[Alternative] = []
    for piece in ordered:
        if not any(other <= piece for other in kept):
            kept.append(piece)
    return kept


def flat(piece: Alternative, outputs: int) -> bool:
    """Whether a piece is not empty but has no inside, such as Y_0 = 1 (an estimate by linear programming)."""
    rows, bounds = _unit_rows(tuple(piece), outputs)
    if np.linalg.matrix_rank(rows) == len(rows):
        return False
    scale = float(abs(bounds).max(initial=0.0)) or 1.0
    ball = _largest_ball(rows, bounds / scale, 1.0)
    return ball is not None and ball[-1] < FLAT


def _unit_rows(
    piece: Sequence[Literal], outputs: int
) -> tuple[Float64[np.ndarray, "k n"], Float64[np.ndarray, " k"]]:
    """rows @ y >= bounds, each row of length one."""
    rows = np.array([literal.row(outputs) for literal in piece]).reshape(len(piece), outputs)
    length = np.linalg.norm(rows, axis=1)
    return rows / length[:, None], np.array([float(literal.bound) for literal in piece]) / length


def inner_point(safe: SafeSet, near: Float64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"] | None:
    """A safe float32 output with room around it, as near to `near` as that allows; None where there is none.

    The result satisfies the set exactly (rational arithmetic); that none was found is an estimate by linear
    programming over outputs of magnitude up to 1e6 times those of `near` and of the bounds.
    """
    best: tuple[float, Float32[np.ndarray, " n"]] | None = None
    pieces = sorted(alternatives(safe), key=lambda piece: shortfall(piece, near))[:MOST_PROGRAMS]
    for piece in pieces:
        point = _inner_point(tuple(piece), near)
        if point is not None:
            distance = float(np.linalg.norm(point - near))
            if best is None or distance < best[0]:
                best = (distance, point)
    return None if best is None else best[1]


def shortfall(piece: Alternative, near: Float64[np.ndarray, " n"]) -> float:
    """How far a point is from satisfying each literal, added up."""
    return sum(max(0.0, float(x.bound) - float(x.row(len(near)) @ near)) for x in piece)


def _inner_point(
    piece: Sequence[Literal], near: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"] | None:
    """In units of the numbers at hand, since the linear programs have absolute tolerances."""
    rows, bounds = _unit_rows(piece, len(near))
    scale = max(float(abs(near).max(initial=0.0)), float(abs(bounds).max(initial=0.0))) or 1.0
    for share in (1e-2, 1e-4, 1e-6, 0.0, None):
        if share is None:
            found = _deepest(rows, bounds / scale, 1e6)
        else:
            found = _nearest(rows, bounds / scale + share, near / scale)
        with np.errstate(over="ignore"):
            point = None if found is None else (scale * found).astype(np.float32)
        if point is not None and all(literal.holds(point) for literal in piece):
            return point
    return None


def _nearest(
    rows: Float64[np.ndarray, "k n"], bounds: Float64[np.ndarray, " k"], near: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"] | None:
    """Least sum of absolute changes (a linear program) with rows @ z >= bounds."""
    n = len(near)
    cost = np.concatenate([np.zeros(n), np.ones(n)])
    eye = np.eye(n)
    above = np.block([[-rows, np.zeros((len(rows), n))], [eye, -eye], [-eye, -eye]])
    limit = np.concatenate([-bounds, near, -near])
    found = linprog(cost, A_ub=above, b_ub=limit, bounds=[(None, None)] * n + [(0, None)] * n, method="highs")
    return found.x[:n] if found.status == 0 else None


def _deepest(
    rows: Float64[np.ndarray, "k n"], bounds: Float64[np.ndarray, " k"], reach: float
) -> Float64[np.ndarray, " n"] | None:
    """The centre of the largest ball (up to `reach`) in the piece, whose rows have length one."""
    ball = _largest_ball(rows, bounds, reach)
    return None if ball is None else ball[:-1]


def _largest_ball(
    rows: Float64[np.ndarray, "k n"], bounds: Float64[np.ndarray, " k"], reach: float
) -> Float64[np.ndarray, " n+1"] | None:
    """Centre and radius."""
    n = rows.shape[1]
    above = np.hstack([-rows, np.ones((len(rows), 1))])
    box = [(-reach, reach)] * n + [(0, reach)]
    found = linprog(np.r_[np.zeros(n), -1.0], A_ub=above, b_ub=-bounds, bounds=box, method="highs")
    return found.x if found.status == 0 else None
