"""The methods by name: each prepares its tables once, then answers every budget.

Published ones are as published; ours stand beside them under names of their own. All split layers. Methods
that remove whole filters or channels (filter thresholding, PFP, ThiNet) are not among them: a channel is
removed from all that reads it, across sums and normalisations, which changes the graph and not a layer;
torch-pruning does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from sutura.compression import alds, measures, pca, solve
from sutura.compression.budget import Budget
from sutura.compression.candidates import Candidates, Envelope, Measure, candidates, envelope
from sutura.compression.factors import Factors, truncated
from sutura.compression.folding import Split, costs
from sutura.compression.layers import Layer
from sutura.compression.moments import Moments
from sutura.compression.whitened import loss_of_ranks, whitened


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What becomes of each layer, None where it stays; and the largest error by the method's own measure."""

    splits: tuple[Split | None, ...]
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class Planner:
    """A prepared method: `plan` answers a budget for the weights of all layers; `smallest` is the least one.

    `factors` makes the two layers of a split.
    """

    plan: Callable[[float], Plan]
    factors: Callable[[Layer, Split], Factors]
    smallest: float


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Layers to compress, what counts, moments of the layers' inputs by key, and a seed."""

    layers: Sequence[Layer]
    budget: Budget
    moments: Mapping[str, Moments]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Method:
    """A way to compress: how it is prepared, whether it needs samples or is another's, and what it is."""

    prepare: Callable[[Task], Planner]
    data: bool
    published: bool
    title: str


Solver = Callable[[Sequence[Envelope], float], Sequence[int]]
"""Envelopes and a budget -> a place in each envelope."""

ALL_SCHEMES = (0, 1, 2, 3)

MOST_GROUPS = 16
"""Most groups that the data-aware methods try; more take time and are seldom chosen."""


def _alds(bound: alds.Bound, schemes: tuple[int, ...]) -> Callable[[Task], Planner]:
    def prepare(task: Task) -> Planner:
        config = alds.AldsConfig(bound, schemes, seed=task.seed)
        assert task.budget.rate is not None
        tables = [alds.forms(layer, config, task.budget.rate) for layer in task.layers]
        dense = [float(task.budget.price(table)[0]) for table in _tables(task, measures.nothing, (0,), 1)]

        def plan(budget: float) -> Plan:
            found = alds.search(alds.Problem(tables, dense, budget, config))
            return Plan(found.splits, found.error)

        least = (min(form.cost for form in forms) for forms in tables)
        return Planner(plan, truncated, sum(map(min, least, dense)))

    return prepare


def _minimax(
    measure: Measure, schemes: Sequence[int], groups: int | None = None
) -> Callable[[Task], Planner]:
    def prepare(task: Task) -> Planner:
        tables = _tables(task, measure, schemes, groups)
        return _exact(task, tables, _least_largest, truncated)

    return prepare


def _squares(measure: Measure, schemes: Sequence[int]) -> Callable[[Task], Planner]:
    def prepare(task: Task) -> Planner:
        return _exact(task, _tables(task, measure, schemes), _sum_of_squares, truncated)

    return prepare


def _whitened(solver: Solver) -> Callable[[Task], Planner]:
    def prepare(task: Task) -> Planner:
        def measure(layer: Layer, scheme: int, groups: int) -> Float64[np.ndarray, " full"]:
            if layer.key not in task.moments:
                return measures.frobenius(layer, scheme, groups)
            return loss_of_ranks(layer, task.moments[layer.key], scheme, groups)

        def factors(layer: Layer, split: Split) -> Factors:
            if layer.key not in task.moments:
                return truncated(layer, split)
            return whitened(layer, task.moments[layer.key], split)

        return _exact(task, _tables(task, measure, ALL_SCHEMES, MOST_GROUPS), solver, factors)

    return prepare


def _sum_of_squares(envelopes: Sequence[Envelope], budget: float) -> Sequence[int]:
    return solve.squares(envelopes, np.ones(len(envelopes)), budget).tolist()


def _least_largest(envelopes: Sequence[Envelope], budget: float) -> Sequence[int]:
    return solve.minimax(envelopes, budget).tolist()


def _exact(
    task: Task,
    tables: Sequence[Candidates],
    solver: Solver,
    factors: Callable[[Layer, Split], Factors],
) -> Planner:
    envelopes = [envelope(table.error, task.budget.price(table)) for table in tables]

    def plan(budget: float) -> Plan:
        places = zip(envelopes, solver(envelopes, budget), strict=True)
        return _plan(tables, [int(layer.rows[place]) for layer, place in places])

    return Planner(plan, factors, solve.smallest(envelopes))


def _plan(tables: Sequence[Candidates], rows: Sequence[int]) -> Plan:
    pairs = list(zip(tables, rows, strict=True))
    error = max(float(table.error[row]) for table, row in pairs)
    return Plan(tuple(table.split(row) for table, row in pairs), error)


def _tables(
    task: Task, measure: Measure, schemes: Sequence[int], groups: int | None = None
) -> list[Candidates]:
    most = groups or max(layer.sides[1] for layer in task.layers)
    return [candidates(layer, measure, schemes, lambda k: k <= most) for layer in task.layers]


def _svd(task: Task) -> Planner:
    """One share of the full rank for every layer."""
    tables = _tables(task, measures.reference, (0,), 1)

    def choose(prices: Sequence[np.ndarray], share: float) -> list[int]:
        return [_row(cost, round(share * (len(cost) - 1))) for cost in prices]

    return _knob(task, tables, choose, (0.0, 1.0))


def _l_rank(task: Task) -> Planner:
    """The compression step of Idelbayev & Carreira-Perpinan (2020): least price * steps + energy cut off."""
    tables = _tables(task, measures.frobenius, (0,), 1)
    energy = [(t.error[1:] * np.linalg.norm(t.layer.weight)) ** 2 for t in tables]

    def choose(prices: Sequence[np.ndarray], knob: float) -> list[int]:
        found = zip(prices, tables, energy, strict=True)
        return [_row(p, 1 + int(np.argmin(10.0**-knob * t.steps[1:] + e))) for p, t, e in found]

    return _knob(task, tables, choose, (-6.0, 24.0))


def _pca(task: Task) -> Planner:
    """Directions of all layers in the order of their worth, as many as the budget allows."""
    tables = _tables(task, measures.frobenius, (0,), 1)
    worth = [_worth(task, table.layer) for table in tables]

    def choose(prices: Sequence[np.ndarray], knob: float) -> list[int]:
        found = zip(prices, worth, strict=True)
        return [_row(cost, max(1, int((scores >= np.exp(-knob)).sum()))) for cost, scores in found]

    def factors(layer: Layer, split: Split) -> Factors:
        known = task.moments.get(layer.key)
        return truncated(layer, split) if known is None else pca.projected(layer, known, split)

    return _knob(task, tables, choose, (-50.0, 200.0), factors)


def _worth(task: Task, layer: Layer) -> Float64[np.ndarray, " ranks"]:
    cost = float(costs(layer, 0, 1).steps)
    known = task.moments.get(layer.key)
    if known is not None:
        return pca.scores(layer, known, cost)
    values = measures.spectra(layer, 0, 1)[0] ** 2
    return values / np.cumsum(values) / cost


def _row(cost: np.ndarray, rank: int) -> int:
    """The row of a rank, at least 1; that of the layer as it is where the split would not be cheaper."""
    rank = min(max(rank, 1), len(cost) - 1)
    return 0 if cost[rank] >= cost[0] else rank


def _knob(
    task: Task,
    tables: Sequence[Candidates],
    choose: Callable[[Sequence[np.ndarray], float], list[int]],
    ends: tuple[float, float],
    factors: Callable[[Layer, Split], Factors] = truncated,
) -> Planner:
    prices = [task.budget.price(table) for table in tables]

    def plan(budget: float) -> Plan:
        return _plan(tables, solve.widest(lambda knob: choose(prices, knob), prices, budget, ends))

    return Planner(plan, factors, float(sum(min(p[0], p[1]) for p in prices)))


METHODS: dict[str, Method] = {
    "alds": Method(_alds("theorem", (0,)), False, True, "ALDS with the bound of its theorem"),
    "alds-reference": Method(_alds("reference", (0,)), False, True, "ALDS as its authors' code computes it"),
    "alds-plus": Method(_alds("theorem", ALL_SCHEMES), False, True, "ALDS+: all four schemes"),
    "alds-plus-reference": Method(
        _alds("reference", ALL_SCHEMES), False, True, "ALDS+ with the figure of the authors' code"
    ),
    "svd": Method(_svd, False, True, "one relative rank for all layers"),
    "svd-energy": Method(_minimax(measures.frobenius, (0,), 1), False, True, "one relative energy for all"),
    "svd-nuclear": Method(_minimax(measures.nuclear, (0,), 1), False, True, "one share of singular values"),
    "svd-error": Method(_minimax(measures.reference, (0,), 1), False, True, "one relative error for all"),
    "l-rank": Method(_l_rank, False, True, "learned ranks: the compression step"),
    "pca": Method(_pca, True, True, "principal directions of layer outputs"),
    "exact": Method(_minimax(measures.theorem, (0,)), False, False, "the problem of ALDS, solved exactly"),
    "exact-reference": Method(
        _minimax(measures.reference, (0,)), False, False, "that of its authors' code, solved exactly"
    ),
    "exact-plus": Method(
        _minimax(measures.theorem, ALL_SCHEMES), False, False, "the problem of ALDS+, solved exactly"
    ),
    "spectral": Method(_minimax(measures.spectral, (0,)), False, False, "least largest spectral error"),
    "frobenius": Method(
        _squares(measures.frobenius, ALL_SCHEMES), False, False, "least sum of squared errors of weights"
    ),
    "whitened": Method(
        _whitened(_sum_of_squares), True, False, "least sum of squared errors of what layers compute"
    ),
    "whitened-minimax": Method(
        _whitened(_least_largest), True, False, "least largest error of what layers compute"
    ),
}
"""Name -> method."""
