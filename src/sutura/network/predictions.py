"""What a network says about samples in ONNX Runtime, and how often that is the label."""

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
