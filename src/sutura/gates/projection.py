"""Candidates for the nearest safe output: the foot of the perpendicular on every face of every convex piece.

The nearest point of a polyhedron is the projection on the affine hull of one of its faces, so the nearest
candidate that is safe is the exact Euclidean projection, up to a margin of a few float32 roundings kept from
the border.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float32, Float64, Int64

from sutura.gates.literals import kind
from sutura.gates.pieces import needed
from sutura.gates.safe_set import Alternative, Literal, SafeSet, alternatives, flat

MOST_FACES = 192
LARGEST_FACE = 4
MARGIN = 2.0**-20
"""Distance kept from the border of the safe set, relative to the largest output: covers roundings.

General sums keep more, as their comparison has a slack of its own that grows with the number of outputs.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Candidate k is y @ weights[k] + max|y| * growth[k] + offset[k]."""

    weights: Float32[np.ndarray, "k n n"]
    growth: Float32[np.ndarray, "k n"]
    offset: Float32[np.ndarray, "k n"]


@dataclass(frozen=True, slots=True, eq=False)
class Star:
    """One output `leader` must be greater than all `rivals` (less where `least`): solved by water filling."""

    leader: int
    rivals: Int64[np.ndarray, " k"]
    least: bool
    outputs: int


@dataclass(frozen=True, slots=True)
class Projection:
    """How an output gets into the safe set. `exact`: the nearest point is always among the candidates.
    `served`: of each row from 1 on, the stars that are of use to it."""

    faces: Faces | None
    stars: tuple[Star, ...]
    exact: bool
    served: tuple[tuple[Star, ...], ...] = ()


def projection(sets: Sequence[SafeSet | None], outputs: int) -> Projection:
    """Candidates that serve the safe sets of all rows (each picks among them what is safe for it); None is
    for a row without one."""
    parts = {safe: needed(alternatives(safe)) for safe in dict.fromkeys(sets) if safe is not None}
    pieces = list(dict.fromkeys(piece for safe in parts for piece in parts[safe]))
    stars = {
        piece: star
        for piece in pieces
        if len(piece) > LARGEST_FACE and (star := _star(piece, outputs)) is not None
    }
    rest = [piece for piece in pieces if piece not in stars]
    subsets, complete = _subsets(rest)
    faces = [face for subset in subsets if (face := _face(subset, outputs)) is not None]
    stacked = (
        Faces(*(np.stack(part).astype(np.float32) for part in zip(*faces, strict=True))) if faces else None
    )
    exact = complete and not any(flat(piece, outputs) for piece in pieces)
    served = tuple(
        tuple(stars[piece] for piece in (parts[safe] if safe is not None else ()) if piece in stars)
        for safe in sets
    )
    return Projection(stacked, tuple(stars.values()), exact, served)


def _star(piece: Alternative, outputs: int) -> Star | None:
    pairs = []
    for literal in piece:
        coefficients = [c for _, c in literal.terms]
        if len(coefficients) != 2 or sum(coefficients) != 0 or literal.bound != 0:
            return None
        (first, c), (second, _) = literal.terms
        pairs.append((first, second) if c > 0 else (second, first))
    for least in (False, True):
        leaders = {pair[least] for pair in pairs}
        if len(leaders) == 1:
            rivals = sorted({pair[not least] for pair in pairs})
            return Star(leaders.pop(), np.array(rivals, dtype=np.int64), least, outputs)
    return None


def _subsets(pieces: Sequence[Alternative]) -> tuple[list[tuple[Literal, ...]], bool]:
    """All faces of the pieces, smallest first, and whether none was left out."""
    found: dict[frozenset[Literal], tuple[Literal, ...]] = {}
    complete = True
    for subset in _by_size(pieces):
        if frozenset(subset) in found:
            continue
        if len(found) >= MOST_FACES:
            complete = False
            break
        found[frozenset(subset)] = subset
    return list(found.values()), complete and all(len(p) <= LARGEST_FACE for p in pieces)


def _by_size(pieces: Sequence[Alternative]) -> Iterator[tuple[Literal, ...]]:
    largest = max((len(piece) for piece in pieces), default=0)
    for piece in pieces:
        if len(piece) > LARGEST_FACE:
            yield tuple(piece)
    for size in range(1, min(largest, LARGEST_FACE) + 1):
        for piece in pieces:
            yield from combinations(sorted(piece, key=repr), size)


def _face(
    literals: Sequence[Literal], outputs: int
) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]] | None:
    """z = y + A^T (A A^T)^-1 (b + margin - A y), nearest with A z = b + margin. None where rows depend."""
    rows = np.array([literal.row(outputs) for literal in literals])
    bounds = np.array([float(literal.bound) for literal in literals])
    gram = rows @ rows.T
    if np.linalg.cond(gram) > 1e8:
        return None
    back = rows.T @ np.linalg.inv(gram)
    reach = abs(rows).sum(axis=1)
    margin = np.array([MARGIN * (outputs + 4 if kind(literal) == "linear" else 1) for literal in literals])
    weights = np.eye(outputs) - back @ rows
    weights[abs(weights) < 1e-12] = 0.0
    return weights.T, back @ (margin * reach), back @ (bounds + margin * abs(bounds) + 1e-30)
