"""The guard: a few comparisons, in tree operators, that tell which samples may leave as they are.

A comparison of outputs is a difference that is exact in sign, so that a tree can put it to a threshold. What
the guard lets through is safe; what it holds back is tested again, exactly, where it is mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from sutura.gates.cells import Cell, Cut, Tree
from sutura.gates.dispatch import tree_node
from sutura.gates.gate import Gate, OutputGate
from sutura.gates.literals import Comparisons
from sutura.gates.onnx_part import Part, node, tensor
from sutura.gates.safe_set import Clause, Literal

SMALLEST = float(np.finfo(np.float32).tiny)
"""Differences nearer to zero than the smallest normal number may be flushed to it: they do not count."""


def guard(y: str, gates: Sequence[Gate], clauses: Sequence[Clause], literals: Comparisons, n: int) -> Part:
    """`sutura.any_failing`: whether a sample in a gated region fails the clauses of its row. Of each sample,
    `sutura.failing` is above zero if it does, and then so is its product with `sutura.leaf`.
    """
    columns, cuts = _columns(literals, n)
    several = by_row(gates)
    places = {literal: Cut(at + several, threshold) for literal, (at, threshold) in cuts.items()}
    trees = _trees(gates, clauses, places, several)
    reads, joined = "sutura.gaps", ()
    if several:
        reads, joined = (
            "sutura.features",
            (node("Concat", ["sutura.leaf", "sutura.gaps"], "sutura.features", axis=1),),
        )
    return Part(
        (
            node("MatMul", [y, "sutura.compare"], "sutura.gaps"),
            *joined,
            tree_node(trees, reads, "sutura.failing"),
            # The number of failing samples in gated regions, weighted by their rows: one node for the batch.
            node("Gemm", ["sutura.leaf", "sutura.failing"], "sutura.found", transA=1),
            node("Greater", ["sutura.found", "sutura.half"], "sutura.any_failing"),
        ),
        (tensor("sutura.compare", columns), tensor("sutura.half", np.array(0.5, np.float32))),
    )


def by_row(gates: Sequence[Gate]) -> bool:
    """Whether what a gate asks for must be looked up by its row."""
    return len(gates) > 1 or any(isinstance(gate, OutputGate) and gate.box is not None for gate in gates)


def _columns(
    literals: Comparisons, n: int
) -> tuple[Float32[np.ndarray, "n k"], dict[Literal, tuple[int, float]]]:
    """Columns c, and for each literal but sums its (column, t): y @ c <= t implies it."""
    columns: list[tuple[tuple[int, float], ...]] = []
    found: list[tuple[int, float]] = []

    def add(column: tuple[tuple[int, float], ...], threshold: float) -> None:
        if column not in columns:
            columns.append(column)
        near_zero = abs(threshold) < SMALLEST
        found.append((columns.index(column), -SMALLEST if near_zero else threshold))

    greater = [*literals.greater.tolist(), *literals.greater_eq.tolist()]
    less = [*literals.less.tolist(), *literals.less_eq.tolist()]
    for i, j in zip(greater, less, strict=True):
        add(((i, -1.0), (j, 1.0)), 0.0)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    for i, t in zip(literals.above.tolist(), literals.above_than, strict=True):
        add(((i, -1.0),), -float(np.nextafter(t, up)))
    for i, t in zip(literals.below.tolist(), literals.below_than, strict=True):
        add(((i, 1.0),), float(np.nextafter(t, down)))
    matrix = np.zeros((n, max(1, len(columns))), np.float32)
    for at, column in enumerate(columns):
        for i, sign in column:
            matrix[i, at] = sign
    return matrix, dict(zip(literals.order, found, strict=False))


def _trees(
    gates: Sequence[Gate], clauses: Sequence[Clause], places: Mapping[Literal, Cut], several: bool
) -> list[Tree[int]]:
    """One tree for all clauses of a single literal asked for in the same rows, and one for each other."""
    groups: dict[tuple[tuple[bool, ...], Clause], list[Clause]] = {}
    for clause in clauses:
        asked = (False, *(isinstance(gate, OutputGate) and clause in gate.safe for gate in gates))
        groups.setdefault((asked, () if len(clause) == 1 else clause), []).append(clause)
    trees: list[Tree[int]] = []
    for (asked, _), members in groups.items():
        test = _any_fails([_fails(clause, places) for clause in members])
        trees.append(_where(asked, 0, test) if several else test)
    return trees


def _fails(clause: Clause, places: Mapping[Literal, Cut]) -> Tree[int]:
    """1 where no literal of the clause is known to hold."""
    tree: Tree[int] = (Cell(1),)
    for literal in reversed(clause):
        if literal in places:
            tree = (places[literal], Cell(0), *tree)
    return tree


def _any_fails(tests: Sequence[Tree[int]]) -> Tree[int]:
    """1 where one of the tests gives 1; all but the last are of a single literal."""
    tree = tests[-1]
    for test in reversed(tests[:-1]):
        tree = (Cell(1),) if len(test) == 1 else (test[0], *tree, Cell(1))
    # A tree of a single cell is not what every runtime expects.
    return tree if len(tree) > 1 else (Cut(0, 0.0), *tree, *tree)


def _where(asked: Sequence[bool], first: int, test: Tree[int]) -> Tree[int]:
    """The test in the rows `first`, `first` + 1, ... that ask for it, by feature 0; nothing in the others."""
    if all(asked):
        return test
    if not any(asked):
        return (Cell(0),)
    changes = [at for at in range(1, len(asked)) if asked[at] != asked[at - 1]]
    cut = min(changes, key=lambda at: abs(2 * at - len(asked)))
    left, right = _where(asked[:cut], first, test), _where(asked[cut:], first + cut, test)
    return (Cut(0, first + cut - 0.5), *left, *right)
