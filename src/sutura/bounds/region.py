"""Batches of input boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Closed boxes of float32 inputs, low[i] <= x <= high[i]; ends are float32 numbers held in float64."""

    low: Float64[np.ndarray, "batch n"]
    high: Float64[np.ndarray, "batch n"]

    def __len__(self) -> int:
        return len(self.low)

    def take(self, rows: Int64[np.ndarray, " k"] | Bool[np.ndarray, " batch"] | slice) -> Region:
        """Some of the boxes."""
        return Region(self.low[rows], self.high[rows])

    @property
    def magnitude(self) -> Float64[np.ndarray, "batch n"]:
        """Largest absolute value of each entry."""
        return np.maximum(abs(self.low), abs(self.high))


def midpoint(low: Float64[np.ndarray, " k"], high: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """The float32 number at which a side is halved: low <= cut < high, for float32 ends with low < high."""
    cut = ((low + high) / 2.0).astype(np.float32).astype(np.float64)
    return np.where(cut >= high, low, cut)


def after(cut: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """The float32 number that follows."""
    return np.nextafter(cut.astype(np.float32), np.float32(np.inf)).astype(np.float64)


def halves(region: Region, dims: Int64[np.ndarray, " batch"]) -> tuple[Region, Region]:
    """Each box cut at the midpoint of its side dims[i]; together they hold every float32 point of the box."""
    rows = np.arange(len(region))
    cut = midpoint(region.low[rows, dims], region.high[rows, dims])
    left, right = region.high.copy(), region.low.copy()
    left[rows, dims] = cut
    right[rows, dims] = after(cut)
    return Region(region.low, left), Region(right, region.high)
