"""What a network does on data: its loss against the original's outputs, and its accuracy; estimates all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session, run

BATCH = 100


def outputs(onnx: bytes, x: Float32[np.ndarray, "batch *sample"]) -> Float32[np.ndarray, "batch *output"]:
    """The outputs of an ONNX file for all samples, in ONNX Runtime."""
    session = open_session(onnx)
    return np.concatenate([run(session, x[at : at + BATCH]) for at in range(0, len(x), BATCH)])


def outputs_of(
    network: Network, x: Float32[np.ndarray, "batch *sample"]
) -> Float32[np.ndarray, "batch *output"]:
    """The outputs of a network for all samples, in ONNX Runtime."""
    return outputs(write_onnx(network), x)


def accuracy(scores: Float32[np.ndarray, "batch classes"], y: Int64[np.ndarray, " batch"]) -> float:
    """The share of samples whose largest score is at the label."""
    return float(np.mean(scores.argmax(axis=1) == y))


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
