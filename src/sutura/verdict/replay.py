"""A candidate becomes a witness only when ONNX Runtime says so, with zero tolerance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64

from sutura.network.run import Session, run
from sutura.property.spec import Property, unsafe_mask
from sutura.verdict.outcome import Witness

BATCH = 8192

Runner = Callable[[Float32[np.ndarray, "batch n"]], Float32[np.ndarray, "batch m"]]
"""Flat float32 inputs to flat float32 outputs, as the runtime computes them."""


def runner(session: Session) -> Runner:
    """The session as a function of flat inputs, run in batches of at most BATCH."""

    def flat(x: Float32[np.ndarray, "batch n"]) -> Float32[np.ndarray, "batch m"]:
        shaped = x.reshape(len(x), *session.input_shape)
        parts = [run(session, shaped[i : i + BATCH]) for i in range(0, len(x), BATCH)]
        return np.concatenate(parts).reshape(len(x), -1)

    return flat


def replay(
    runner: Runner,
    prop: Property,
    case: int,
    candidates: Float64[np.ndarray, "batch n"],
    inside: tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]] | None = None,
) -> Witness | None:
    """The first candidate that, moved to the nearest float32 point of the box, gives an unsafe output.

    `inside` is the box's `float32_inside`, where the caller has it already.
    """
    box = prop.cases[case].box
    inside = box.float32_inside() if inside is None else inside
    points = np.clip(candidates.astype(np.float32), inside[0], inside[1])
    outputs = runner(points)
    hits = np.flatnonzero(unsafe_mask(prop.cases[case], outputs))
    # A box may hold no float32 point at all; then every hit lies beside it, and the first tells of all.
    if not len(hits) or not box.contains(points[hits[0]]):
        return None
    return Witness(points[hits[0]], outputs[hits[0]], case)
