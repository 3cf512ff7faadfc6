"""The guard of the output gate: trees over comparisons of outputs say which samples may leave as they are.

A comparison is a column c of zeros, ones and minus ones, at most two of them not zero; y . c is one exact
number, or the difference of two, which rounding leaves with its sign unless it is flushed to zero. So what a
tree learns from y . c <= t is exact, whatever the order of summation, and that it is not so teaches nothing:
a number that is not finite makes it so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sutura.certificate.clauses import Above, Below, Literal, Order, contradicts
from sutura.certificate.dispatch import Dispatch
from sutura.certificate.float32 import next_below
from sutura.certificate.tree import next_above
from sutura.certificate.vnnlib import Inequality
from sutura.certificate.wire import Array


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """A sample passes where all trees give 0. Feature i is y . columns[:, i]; where `knows_row`, feature 0 is
    the row, and the comparisons follow.
    """

    trees: tuple[Dispatch, ...]
    columns: Array
    knows_row: bool

    def excludes(self, row: int, conjunction: Sequence[Inequality]) -> bool:
        """Whether no output that passes in a row satisfies all inequalities."""
        return any(
            all(any(contradicts(x, i) for x in literals for i in conjunction) for literals in ways)
            for ways in (
                [known for number, known in self.ends(tree, row) if not number] for tree in self.trees
            )
        )

    def may_mend(self, row: int) -> bool:
        """Whether some way of a row through a tree ends in another number than 0."""
        return any(number for tree in self.trees for number, _ in self.ends(tree, row))

    def ends(self, tree: Dispatch, row: int) -> Iterator[tuple[int, tuple[Literal, ...]]]:
        """The number that each way of a row through a tree ends in, and the literals that are true on it."""
        waiting: list[tuple[int, tuple[Literal, ...]]] = [(0, ())]
        while waiting:
            at, known = waiting.pop()
            dim, threshold = tree.dim[at], tree.threshold[at]
            if dim < 0:
                yield int(tree.left[at]), known
            elif self.knows_row and dim == 0:
                waiting.append((tree.left[at] if row <= threshold else tree.right[at], known))
            else:
                literal = comparison(self.columns[:, dim - self.knows_row], threshold)
                more = known if literal is None else (*known, literal)
                waiting += [(tree.left[at], more), (tree.right[at], known)]


def comparison(column: Array, threshold: float) -> Literal | None:
    """What y . column <= threshold says of y, in every float32 execution; None where that is not known.

    Arithmetic may flush numbers below 2^-126 in size to zero, and so may comparisons of what it computed: a
    threshold of that size says nothing.
    """
    entries = np.flatnonzero(column)
    signs = [float(column[i]) for i in entries]
    if sorted(signs) == [-1.0, 1.0] and threshold <= -SMALLEST:
        high, low = (int(entries[signs.index(sign)]) for sign in (-1.0, 1.0))
        return Order(high, low, strict=True)
    if len(signs) != 1 or abs(threshold) < SMALLEST:
        return None
    if signs == [1.0]:
        return Below(int(entries[0]), next_above(threshold))
    return Above(int(entries[0]), next_below(-threshold)) if signs == [-1.0] else None


SMALLEST = 2.0**-126
