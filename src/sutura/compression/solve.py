"""Which split each layer gets: exact solutions of two problems under one budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from sutura.compression.candidates import Envelope


def smallest(layers: Sequence[Envelope]) -> float:
    """The least that all layers together can cost."""
    return float(sum(layer.cost[0] for layer in layers))


def minimax(layers: Sequence[Envelope], budget: float) -> Int64[np.ndarray, " layers"]:
    """The place in each envelope that makes the largest error least, costs summing to at most `budget`.

    Exact: the optimum is one of the errors of the envelopes, and the least total cost falls as the allowed
    error rises, so bisection over their sorted union finds it. What is left of the budget goes to the layer
    with the largest error that can still be lowered, again and again. `budget` must reach `smallest`.
    """
    errors = np.unique(np.concatenate([layer.error for layer in layers]))
    low, high = 0, len(errors) - 1
    while low < high:
        middle = (low + high) // 2
        if _total(layers, _allowed(layers, errors[middle])) <= budget:
            high = middle
        else:
            low = middle + 1
    chosen = _allowed(layers, errors[high])
    return _spend(layers, chosen, budget, lambda at, place: float(layers[at].error[place]))


def _allowed(layers: Sequence[Envelope], error: float) -> Int64[np.ndarray, " layers"]:
    """In each envelope the cheapest place with at most this error; the dearest where none has."""
    places = (int(np.searchsorted(-layer.error, -error)) for layer in layers)
    return np.array([min(p, len(layer.cost) - 1) for p, layer in zip(places, layers, strict=True)])


def _total(layers: Sequence[Envelope], places: Int64[np.ndarray, " layers"]) -> float:
    return float(sum(layer.cost[place] for layer, place in zip(layers, places, strict=True)))


def squares(
    layers: Sequence[Envelope], weights: Float64[np.ndarray, " layers"], budget: float
) -> Int64[np.ndarray, " layers"]:
    """The place in each envelope that makes the weighted sum of squared errors least within the budget.

    Bisection over the price of a unit of cost solves the problem exactly on the lower convex hulls; what is
    left of the budget is spent on the best single steps. Off the optimum by at most one step of one layer.
    """
    losses = [w * layer.error**2 for w, layer in zip(weights, layers, strict=True)]
    hulls = [hull(layer.cost, loss) for layer, loss in zip(layers, losses, strict=True)]
    slopes = [_slopes(e.cost, loss, at) for e, loss, at in zip(layers, losses, hulls, strict=True)]
    prices = np.unique(np.concatenate([*slopes, [0.0]]))
    low, high = 0, len(prices)
    while low < high:
        middle = (low + high) // 2
        if _total(layers, _priced(hulls, slopes, prices[middle])) <= budget:
            high = middle
        else:
            low = middle + 1
    dear = prices[high] if high < len(prices) else np.inf
    chosen = _priced(hulls, slopes, dear)

    def gain(at: int, place: int) -> float:
        fall = losses[at][place] - losses[at][place + 1]
        return float(fall / (layers[at].cost[place + 1] - layers[at].cost[place]))

    return _spend(layers, chosen, budget, gain)


def hull(cost: Float64[np.ndarray, " n"], loss: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " h"]:
    """The places on the lower convex hull of a falling curve."""
    kept = list[int]()
    for place in range(len(cost)):
        while len(kept) > 1 and _above(cost, loss, (kept[-2], kept[-1], place)):
            kept.pop()
        kept.append(place)
    return np.array(kept)


def _above(cost: np.ndarray, loss: np.ndarray, places: tuple[int, int, int]) -> bool:
    """Whether the middle of three places lies on or above the line between the others."""
    a, b, c = places
    return bool((loss[b] - loss[a]) * (cost[c] - cost[a]) >= (loss[c] - loss[a]) * (cost[b] - cost[a]))


def _slopes(cost: np.ndarray, loss: np.ndarray, at: np.ndarray) -> Float64[np.ndarray, " h-1"]:
    return -np.diff(loss[at]) / np.diff(cost[at])


def _priced(
    hulls: Sequence[np.ndarray], slopes: Sequence[np.ndarray], price: float
) -> Int64[np.ndarray, " layers"]:
    """In each hull the last place whose step is worth more than the price."""
    pairs = zip(hulls, slopes, strict=True)
    return np.array([at[int(np.searchsorted(-slope, -price))] for at, slope in pairs])


def _spend(
    layers: Sequence[Envelope],
    places: Int64[np.ndarray, " layers"],
    budget: float,
    gain: Callable[[int, int], float],
) -> Int64[np.ndarray, " layers"]:
    """Go on to the next place of one layer at a time, the largest gain first, while one fits the budget."""
    places, left = places.copy(), budget - _total(layers, places)
    while True:
        steps = [
            (gain(at, int(place)), at, float(layer.cost[place + 1] - layer.cost[place]))
            for at, (layer, place) in enumerate(zip(layers, places, strict=True))
            if place + 1 < len(layer.cost) and layer.cost[place + 1] - layer.cost[place] <= left
        ]
        if not steps:
            return places
        _, at, cost = max(steps)
        left -= cost
        places[at] += 1


def widest(
    choose: Callable[[float], Sequence[int]],
    costs: Sequence[Float64[np.ndarray, " n"]],
    budget: float,
    ends: tuple[float, float],
) -> Sequence[int]:
    """What `choose` gives at the largest knob whose rows cost at most the budget, by bisection.

    The total cost must not fall as the knob rises; where even the lower end costs more, that end is taken.
    """
    low, high = ends
    for _ in range(KNOB_STEPS):
        middle = (low + high) / 2
        if sum(float(cost[row]) for cost, row in zip(costs, choose(middle), strict=True)) <= budget:
            low = middle
        else:
            high = middle
    return choose(low)


KNOB_STEPS = 60
