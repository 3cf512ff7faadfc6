"""Branch and bound that covers a box: what it proves, and what stays open when the budget is spent."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64

from sutura.bounds.crown import Enclosure, join
from sutura.bounds.program import Program
from sutura.bounds.region import Region, halves
from sutura.gates.cells import Box32, Cell, Cut, Tree
from sutura.progress import Listener, Progress
from sutura.verdict.deadline import Deadline, OutOfTimeError
from sutura.verdict.goal import Goal
from sutura.verdict.step import UNCUTTABLE, Step, step

CHUNK = 64
"""Boxes bounded together: fixed, so that a tree does not depend on the number of workers."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Most boxes to bound, and when to stop whatever happens."""

    boxes: int
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Covered:
    """A tree over the box (midpoint cuts) with cells that say whether they are proved, and boxes bounded."""

    tree: Tree[bool]
    boxes: int


def cover(program: Program, aim: Goal, box: Box32, budget: Budget, run: tuple[Executor, Listener]) -> Covered:
    """Prove what can be proved, level by level. Each proved cell is sound for every float32 execution.

    Depends on the budget of boxes but not on the number of workers. Stops early at the deadline.
    """
    proved: set[int] = set()
    level = Region(box.low[None], box.high[None])
    known: Enclosure | None = None
    names = np.zeros(1, dtype=np.int64)
    nodes, spent = 1, 0
    children: dict[int, tuple[int, int, int]] = {}
    while len(level) and spent + len(level) <= budget.boxes:
        try:
            done = _bound(program, aim, (level, known), budget.deadline, run[0])
        except OutOfTimeError:
            break
        spent += len(level)
        proved |= set(names[done.safe].tolist())
        rows = _worth_cutting(done, budget.boxes - spent)
        left, right = halves(level.take(rows), done.cut[rows])
        born = nodes + np.arange(2 * len(rows)).reshape(2, -1)
        for name, dim, one, other in zip(
            names[rows].tolist(), done.cut[rows].tolist(), *born.tolist(), strict=True
        ):
            children[name] = (dim, one, other)
        nodes += 2 * len(rows)
        level = Region(np.concatenate([left.low, right.low]), np.concatenate([left.high, right.high]))
        known = done.enclosure.take(np.concatenate([rows, rows]))
        names = born.reshape(-1)
        run[1](Progress("cover", spent, len(level), len(proved) / max(1, nodes)))
    return Covered(_preorder(children, proved), spent)


def _bound(
    program: Program, aim: Goal, level: tuple[Region, Enclosure | None], deadline: Deadline, pool: Executor
) -> Step:
    region, known = level
    chunks = [np.arange(i, min(i + CHUNK, len(region))) for i in range(0, len(region), CHUNK)]

    def bound(part: Region, before: Enclosure | None) -> Step:
        deadline.check()
        found = step(program, aim, part, before, deadline.check)
        if before is None:
            return found
        return replace(found, safe=_confirmed(program, aim, part, found, deadline))

    befores = [None if known is None else known.take(rows) for rows in chunks]
    steps = list(pool.map(bound, [region.take(rows) for rows in chunks], befores))
    return Step(
        np.concatenate([s.safe for s in steps]),
        np.concatenate([s.promise for s in steps]),
        np.concatenate([s.margin for s in steps]),
        np.concatenate([s.corner for s in steps]),
        join([s.enclosure for s in steps]),
    )


def _confirmed(
    program: Program, aim: Goal, region: Region, found: Step, deadline: Deadline
) -> Bool[np.ndarray, " batch"]:
    """What is safe from the box alone: a checker knows no bounds of the boxes that it was cut from."""
    rows = np.flatnonzero(found.safe)
    safe = np.zeros(len(region), dtype=bool)
    if len(rows):
        safe[rows] = step(program, aim, region.take(rows), None, deadline.check).safe
    return safe


def _worth_cutting(done: Step, budget: int) -> Int64[np.ndarray, " k"]:
    """Open boxes to halve, those nearest to a proof first where not all can be."""
    rows = np.flatnonzero(~done.safe & (done.cut != UNCUTTABLE))
    most = max(0, budget // 2)
    if len(rows) > most:
        rows = np.sort(rows[np.argsort(-done.margin[rows], kind="stable")][:most])
    return rows


def _preorder(children: dict[int, tuple[int, int, int]], proved: set[int]) -> Tree[bool]:
    nodes: list[Cut | Cell[bool]] = []
    todo = [0]
    while todo:
        name = todo.pop()
        if name in children:
            dim, one, other = children[name]
            nodes.append(Cut(dim))
            todo += [other, one]
        else:
            nodes.append(Cell(name in proved))
    return tuple(nodes)
