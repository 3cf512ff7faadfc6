"""What planes leave of a box: the part where none of them refutes, in closed form.

Relaxed clipping, Zhou et al., Clip-and-Verify, NeurIPS 2025.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from sutura.bounds.region import Region

PASSES = 2
TINY = 2.0**-40
"""Far above what float64 loses here."""

Gap = Float64[np.ndarray, "batch k r"]
Slopes = Float64[np.ndarray, "batch k r n"]
Ends = Float64[np.ndarray, "batch k n"]


def clip(region: Region, refuted: Bool[np.ndarray, "batch k"], gap: Gap, slopes: Slopes) -> Region:
    """Boxes that hold every float32 input at which some k, not refuted, has all its planes at most zero.

    Plane r of k is gap + sum_d |slopes_d| t_d with t_d the distance from the corner where it is lowest (see
    LowerPlanes). A box with nothing left comes back with a low end above the high end.
    """
    gone = refuted[:, :, None]
    low, high = np.where(gone, np.inf, region.low[:, None]), np.where(gone, -np.inf, region.high[:, None])
    with np.errstate(all="ignore"):
        for _ in range(PASSES):
            low, high = _clipped(region, gap, slopes, (low, high))
        return Region(_up(low.min(axis=1)), -_up(-high.max(axis=1)))


def _clipped(region: Region, gap: Gap, slopes: Slopes, ends: tuple[Ends, Ends]) -> tuple[Ends, Ends]:
    low, high = ends
    rising = slopes > 0
    gone_already = (low > high).any(axis=2)
    moved = np.where(
        rising, (low - region.low[:, None])[:, :, None], (high - region.high[:, None])[:, :, None]
    )
    now = gap - TINY * abs(gap) + (1.0 - TINY) * (slopes * moved).sum(axis=3)
    reach = np.where(now <= 0, -now, np.inf)[..., None] * (1.0 + TINY) / abs(slopes)
    reach = reach + TINY * (reach + np.maximum(abs(low), abs(high))[:, :, None] * 2.0**-10)
    new_high = np.fmin(high, np.where(rising, low[:, :, None] + reach, np.inf).min(axis=2))
    new_low = np.fmax(low, np.where(slopes < 0, high[:, :, None] - reach, -np.inf).max(axis=2))
    gone = ((now > 0).any(axis=2) | gone_already)[:, :, None]
    return np.where(gone, np.inf, new_low), np.where(gone, -np.inf, new_high)


def _up(x: Float64[np.ndarray, "batch n"]) -> Float64[np.ndarray, "batch n"]:
    """The smallest float32 numbers that are not below."""
    near = x.astype(np.float32)
    return np.where(near < x, np.nextafter(near, np.float32(np.inf)), near).astype(np.float64)
