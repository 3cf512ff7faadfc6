"""Which neurons to merge: Ward's clustering of their orientations, weighted by what they pass on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Cloud:
    """What is clustered: a point and a weight a neuron; `flips` allows a point's negative as well."""

    points: Float64[Array, "neurons inputs"]
    weights: Float64[Array, " neurons"]
    flips: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Merges:
    """A hierarchy: step t joins clusters first[t] and second[t] at a cost; cluster neurons + t is the result.

    Clusters 0 to neurons - 1 are single neurons. `flipped[t]` says that the second is joined as its negative.
    Costs ascend.
    """

    neurons: int
    first: Int64[Array, " steps"]
    second: Int64[Array, " steps"]
    flipped: Array
    cost: Float64[Array, " steps"]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The group of each neuron, counted from 0 in order of its first neuron, and the neuron's sign in it."""

    group: Int64[Array, " neurons"]
    sign: Float64[Array, " neurons"]

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.group.max()) + 1


def hierarchy(cloud: Cloud) -> Merges:
    """Ward's hierarchy: always join the pair whose joint centre costs least,

    c_i c_k / (c_i + c_k) |u_i - u_k|^2, the rise of the weighted sum of squared distances to the centres.
    """
    n = len(cloud.points)
    points, weights = cloud.points.copy(), np.maximum(cloud.weights, 1e-300)
    cost, flip = _costs(points, weights, cloud.flips)
    name = np.arange(n)
    alive = np.ones(n, dtype=bool)
    steps: list[tuple[int, int, bool, float]] = []
    for step in range(n - 1):
        i, k = divmod(int(cost.argmin()), n)
        turned = bool(flip[i, k])
        steps.append((int(name[i]), int(name[k]), turned, float(cost[i, k])))
        total = weights[i] + weights[k]
        points[i] = (weights[i] * points[i] + weights[k] * (-points[k] if turned else points[k])) / total
        weights[i], name[i], alive[k] = total, n + step, False
        cost[k], cost[:, k] = np.inf, np.inf
        row, turns = _row(points, weights, i, cloud.flips)
        cost[i] = cost[:, i] = np.where(alive & (np.arange(n) != i), row, np.inf)
        flip[i] = flip[:, i] = turns
    first, second, flipped, spent = zip(*steps, strict=True) if steps else ((), (), (), ())
    # Ward's costs ascend but for rounding.
    return Merges(
        n,
        np.array(first, dtype=np.int64),
        np.array(second, dtype=np.int64),
        np.array(flipped, dtype=bool),
        np.maximum.accumulate(np.array(spent, dtype=np.float64)) if steps else np.zeros(0),
    )


def _costs(points: Array, weights: Array, flips: bool) -> tuple[Array, Array]:
    rows = [_row(points, weights, i, flips) for i in range(len(points))]
    cost, flip = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    np.fill_diagonal(cost, np.inf)
    return cost, flip


def _row(points: Array, weights: Array, i: int, flips: bool) -> tuple[Array, Array]:
    """The cost of joining i with each other, and whether its negative is nearer."""
    near = ((points - points[i]) ** 2).sum(axis=1)
    turned = np.zeros(len(points), dtype=bool)
    if flips:
        far = ((points + points[i]) ** 2).sum(axis=1)
        turned, near = far < near, np.minimum(near, far)
    return weights * weights[i] / (weights + weights[i]) * near, turned


def cut(merges: Merges, count: int) -> Groups:
    """The `count` groups (at least 1, at most one a neuron) that the first steps of the hierarchy leave."""
    steps = merges.neurons - max(1, min(count, merges.neurons))
    group = np.arange(merges.neurons)
    sign = np.ones(merges.neurons)
    members = {k: [k] for k in range(merges.neurons)}
    for t in range(steps):
        one, other = members.pop(int(merges.first[t])), members.pop(int(merges.second[t]))
        if merges.flipped[t]:
            sign[other] *= -1.0
        members[merges.neurons + t] = one + other
    for number, joined in enumerate(sorted(members.values(), key=min)):
        group[joined] = number
    return Groups(group, sign)
