"""Per layer, every split with its error and its cost; and those that no other one beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from sutura.compression.folding import Split, costs, divisors, schemes
from sutura.compression.layers import Layer


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """All splits of one layer: (scheme, groups, rank) a row, the relative error of each, numbers and steps.

    Row 0 is the layer as it is: groups 0, error 0. With one scheme and k = 1, row j is rank j.
    """

    layer: Layer
    splits: Int64[np.ndarray, "n 3"]
    error: Float64[np.ndarray, " n"]
    weights: Int64[np.ndarray, " n"]
    steps: Int64[np.ndarray, " n"]

    def split(self, row: int) -> Split | None:
        """The split of a row, None for the layer as it is."""
        scheme, groups, rank = (int(n) for n in self.splits[row])
        return Split(scheme, groups, rank) if groups else None


Measure = Callable[[Layer, int, int], Float64[np.ndarray, " ranks"]]
"""Layer, scheme, k -> relative error of every rank from 1 to the full one."""


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """The candidates of a layer that are not beaten: cost rises and error falls; `rows` are theirs."""

    rows: Int64[np.ndarray, " n"]
    cost: Float64[np.ndarray, " n"]
    error: Float64[np.ndarray, " n"]


def candidates(
    layer: Layer, measure: Measure, wanted: Sequence[int], groups: Callable[[int], bool] = lambda _: True
) -> Candidates:
    """Every split of a layer under the wanted schemes and those k that `groups` allows."""
    splits, errors, weights, steps = [(0, 0, 0)], [0.0], [layer.weight.size], [_steps(layer)]
    for scheme in schemes(layer, wanted):
        for k in divisors(layer):
            if not groups(k):
                continue
            cost, error = costs(layer, scheme, k), measure(layer, scheme, k)
            splits += [(scheme, k, rank) for rank in range(1, cost.full + 1)]
            errors += error.tolist()
            weights += [cost.weights * rank for rank in range(1, cost.full + 1)]
            steps += [cost.steps * rank for rank in range(1, cost.full + 1)]
    return Candidates(layer, *(np.array(column) for column in (splits, errors, weights, steps)))


def _steps(layer: Layer) -> int:
    dense = layer.output[1:] if layer.kernel else layer.output[:-1]
    return layer.weight.size * int(np.prod(dense, dtype=np.int64))


def envelope(error: Float64[np.ndarray, " n"], cost: Float64[np.ndarray, " n"]) -> Envelope:
    """Sorted by cost; a candidate stays if it errs less than every cheaper one and its cost is known."""
    order = np.lexsort((error, cost))[: int(np.isfinite(cost).sum())]
    best = np.minimum.accumulate(error[order])
    falls = np.append(True, best[1:] < best[:-1])
    rows = order[falls]
    return Envelope(rows, cost[rows].astype(np.float64), error[rows])
