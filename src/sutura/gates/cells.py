"""Cut the input space into cells, each inside or outside every one of a set of boxes.

A tree is a tuple of nodes in preorder: Cut (left child first) or Cell. Left is x[dim] <= threshold, right
is above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float32, Float64

from sutura.bounds.region import after, midpoint
from sutura.errors import RepairError

L = TypeVar("L")
M = TypeVar("M")

MOST_CELLS = 200_000
COMPARED_FACES = 256


@dataclass(frozen=True, slots=True)
class Cut:
    """Splits a cell at a float32 threshold; None is the midpoint of the cell's side."""

    dim: int
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Cell(Generic[L]):
    """A leaf with what holds there."""

    label: L


Tree = tuple[Cut | Cell[L], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Box32:
    """A closed box of float32 numbers, held in float64; ends may be infinite."""

    low: Float64[np.ndarray, " n"]
    high: Float64[np.ndarray, " n"]

    def meets(self, other: Box32) -> bool:
        """Whether they share a point."""
        return bool(np.all(np.maximum(self.low, other.low) <= np.minimum(self.high, other.high)))

    def within(self, other: Box32) -> bool:
        """Whether it is part of the other."""
        return bool(np.all(self.low >= other.low) and np.all(self.high <= other.high))


def everything(inputs: int) -> Box32:
    """All inputs."""
    return Box32(np.full(inputs, -np.inf), np.full(inputs, np.inf))


def box32(low: Float32[np.ndarray, " n"], high: Float32[np.ndarray, " n"]) -> Box32:
    """From float32 ends."""
    return Box32(low.astype(np.float64), high.astype(np.float64))


def partition(boxes: Sequence[Box32], inputs: int) -> Tree[frozenset[int]]:
    """A tree whose cells are labelled with the boxes they lie in.

    Raises RepairError where the boxes overlap in more than MOST_CELLS ways.
    """
    nodes: list[Cut | Cell[frozenset[int]]] = []
    todo: list[tuple[Box32, tuple[int, ...], frozenset[int]]] = [
        (everything(inputs), tuple(range(len(boxes))), frozenset())
    ]
    while todo:
        cell, near, inside = todo.pop()
        met = [i for i in near if boxes[i].meets(cell)]
        holding = frozenset(i for i in met if cell.within(boxes[i]))
        partial = tuple(i for i in met if i not in holding)
        if not partial:
            nodes.append(Cell(inside | holding))
            continue
        if len(nodes) > MOST_CELLS:
            raise RepairError(
                f"the {len(boxes)} boxes of the properties overlap in more than {MOST_CELLS:,} ways; "
                "repair fewer properties at once"
            )
        dim, threshold = _face([boxes[i] for i in partial], cell)
        nodes.append(Cut(dim, threshold))
        left, right = parts(cell, dim, threshold)
        todo += [(right, partial, inside | holding), (left, partial, inside | holding)]
    return tuple(nodes)


def parts(cell: Box32, dim: int, threshold: float) -> tuple[Box32, Box32]:
    """The two sides of a cut."""
    high, low = cell.high.copy(), cell.low.copy()
    high[dim] = threshold
    low[dim] = after(np.array([threshold]))[0]
    return Box32(cell.low, high), Box32(low, cell.high)


def _face(boxes: Sequence[Box32], cell: Box32) -> tuple[int, float]:
    """The face of a box, inside the cell, that cuts the fewest other boxes and divides the rest best."""
    if len(boxes) == 1:
        return _first_face(boxes[0], cell)
    low, high = np.stack([b.low for b in boxes]), np.stack([b.high for b in boxes])
    above, below = np.nonzero(high < cell.high), np.nonzero(low > cell.low)
    before = np.nextafter(low[below].astype(np.float32), np.float32(-np.inf)).astype(np.float64)
    dims, ends = np.concatenate([above[1], below[1]]), np.concatenate([high[above], before])
    some = slice(None, None, max(1, len(dims) // COMPARED_FACES))
    dims, ends = dims[some], ends[some]
    left, right = low[:, dims] <= ends, high[:, dims] > ends
    cut, uneven = (left & right).sum(axis=0), abs(left.sum(axis=0) - right.sum(axis=0))
    best = np.lexsort((uneven, cut))[0]
    return int(dims[best]), float(ends[best])


def _first_face(box: Box32, cell: Box32) -> tuple[int, float]:
    for dim in np.flatnonzero(box.high < cell.high)[:1]:
        return int(dim), float(box.high[dim])
    dim = int(np.flatnonzero(box.low > cell.low)[0])
    return dim, float(np.nextafter(np.float32(box.low[dim]), np.float32(-np.inf)))


def boxes_of(tree: Tree[L], root: Box32) -> Iterator[tuple[Cell[L], Box32]]:
    """Every cell with its box, in preorder, where the whole tree covers `root`."""
    todo = [root]
    for node in tree:
        box = todo.pop()
        if isinstance(node, Cell):
            yield node, box
            continue
        left, right = parts(box, node.dim, _threshold(node, box))
        todo += [right, left]


def graft(tree: Tree[L], grow: Callable[[int, L], Tree[M]]) -> Tree[M]:
    """The tree with each cell replaced by the subtree that `grow` gives for its number and label."""
    nodes: list[Cut | Cell[M]] = []
    number = 0
    for node in tree:
        if isinstance(node, Cell):
            nodes += grow(number, node.label)
            number += 1
        else:
            nodes.append(node)
    return tuple(nodes)


def merged(tree: Tree[L], same: Callable[[L, L], bool]) -> Tree[L]:
    """The tree with sibling cells joined, from the bottom up, wherever `same` holds of their labels."""
    stack: list[tuple[Cut | Cell[L], ...]] = []
    for node in reversed(tree):
        if isinstance(node, Cell):
            stack.append((node,))
            continue
        left, right = stack.pop(), stack.pop()
        first, second = left[0], right[0]
        if isinstance(first, Cell) and isinstance(second, Cell) and same(first.label, second.label):
            stack.append(left)
        else:
            stack.append((node, *left, *right))
    return stack[0]


def pruned(tree: Tree[bool], depth: int) -> Tree[bool]:
    """The tree with each subtree below so many cuts made one False cell, unless all of its cells are True."""
    stack: list[tuple[Tree[bool], bool]] = []
    for node, at in zip(reversed(tree), reversed(_depths(tree)), strict=True):
        if isinstance(node, Cell):
            stack.append(((node,), node.label))
            continue
        (left, all_left), (right, all_right) = stack.pop(), stack.pop()
        whole = all_left and all_right
        stack.append((((Cell(False),) if at >= depth and not whole else (node, *left, *right)), whole))
    return stack[0][0]


def _depths(tree: Tree[L]) -> list[int]:
    """How many cuts are above each node."""
    todo, found = [0], list[int]()
    for node in tree:
        found.append(todo.pop())
        if not isinstance(node, Cell):
            todo += [found[-1] + 1] * 2
    return found


def explicit(tree: Tree[L], root: Box32) -> Tree[L]:
    """The same tree with every midpoint written out as a threshold."""
    todo = [root]
    nodes: list[Cut | Cell[L]] = []
    for node in tree:
        box = todo.pop()
        if isinstance(node, Cut):
            threshold = _threshold(node, box)
            left, right = parts(box, node.dim, threshold)
            todo += [right, left]
            nodes.append(Cut(node.dim, threshold))
        else:
            nodes.append(node)
    return tuple(nodes)


def _threshold(cut: Cut, box: Box32) -> float:
    if cut.threshold is not None:
        return cut.threshold
    return float(midpoint(box.low[[cut.dim]], box.high[[cut.dim]])[0])


def cells(tree: Tree[L]) -> tuple[L, ...]:
    """The labels of all cells, in preorder."""
    return tuple(node.label for node in tree if isinstance(node, Cell))
