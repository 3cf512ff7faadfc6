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

MOST_NODES = 3_000_000
"""Cuts and cells of a partition: a box of n inputs takes 4 n, and each some 40 bytes of the file."""

FEW_INPUTS = 128
"""Up to so many, a tree tells a box from everything else."""

TELLING = 16
"""Inputs by which a coarse tree tells a box from other inputs: most are far from it in one of these."""

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

    def common(self, other: Box32) -> Box32:
        """The part that they share, which is not empty."""
        return Box32(np.maximum(self.low, other.low), np.minimum(self.high, other.high))


def everything(inputs: int) -> Box32:
    """All inputs."""
    return Box32(np.full(inputs, -np.inf), np.full(inputs, np.inf))


def box32(low: Float32[np.ndarray, " n"], high: Float32[np.ndarray, " n"]) -> Box32:
    """From float32 ends."""
    return Box32(low.astype(np.float64), high.astype(np.float64))


def partition(boxes: Sequence[Box32], inputs: int, *, coarse: bool = False) -> Tree[frozenset[int]]:
    """A tree whose cells are labelled with the boxes they lie in.

    Where `coarse`, a cell that meets a single box may be larger than it: only faces of TELLING inputs are
    cut, so that the tree grows with the number of boxes and not with that of inputs.
    Raises RepairError where it takes more than MOST_NODES cuts and cells.
    """
    nodes: list[Cut | Cell[frozenset[int]]] = []
    todo: list[tuple[Box32, tuple[int, ...], frozenset[int]]] = [
        (everything(inputs), tuple(range(len(boxes))), frozenset())
    ]
    usual = np.mean([_centre(box) for box in boxes], axis=0) if boxes else np.zeros(inputs)
    while todo:
        cell, near, inside = todo.pop()
        met = [i for i in near if boxes[i].meets(cell)]
        holding = frozenset(i for i in met if cell.within(boxes[i]))
        partial = tuple(i for i in met if i not in holding)
        inside |= holding
        if len(nodes) > MOST_NODES:
            raise RepairError(
                f"the {len(boxes):,} boxes of the properties take more than {MOST_NODES:,} cuts; "
                "repair fewer properties at once"
            )
        if not partial:
            nodes.append(Cell(inside))
            continue
        rough = coarse and not inside and _alike([boxes[i] for i in partial])
        if rough or len(partial) == 1:
            labels = (inside, inside | {*partial})
            nodes += _around(boxes[partial[0]], cell, usual, labels, TELLING if rough else inputs)
            continue
        dim, threshold = _face([boxes[i] for i in partial], cell)
        nodes.append(Cut(dim, threshold))
        left, right = parts(cell, dim, threshold)
        todo += [(right, partial, inside), (left, partial, inside)]
    return tuple(nodes)


def _alike(boxes: Sequence[Box32]) -> bool:
    """Whether they are one and the same."""
    return all(box.within(boxes[0]) and boxes[0].within(box) for box in boxes)


def _around(
    box: Box32,
    cell: Box32,
    usual: Float64[np.ndarray, " n"],
    labels: tuple[frozenset[int], frozenset[int]],
    most: int,
) -> Tree[frozenset[int]]:
    """One box cut out of a cell, face by face, first those where it is least like other boxes, of at most so
    many inputs; `labels` outside and inside of it."""
    outside, inside = Cell(labels[0]), Cell(labels[1])
    order = np.argsort(-abs(_centre(box) - usual), kind="stable")[:most]
    upper = [d for d in order.tolist() if box.high[d] < cell.high[d]]
    below = np.nextafter(box.low.astype(np.float32), np.float32(-np.inf)).astype(np.float64)
    nodes: list[Cut | Cell[frozenset[int]]] = []
    for dim in order.tolist():
        if box.high[dim] < cell.high[dim]:
            nodes.append(Cut(dim, float(box.high[dim])))
        if box.low[dim] > cell.low[dim]:
            nodes += [Cut(dim, float(below[dim])), outside]
    return (*nodes, inside, *[outside] * len(upper))


def _centre(box: Box32) -> Float64[np.ndarray, " n"]:
    """The middle of every side; zero where that is not finite."""
    with np.errstate(invalid="ignore"):
        middle = box.low / 2.0 + box.high / 2.0
    return np.where(np.isfinite(middle), middle, 0.0)


def parts(cell: Box32, dim: int, threshold: float) -> tuple[Box32, Box32]:
    """The two sides of a cut."""
    high, low = cell.high.copy(), cell.low.copy()
    high[dim] = threshold
    low[dim] = after(np.array([threshold]))[0]
    return Box32(cell.low, high), Box32(low, cell.high)


def _face(boxes: Sequence[Box32], cell: Box32) -> tuple[int, float]:
    """The face of a box, inside the cell, that cuts the fewest other boxes and divides the rest best."""
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


def boxes_of(tree: Tree[L], root: Box32) -> Iterator[tuple[Cell[L], Box32]]:
    """Every cell with its box, in preorder, where the whole tree covers `root`."""
    for node, low, high, _ in _walk(tree, root):
        if isinstance(node, Cell):
            yield node, Box32(low.copy(), high.copy())


def labelled(tree: Tree[L], root: Box32) -> Iterator[tuple[int, L, Box32]]:
    """The cells whose label is not empty: number among all cells, label, box."""
    number = 0
    for node, low, high, _ in _walk(tree, root):
        if isinstance(node, Cell):
            if node.label:
                yield number, node.label, Box32(low.copy(), high.copy())
            number += 1


def _walk(
    tree: Tree[L], root: Box32
) -> Iterator[tuple[Cut | Cell[L], Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], float]]:
    """Every node, the ends of its box (valid until the next node), and its threshold (0 for a cell)."""
    low, high = root.low.copy(), root.high.copy()
    path: list[tuple[int, float, float, float, bool]] = []
    for node in tree:
        if isinstance(node, Cut):
            dim, ends = node.dim, (float(low[node.dim]), float(high[node.dim]))
            cut = _threshold(node, *ends)
            yield node, low, high, cut
            path.append((dim, ends[0], cut, ends[1], False))
            high[dim] = cut
            continue
        yield node, low, high, 0.0
        while path and path[-1][4]:
            dim, low[dim], _, high[dim], _ = path.pop()
        if path:
            dim, first, cut, last, _ = path.pop()
            path.append((dim, first, cut, last, True))
            low[dim], high[dim] = np.nextafter(np.float32(cut), np.float32(np.inf)), last


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


def thinned(tree: Tree[bool], worth: float) -> Tree[bool]:
    """The tree with subtrees made one False cell where they prove less than `worth` of what they look at.

    The root's volume is 1 and every cut halves; of all ways to drop subtrees this is the one that makes
    (volume of True cells) - worth * (volumes of all cuts that do not have True cells alone) largest.
    """
    stack: list[tuple[Tree[bool], bool, float]] = []
    for node, at in zip(reversed(tree), reversed(_depths(tree)), strict=True):
        volume = 0.5**at
        if isinstance(node, Cell):
            stack.append(((node,), node.label, volume if node.label else 0.0))
            continue
        (left, all_left, gain_left), (right, all_right, gain_right) = stack.pop(), stack.pop()
        whole = all_left and all_right
        gain = volume if whole else gain_left + gain_right - worth * volume
        kept = (node, *left, *right) if gain > 0.0 else (Cell(False),)
        stack.append((kept, whole, max(0.0, gain)))
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
    return tuple(
        Cut(node.dim, cut) if isinstance(node, Cut) else node for node, _, _, cut in _walk(tree, root)
    )


def _threshold(cut: Cut, low: float, high: float) -> float:
    if cut.threshold is not None:
        return cut.threshold
    return float(midpoint(np.array([low]), np.array([high]))[0])


def cells(tree: Tree[L]) -> tuple[L, ...]:
    """The labels of all cells, in preorder."""
    return tuple(node.label for node in tree if isinstance(node, Cell))
