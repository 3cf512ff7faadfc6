"""What goes into a method of calibration, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from sutura.calibration.class_distance import ByClass
from sutura.calibration.distance import ByDistance
from sutura.calibration.scaling import Scaling
from sutura.network.graph import Network

if TYPE_CHECKING:
    from torch import nn

    from sutura.training.train import Epoch, EpochListener

Samples = Float32[np.ndarray, "batch *sample"]
Predictor = Callable[[Samples], Float64[np.ndarray, "batch classes"]]
"""Samples -> scores, or probabilities."""


def unheard(event: Epoch) -> None:
    """Listens to nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What is calibrated: a network or a module, and the scores (before a softmax) it gives."""

    network: Network | None
    module: nn.Module | None
    scores: Predictor


@dataclass(frozen=True, slots=True)
class Run:
    """Who listens to training, and where it keeps its checkpoint."""

    listen: EpochListener = unheard
    checkpoint: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a method made: `predict` gives probabilities; where it is one network, also that network.

    `scaling` is the map of scores that was fitted, where one was; `module` a new one, its scores calibrated.
    """

    predict: Predictor
    network: Network | None = None
    module: nn.Module | None = None
    scaling: Scaling | ByDistance | ByClass | None = None
