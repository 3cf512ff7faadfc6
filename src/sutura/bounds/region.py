"""Batches of input boxes, and of parts of them: L1 and L2 balls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float64, Int64

DUAL_ROUNDED_UP = 1.0 + 2.0**-24
"""Covers the float64 rounding of a dual norm of fewer than 2^26 entries, which is relative."""


class Part(Protocol):
    """A part of each box of a batch."""

    def take(self, rows: Int64[np.ndarray, " k"] | Bool[np.ndarray, " batch"] | slice) -> Part:
        """Those of some boxes."""
        ...

    def least(self, slopes: Float64[np.ndarray, "batch rows n"]) -> Float64[np.ndarray, "batch rows"]:
        """Minimum of slopes @ x over each part, up to float64 rounding (see `interval.charged`)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """Points x with norm of (x - centre) / scale at most `radius`, one ball a row of `centre`."""

    norm: Literal["l1", "l2"]
    centre: Float64[np.ndarray, "batch n"]
    radius: Float64[np.ndarray, " batch"]
    scale: Float64[np.ndarray, " n"]

    def take(self, rows: Int64[np.ndarray, " k"] | Bool[np.ndarray, " batch"] | slice) -> Ball:
        """Some of the balls."""
        return Ball(self.norm, self.centre[rows], self.radius[rows], self.scale)

    def least(self, slopes: Float64[np.ndarray, "batch rows n"]) -> Float64[np.ndarray, "batch rows"]:
        """Minimum of slopes @ x over each ball, by the dual norm; slopes @ centre is rounded to nearest."""
        scaled = slopes * self.scale
        dual = abs(scaled).max(axis=2) if self.norm == "l1" else np.sqrt((scaled * scaled).sum(axis=2))
        middle = (slopes @ self.centre[:, :, None])[:, :, 0]
        return middle - DUAL_ROUNDED_UP * self.radius[:, None] * dual


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Closed boxes of float32 inputs, low[i] <= x <= high[i]; ends are float32 numbers held in float64.

    Where there is a `ball` (or another part, see `Cut`), the region is what each box shares with it. The
    centre of a ball lies in its box.
    """

    low: Float64[np.ndarray, "batch n"]
    high: Float64[np.ndarray, "batch n"]
    ball: Part | None = None

    def __len__(self) -> int:
        return len(self.low)

    def take(self, rows: Int64[np.ndarray, " k"] | Bool[np.ndarray, " batch"] | slice) -> Region:
        """Some of the boxes."""
        return Region(self.low[rows], self.high[rows], self.ball and self.ball.take(rows))

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
    """Each box cut at the midpoint of its side dims[i]; together they hold every float32 point of the box.

    The halves are boxes: what a ball leaves out of them is not remembered.
    """
    rows = np.arange(len(region))
    cut = midpoint(region.low[rows, dims], region.high[rows, dims])
    left, right = region.high.copy(), region.low.copy()
    left[rows, dims] = cut
    right[rows, dims] = after(cut)
    return Region(region.low, left), Region(right, region.high)
