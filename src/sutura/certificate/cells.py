"""The walk over the leaves of the proof tree, with the dispatch tree carried along.

At each leaf, and for each case whose box meets the leaf's cell, the rows that inputs in both can reach are
collected. Cells partition the whole input space, so every input of every case lies in the cell of one leaf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sutura.certificate.dispatch import Dispatch
from sutura.certificate.errors import CertificateError
from sutura.certificate.tree import Node, Split, midpoint, next_above
from sutura.certificate.vnnlib import Case


@dataclass(frozen=True, slots=True)
class Duty:
    """In the closed float32 box, the rows that serve it must be safe in one case."""

    case: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Turn:
    """A split whose left side is being walked: what to restore on the way back, and its place."""

    dim: int
    low: float
    cut: float
    high: float
    live: tuple[int, ...]
    serving: int
    right: bool


def leaves(
    nodes: Sequence[Node], inputs: int, cases: Sequence[Case], dispatch: Dispatch
) -> Iterator[tuple[Duty, ...]]:
    """The duties of each leaf, in preorder; CertificateError where a split does not divide its cell.

    `nodes` is a whole tree, as `tree.decode` gives it.
    """
    lower, upper = [-math.inf] * inputs, [math.inf] * inputs
    live, serving = tuple(range(len(cases))), dispatch.descend(0, lower, upper)
    path: list[_Turn] = []
    for number, node in enumerate(nodes):
        if isinstance(node, Split):
            cut = _cut(node, number, lower, upper)
            turn = _Turn(node.dim, lower[node.dim], cut, upper[node.dim], live, serving, False)
            path.append(turn)
            upper[node.dim] = cut
            live = tuple(case for case in live if cases[case].lower[node.dim] <= cut)
            serving = dispatch.descend(serving, lower, upper)
            continue
        yield tuple(_duties(cases, live, (lower, upper), dispatch, serving))
        while path and path[-1].right:
            turn = path.pop()
            lower[turn.dim], upper[turn.dim] = turn.low, turn.high
        if path:
            turn = path.pop()
            start = next_above(turn.cut)
            path.append(_Turn(turn.dim, turn.low, turn.cut, turn.high, turn.live, turn.serving, True))
            lower[turn.dim], upper[turn.dim] = start, turn.high
            live = tuple(case for case in turn.live if cases[case].upper[turn.dim] >= start)
            serving = dispatch.descend(turn.serving, lower, upper)


def _cut(split: Split, number: int, lower: Sequence[float], upper: Sequence[float]) -> float:
    dim = split.dim
    if dim >= len(lower):
        raise CertificateError(f"node {number} of the proof tree splits input {dim} of {len(lower)}")
    low, high = lower[dim], upper[dim]
    cut = midpoint(low, high) if split.threshold is None else split.threshold
    if not low <= cut < high:
        raise CertificateError(
            f"node {number} of the proof tree splits input {dim} at {cut}, outside of [{low}, {high})"
        )
    return cut


def _duties(
    cases: Sequence[Case],
    live: tuple[int, ...],
    cell: tuple[Sequence[float], Sequence[float]],
    dispatch: Dispatch,
    serving: int,
) -> Iterator[Duty]:
    for case in live:
        lower = tuple(map(max, cell[0], cases[case].lower))
        upper = tuple(map(min, cell[1], cases[case].upper))
        yield Duty(case, lower, upper, dispatch.rows(serving, lower, upper))
