"""Where neurons point: unit input weights, how alike they are, and how many directions cover them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.cluster.hierarchy import leaves_list, linkage

Array = np.ndarray

COVERED = 0.9
"""Share of the neurons that counted directions must cover."""

FAINT = 1e-6
"""Neurons whose weight is this small a part of the largest point nowhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Orientations:
    """Unit input weights (bias last) of the neurons that have one, their lengths, and the neurons."""

    unit: Float64[Array, "neurons inputs"]
    length: Float64[Array, " neurons"]
    neuron: Int64[Array, " neurons"]

    @property
    def similarity(self) -> Float64[Array, "neurons neurons"]:
        """Cosines between the neurons' input weights: D(u, v) = u . v."""
        return np.clip(self.unit @ self.unit.T, -1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Count:
    """`lines` and `orientations` (directions with their sign) that cover COVERED of the neurons.

    A neuron is covered where its cosine with the direction (its absolute value for lines) exceeds `cosine`.
    """

    cosine: float
    lines: int
    orientations: int


def orientations(
    weights: Float64[Array, "neurons inputs"], bias: Float64[Array, " neurons"] | None, faint: float = FAINT
) -> Orientations:
    """The orientations of neurons with these input weights; the bias counts as one more input weight.

    Neurons shorter than `faint` times the longest are left out.
    """
    rows = np.asarray(weights, dtype=np.float64).reshape(len(weights), -1)
    if bias is not None:
        rows = np.concatenate([rows, np.asarray(bias, dtype=np.float64)[:, None]], axis=1)
    length = np.linalg.norm(rows, axis=1)
    kept = np.flatnonzero((length > faint * length.max(initial=0.0)) & (length > 0))
    return Orientations(rows[kept] / length[kept, None], length[kept], kept)


def count(found: Orientations, cosine: float = 0.95, covered: float = COVERED) -> Count:
    """How few directions cover the neurons, chosen greedily among the neurons' own. An upper estimate."""
    similar = found.similarity
    return Count(cosine, _cover(abs(similar) > cosine, covered), _cover(similar > cosine, covered))


def _cover(near: Array, covered: float) -> int:
    """Rows taken, the one that covers most first, until that share of the columns is covered."""
    open_columns, taken = np.ones(len(near), dtype=bool), 0
    while open_columns.sum() > (1.0 - covered) * len(near) + 1e-9:
        best = int((near & open_columns).sum(axis=1).argmax())
        open_columns &= ~near[best]
        taken += 1
    return taken


def clustered_order(found: Orientations) -> Int64[Array, " neurons"]:
    """The neurons in an order that puts those on one line side by side, for a heat map."""
    if len(found.unit) < 3:
        return np.arange(len(found.unit))
    distance = 1.0 - abs(found.similarity)
    upper = distance[np.triu_indices(len(distance), 1)]
    grouped = leaves_list(linkage(np.maximum(upper, 0.0), "average"))
    return np.asarray(grouped, dtype=np.int64)
