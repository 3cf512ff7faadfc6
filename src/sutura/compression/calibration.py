"""Calibration samples: some to fit on, some to judge by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from sutura.compression.figures import change, divergence
from sutura.dataset import Dataset
from sutura.errors import DataError
from sutura.network.budget import shown, shown_shape
from sutura.network.graph import Network
from sutura.network.predictions import outputs_of

FEWEST = 8


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Samples to fit on and others to judge by, with the original's outputs for these.

    `scores` tells whether the outputs are scores of classes.
    """

    fit: Float32[np.ndarray, "n *sample"]
    judge: Float32[np.ndarray, "m *sample"]
    expected: Float32[np.ndarray, "m *output"]
    scores: bool

    def loss(self, network: Network) -> float:
        """How far the outputs moved: a divergence for scores of classes, else a squared change."""
        after = outputs_of(network, self.judge)
        return (divergence if self.scores else change)(self.expected, after)


def calibration(network: Network, data: Dataset, samples: int, seed: int) -> Calibration:
    """At most `samples` of the data, drawn at random: a quarter to judge by, the rest to fit on.

    With labels the outputs are taken for scores of classes. Raises DataError where the data do not fit.
    """
    check_fits(network, data)
    if len(data) < FEWEST:
        raise DataError(f"{data.name} has {len(data)} samples; calibration takes at least {FEWEST}")
    order = np.random.default_rng(seed).permutation(len(data))[: max(samples, FEWEST)]
    judge, fit = np.split(data.x[order], [len(order) // 4])
    return Calibration(fit, judge, outputs_of(network, judge), data.y is not None)


def check_fits(network: Network, data: Dataset) -> None:
    """Raise DataError where samples or labels do not fit the network."""
    name = shown(network.name)
    if data.x.shape[1:] != network.input_shape:
        raise DataError(
            f"{data.name}: samples are {shown_shape(data.x.shape[1:])}, but {name} takes "
            f"{shown_shape(network.input_shape)}"
        )
    if data.x.dtype != np.float32 or not np.isfinite(data.x).all():
        raise DataError(f"{data.name}: samples ({data.x.dtype}) must be float32 without NaN or infinities")
    if data.y is None:
        return
    if len(network.output_shape) != 1 or data.y.max() >= network.output_size:
        raise DataError(
            f"{data.name}: label {data.y.max()} is no class of {name}, whose output is "
            f"{shown_shape(network.output_shape)}"
        )
