"""Ours: powers of two times one scale per output channel, by least squares, with error feedback.

The feedback is that of Frantar et al., "GPTQ" (ICLR 2023), section 3: columns are rounded one by one, and
what rounding one loses is taken up by those still to come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from sutura.errors import ShiftError
from sutura.shift.grid import Grid, nearest

Rows = Float64[np.ndarray, "out columns"]
Scales = Float64[np.ndarray, " out"]

STEPS = 2.0 ** (np.arange(8, -41, -1) / 8)
"""Scales that are tried, as shares of the largest weight of a row; at whole powers, every eighth."""

REFITS = 4

DAMPING = 0.01
"""Added to the second moments' diagonal, as a share of its mean (as published)."""


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """Weights `values * scale`, the values on `grid`; `loss` is the weighted squared error."""

    grid: Grid
    values: Float32[np.ndarray, "out columns"]
    scale: Float32[np.ndarray, " out"]
    loss: float


def scaled(
    rows: Float32[np.ndarray, "out columns"],
    grid: Grid,
    weights: Float64[np.ndarray, "out columns"] | None = None,
    *,
    whole: bool = False,
) -> Rounded:
    """Round rows to the grid times one scale each, so that the (weighted) squared error is least.

    An estimate of the least: scales are tried in steps of 2**(1/8) and refitted by least squares. Where
    `whole`, only powers of two are tried, which keeps the layer free of multiplications; for these the search
    is complete. A row of zeros has the scale 1.
    """
    wide = rows.astype(np.float64)
    heavy = np.ones_like(wide) if weights is None else weights
    peak = np.abs(wide).max(axis=1, initial=0.0)
    peak = np.where(peak > 0, peak, 1.0)
    if whole:
        peak = np.exp2(np.ceil(np.log2(peak)))
    best, scale = _better(wide, grid, heavy, (np.full(len(wide), np.inf), peak), peak)
    for step in STEPS[::8] if whole else STEPS:
        best, scale = _better(wide, grid, heavy, (best, scale), peak * step)
    for _ in range(0 if whole else REFITS):
        q = _values(wide, scale, grid)
        best, scale = _better(
            wide, grid, heavy, (best, scale), _fitted(heavy * wide * q, heavy * q * q, scale)
        )
    exact = _single(scale)
    values = _values(wide, exact, grid)
    loss = float((heavy * (wide - exact[:, None] * values) ** 2).sum())
    return Rounded(grid, values.astype(np.float32), exact.astype(np.float32), loss)


def _single(scale: Scales) -> Scales:
    """Scales as float32 holds them, none so small that weights would be denormal numbers."""
    return np.maximum(scale, 2.0**-100).astype(np.float32).astype(np.float64)


def _values(wide: Rows, scale: Scales, grid: Grid) -> Rows:
    return nearest(wide / scale[:, None], grid).astype(np.float64)


def _better(
    wide: Rows, grid: Grid, heavy: Rows, held: tuple[Scales, Scales], scale: Scales
) -> tuple[Scales, Scales]:
    """For each row the smaller error and its scale: those held, or those of `scale`."""
    error = (heavy * (wide - scale[:, None] * _values(wide, scale, grid)) ** 2).sum(axis=1)
    wins = error < held[0]
    return np.where(wins, error, held[0]), np.where(wins, scale, held[1])


def _fitted(across: Rows, square: Rows, scale: Scales) -> Scales:
    """The scale of least squares for given values; as it was where that is no positive number."""
    up, down = across.sum(axis=1), square.sum(axis=1)
    return np.where((up > 0) & (down > 0), up / np.where(down > 0, down, 1.0), scale)


def fed_back(
    rows: Float32[np.ndarray, "out columns"],
    found: Rounded,
    moment: Float64[np.ndarray, "columns columns"],
    *,
    whole: bool = False,
) -> Rounded:
    """Round again with the scales found, each column's error taken up by the columns after it.

    `moment` is the mean of x x^T over the layer's inputs x; columns go by falling power. The scale is fitted
    anew at the end (not where `whole`). The result is whichever loses less of the outputs: this, or `found`.
    """
    wide, scale = rows.astype(np.float64), found.scale.astype(np.float64)
    order = np.argsort(-np.diag(moment), kind="stable")
    factor = _factor(moment[np.ix_(order, order)])
    rest, values = wide[:, order], np.empty_like(wide)
    for at in range(len(order)):
        q = _values(rest[:, at : at + 1], scale, found.grid)[:, 0]
        values[:, order[at]] = q
        lost = (rest[:, at] - scale * q) / factor[at, at]
        rest[:, at + 1 :] -= np.outer(lost, factor[at, at + 1 :])
    if not whole:
        scale = _single(_fitted((wide @ moment) * values, (values @ moment) * values, scale))
    before = output_loss(wide - found.scale[:, None].astype(np.float64) * found.values, moment)
    after = output_loss(wide - scale[:, None] * values, moment)
    if not after < before:
        return Rounded(found.grid, found.values, found.scale, before)
    return Rounded(found.grid, values.astype(np.float32), scale.astype(np.float32), after)


def _factor(moment: Float64[np.ndarray, "n n"]) -> Float64[np.ndarray, "n n"]:
    """The upper Cholesky factor of the damped moments' inverse."""
    size = len(moment)
    damping = DAMPING * float(np.mean(np.diag(moment))) or 1.0
    try:
        return np.linalg.cholesky(np.linalg.inv(moment + damping * np.eye(size))).T
    except np.linalg.LinAlgError:
        raise ShiftError(
            f"the second moments of a layer's {size} inputs cannot be inverted; give more data"
        ) from None


def output_loss(change: Rows, moment: Float64[np.ndarray, "columns columns"]) -> float:
    """The mean squared change of the layer's outputs, summed over channels."""
    return float(((change @ moment) * change).sum())
