"""Which side of a box makes each activation's relaxation loose: a guide for cuts, no part of a proof."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from scipy.sparse import csr_array, issparse

from sutura.bounds.crown import Bounds
from sutura.bounds.program import Affine, Matrix, MaxOf, Program
from sutura.bounds.region import Region

MOST_SIDES = 64
"""Beyond this many inputs nothing is computed: a matrix of all sides for each value would be too large."""

Shares = Float64[np.ndarray, "batch n sides"]
Reach = Float64[np.ndarray, "batch sides n"]


def influence(program: Program, region: Region, bounds: Bounds) -> Mapping[int, Shares]:
    """For each activation, the gap between its two lines, shared out among the sides of the box.

    A side's share is the part that it has in the width of what the activation reads, to first order along
    the upper lines. Estimates: halving a side takes away about half of its share. Empty for many inputs.
    """
    if program.inputs > MOST_SIDES:
        return {}
    width = region.high - region.low
    reach: dict[int, Reach] = {0: np.eye(program.inputs) * width[:, None, :]}
    shares: dict[int, Shares] = {}
    for at, layer in enumerate(program.layers, start=1):
        if isinstance(layer, Affine):
            parts = (_applied(w, reach[s]) for s, w in zip(layer.sources, layer.weights, strict=True))
            reach[at] = sum(parts, np.zeros(()))
            continue
        low, high = bounds.low[layer.source], bounds.high[layer.source]
        if isinstance(layer, MaxOf):
            best = low[:, layer.windows].argmax(axis=2)[..., None]
            entry = np.take_along_axis(
                np.broadcast_to(layer.windows, (len(low), *layer.windows.shape)), best, 2
            )
            read = reach[at] = np.take_along_axis(reach[layer.source], entry[..., 0][:, None], axis=2)
            gap = high[:, layer.windows].max(axis=2) - low[:, layer.windows].max(axis=2)
        else:
            lines, read = bounds.lines[at], reach[layer.source]
            assert lines is not None
            reach[at] = read * lines.upper_slope[:, None]
            gap = (lines.upper_slope - lines.lower_slope) * (low + high) / 2.0 + lines.upper_offset
            gap = gap if lines.lower_offset is None else gap - lines.lower_offset
        size = abs(read)
        total = size.sum(axis=1)
        share = size * (gap / np.where(total > 0, total, 1.0))[:, None]
        shares[at] = np.where(np.isfinite(share), share, 0.0).transpose(0, 2, 1)
    return shares


def _applied(weight: Matrix, reach: Reach) -> Reach:
    columns = reach.reshape(-1, reach.shape[2]) @ (csr_array(weight).T if issparse(weight) else weight.T)
    return columns.reshape(*reach.shape[:2], -1)
