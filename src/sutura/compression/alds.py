"""ALDS: the search of Liebenwein et al. (2021), Algorithm 1, for groups and ranks of all layers.

From several starts, two steps alternate: ranks are set so that every layer has the same error and the budget
is met (global), then each layer takes the number of groups with the least error at its own size (local).
`solve.minimax` solves the same problem exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from sutura.compression.folding import Costs, Split, costs, divisors, schemes
from sutura.compression.layers import Layer
from sutura.compression.measures import norm, spectra

Bound = Literal["theorem", "reference"]


@dataclass(frozen=True, slots=True)
class AldsConfig:
    """The constants of the authors' code.

    `bound`: "theorem" has the factor sqrt(k) of Theorem 1; "reference" computes what the authors' code does:
    no such factor, and in the local step the error of one rank less. `schemes`: (0,) is ALDS, all four ALDS+,
    for which the code takes twice the starts.
    """

    bound: Bound = "theorem"
    schemes: tuple[int, ...] = (0,)
    starts: int = 15
    iterations: int = 4
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """One (scheme, k) of a layer: what a rank costs, and the bound of the error at ranks 0, 1, ..., full."""

    scheme: int
    groups: int
    cost: float
    error: Float64[np.ndarray, " ranks"]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The best start: a split for each layer (None: it stays as it is) and the largest error of all."""

    splits: tuple[Split | None, ...]
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """All forms of each layer, what each layer costs now, and what all together may cost."""

    forms: Sequence[Sequence[Form]]
    dense: Sequence[float]
    budget: float
    config: AldsConfig


FIRST_GROUPS = (3, 5, 7, 9)
"""The first starts: the divisors next to these numbers."""

OFFSETS = (0.5, 0.3, 0.1, -0.1, -0.3, -0.5)
"""Added to a rank before it is cut to a whole number; the next one is tried where the budget is missed."""

BISECTIONS = 60

MISS = 0.005
"""Share of the budget by which a start may miss it."""


def forms(layer: Layer, config: AldsConfig, rate: Callable[[Costs], float]) -> tuple[Form, ...]:
    """The tables of a layer; they serve every budget. `rate` is what a rank costs."""
    found = list[Form]()
    for scheme in schemes(layer, config.schemes):
        largest = norm(layer, scheme)
        for k in divisors(layer):
            bound = spectra(layer, scheme, k).max(axis=0) / largest
            factor = np.sqrt(k) if config.bound == "theorem" else 1.0
            found.append(Form(scheme, k, rate(costs(layer, scheme, k)), np.append(factor * bound, 0.0)))
    return tuple(found)


def search(problem: Problem) -> Found:
    """The best of all starts. Each keeps its first state where the steps made it worse."""
    random = np.random.default_rng(problem.config.seed)
    best: Found | None = None
    for start in range(problem.config.starts * (2 if len(problem.config.schemes) > 1 else 1)):
        state = _valid(problem, _start(problem, start, random))
        if state is None:
            continue
        found = _improved(problem, state)
        if best is None or found.error < best.error:
            best = found
    if best is None:
        ones = [_single(layer) for layer in problem.forms]
        return _found(problem, ones, _ranks(problem, ones))
    return best


def _single(layer: Sequence[Form]) -> int:
    return next(at for at, form in enumerate(layer) if form.groups == 1)


def _start(problem: Problem, start: int, random: np.random.Generator) -> list[int]:
    """A form for each layer: the divisors next to 3, 5, 7, 9, then random ones."""
    if start >= len(FIRST_GROUPS):
        return [int(random.integers(len(layer))) for layer in problem.forms]
    wanted = FIRST_GROUPS[start]
    # Of two divisors as near, the larger.
    return [
        min(
            range(len(layer)),
            key=lambda at: (layer[at].scheme, abs(layer[at].groups - wanted), -layer[at].groups),
        )
        for layer in problem.forms
    ]


def _valid(problem: Problem, chosen: list[int]) -> list[int] | None:
    """The start, its k halved until the budget can be met; None where even k = 1 does not."""
    while not _meets(problem, chosen, _ranks(problem, chosen)):
        halved = [_halved(layer, at) for layer, at in zip(problem.forms, chosen, strict=True)]
        if halved == chosen:
            return None
        chosen = halved
    return chosen


def _halved(layer: Sequence[Form], at: int) -> int:
    """The same scheme with the largest k that is at most half of this one."""
    here = layer[at]
    fewer = [
        i for i, f in enumerate(layer) if f.scheme == here.scheme and f.groups <= max(1, here.groups // 2)
    ]
    return max(fewer, key=lambda i: layer[i].groups)


def _improved(problem: Problem, chosen: list[int]) -> Found:
    """Local and global steps in turn."""
    ranks = _ranks(problem, chosen)
    first = state = _found(problem, chosen, ranks)
    for _ in range(problem.config.iterations):
        met = next(_steps(problem, chosen, ranks), None)
        if met is None:
            break
        chosen, ranks = met
        state = _found(problem, chosen, ranks)
    return state if state.error <= first.error else first


def _steps(
    problem: Problem, chosen: Sequence[int], ranks: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Results of a local and a global step that meet the budget, for one way of rounding after another."""
    for offset in OFFSETS:
        state = zip(problem.forms, chosen, ranks, strict=True)
        local = [_local(problem.config, layer, layer[at].cost * rank, offset) for layer, at, rank in state]
        found = _ranks(problem, local)
        if _meets(problem, local, found):
            yield local, found


def _local(config: AldsConfig, layer: Sequence[Form], size: float, offset: float) -> int:
    """The form with the least error at this size."""
    # The authors' code reads the table one rank too early here.
    late = 0 if config.bound == "theorem" else 1
    ranks = [_clipped(int(np.floor(size / form.cost + offset)), form) for form in layer]
    return min(range(len(layer)), key=lambda i: layer[i].error[ranks[i] - late])


def _clipped(rank: int, form: Form) -> int:
    return min(max(rank, 1), len(form.error) - 1)


def _ranks(problem: Problem, chosen: Sequence[int]) -> list[int]:
    """The global step: the least error, by bisection, with which all layers together fit the budget."""
    picked = [layer[at] for layer, at in zip(problem.forms, chosen, strict=True)]
    low, high = 0.0, max(float(form.error[1]) for form in picked)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _size(problem, picked, [_rank(form, middle) for form in picked]) > problem.budget:
            low = middle
        else:
            high = middle
    return [_rank(form, high) for form in picked]


def _rank(form: Form, error: float) -> int:
    """The least rank whose error is at most this."""
    return _clipped(int(np.searchsorted(-form.error, -error)), form)


def _size(problem: Problem, picked: Sequence[Form], ranks: Sequence[int]) -> float:
    pairs = zip(problem.dense, picked, ranks, strict=True)
    return float(sum(min(dense, rank * form.cost) for dense, form, rank in pairs))


def _meets(problem: Problem, chosen: Sequence[int], ranks: Sequence[int]) -> bool:
    picked = [layer[at] for layer, at in zip(problem.forms, chosen, strict=True)]
    return abs(_size(problem, picked, ranks) - problem.budget) <= MISS * problem.budget


def _found(problem: Problem, chosen: Sequence[int], ranks: Sequence[int]) -> Found:
    """The splits and their largest error; a layer that would not shrink stays, and has none."""
    splits, worst = list[Split | None](), 0.0
    for layer, at, rank, dense in zip(problem.forms, chosen, ranks, problem.dense, strict=True):
        form = layer[at]
        if rank * form.cost >= dense:
            splits.append(None)
            continue
        splits.append(Split(form.scheme, form.groups, rank))
        worst = max(worst, float(form.error[rank]))
    return Found(tuple(splits), worst)
