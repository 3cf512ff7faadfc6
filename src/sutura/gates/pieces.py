"""The convex pieces of a safe set that are needed: some lie in the union of the others.

Where literals compare outputs with each other or with constants, what is safe depends on the order of these
few numbers alone, and all orders can be looked through. "Y_0 or Y_1 is below Y_2, and Y_0 or Y_1 is below
Y_3" makes four pieces, of which the two with a single leader hold all orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Int64

from sutura.gates.literals import kind
from sutura.gates.safe_set import Alternative, Literal

MOST_NUMBERS = 7
"""Outputs and constants whose orders are looked through: 7! = 5,040."""

Number = tuple[str, int | float]
"""("output", its index), or ("constant", its value)."""


def needed(pieces: Sequence[Alternative]) -> tuple[Alternative, ...]:
    """Pieces with the same union, but for borders, without those that the others cover.

    All of them where some literal is a sum, or where more than MOST_NUMBERS are compared.
    """
    compared = {x: _compared(x) for piece in pieces for x in piece}
    numbers = sorted({number for pair in compared.values() if pair for number in pair})
    if None in compared.values() or len(numbers) > MOST_NUMBERS:
        return tuple(pieces)
    rank = _orders(numbers)
    at = {number: place for place, number in enumerate(numbers)}
    holds = {x: rank[:, at[pair[0]]] < rank[:, at[pair[1]]] for x, pair in compared.items() if pair}
    every = np.ones(len(rank), dtype=bool)
    orders = [np.logical_and.reduce([every, *(holds[x] for x in piece)]) for piece in pieces]
    # Without an order it holds ties alone, and where it asks for strict ones nothing at all.
    full = [at for at, own in enumerate(orders) if own.any() or not all(x.strict for x in pieces[at])]
    kept = _not_covered([orders[at] for at in full])
    return tuple(pieces[full[place]] for place in kept)


def _not_covered(orders: Sequence[Bool[np.ndarray, " orders"]]) -> list[int]:
    """Pieces are let go one by one, those of fewest orders first. One without any order, such as Y_0 = Y_1,
    stays."""
    count = np.sum(orders, axis=0)
    kept = set(range(len(orders)))
    for place in sorted(kept, key=lambda place: int(orders[place].sum())):
        own = orders[place]
        if own.any() and (count[own] > 1).all():
            kept.remove(place)
            count = count - own
    return sorted(kept)


def _compared(literal: Literal) -> tuple[Number, Number] | None:
    """The smaller and the larger number of a comparison; None for a sum."""
    if kind(literal) == "linear":
        return None
    (first, c), *rest = literal.terms
    other: Number = ("output", rest[0][0]) if rest else ("constant", float(literal.bound / c))
    return (other, ("output", first)) if c > 0 else (("output", first), other)


def _orders(numbers: Sequence[Number]) -> Int64[np.ndarray, "orders numbers"]:
    """The ranks of the numbers in every order without ties that leaves constants in theirs."""
    rank = np.array(list(permutations(range(len(numbers)))), dtype=np.int64)
    fixed = [place for place, (sort, _) in enumerate(numbers) if sort == "constant"]
    return rank[(np.diff(rank[:, fixed], axis=1) > 0).all(axis=1)]
