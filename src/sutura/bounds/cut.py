"""What a plane leaves of a box: bounds of linear functions where the plane lies at or below zero.

A conjunction that holds somewhere holds where its own lower plane is at most zero. Bounds that need to hold
there only are tighter, and give a higher plane: the output-constrained bounds of INVPROP (Kotha et al.,
NeurIPS 2023) for one plane over a box, where the best multiplier is that of a fractional knapsack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sutura.bounds import interval

ROUNDED = 2.0**-30
"""Covers, relative to its size, the float64 rounding of a sum of fewer than 2^20 terms of one sign."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Points of each box with sum_d |slopes_d| t_d <= room; t_d is the distance on side d from the corner of
    the box where slopes @ x is least."""

    low: Float64[np.ndarray, "batch n"]
    high: Float64[np.ndarray, "batch n"]
    slopes: Float64[np.ndarray, "batch n"]
    room: Float64[np.ndarray, " batch"]

    def take(self, rows: Int64[np.ndarray, " k"] | Bool[np.ndarray, " batch"] | slice) -> Cut:
        """Those of some boxes."""
        return Cut(self.low[rows], self.high[rows], self.slopes[rows], self.room[rows])

    def least(self, slopes: Float64[np.ndarray, "batch rows n"]) -> Float64[np.ndarray, "batch rows"]:
        """Minimum of slopes @ x over what is left of each box, rounded as `interval.least` of the box is.

        The box's minimum lies in the corner of `slopes`. On sides where the cut's corner is the other one, it
        costs the plane's slope to go there; for any price of the room, what is not worth its price is gained.
        """
        width = self.high - self.low
        apart = np.where(np.sign(slopes) * np.sign(self.slopes)[:, None] < 0, width[:, None], 0.0)
        worth, cost = abs(slopes) * apart, abs(self.slopes)[:, None] * apart
        price = self._price(worth, cost)
        gain = np.minimum(worth, price[..., None] * cost).sum(axis=2) * (1.0 - ROUNDED)
        gain = gain - price * self.room[:, None] * (1.0 + ROUNDED)
        return interval.least(slopes, self.low, self.high) + np.fmax(gain, 0.0)

    def _price(
        self, worth: Float64[np.ndarray, "batch rows n"], cost: Float64[np.ndarray, "batch rows n"]
    ) -> Float64[np.ndarray, "batch rows"]:
        """Worth for cost of the side at which the room is used up, the best sides first; any is sound."""
        ratio = np.where(cost > 0, worth / np.where(cost > 0, cost, 1.0), 0.0)
        order = np.argsort(-ratio, axis=2, kind="stable")
        spent = np.cumsum(np.take_along_axis(cost, order, axis=2), axis=2)
        last = np.minimum((spent < self.room[:, None, None]).sum(axis=2), cost.shape[2] - 1)
        at = np.take_along_axis(order, last[..., None], axis=2)
        return np.take_along_axis(ratio, at, axis=2)[..., 0]
