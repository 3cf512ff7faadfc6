"""How far compression moved the outputs on data; estimates all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from sutura.network.predictions import accuracy as accuracy
from sutura.network.predictions import outputs as outputs
from sutura.network.predictions import outputs_of as outputs_of


def change(
    before: Float32[np.ndarray, "batch *output"], after: Float32[np.ndarray, "batch *output"]
) -> float:
    """The mean squared change of the outputs over their variance; infinite where they are no numbers."""
    wide = before.astype(np.float64)
    moved = float(np.mean((wide - after) ** 2))
    return moved / (float(wide.var()) or 1.0) if np.isfinite(moved) else np.inf


def divergence(
    before: Float32[np.ndarray, "batch classes"], after: Float32[np.ndarray, "batch classes"]
) -> float:
    """The mean Kullback-Leibler divergence of the classes' shares (softmax of scores) from those before."""
    if not np.isfinite(after).all():
        return np.inf
    old, new = (_log_shares(scores.astype(np.float64)) for scores in (before, after))
    return float(np.mean((np.exp(old) * (old - new)).sum(axis=1)))


def _log_shares(scores: np.ndarray) -> np.ndarray:
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
