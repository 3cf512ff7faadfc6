"""From modules to probabilities: one, many passes with dropout, an ensemble, or evidence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Float64
from scipy.special import softmax
from torch import Tensor, nn

from sutura.calibration.class_distance import ByClass, tables
from sutura.calibration.distance import ByDistance
from sutura.calibration.scaling import Affine
from sutura.errors import DataError, NetworkError

Samples = Float32[np.ndarray, "batch *sample"]
Scorer = Callable[[Samples], Float64[np.ndarray, "batch classes"]]
"""Samples -> scores, or probabilities; as its maker says."""

BATCH = 1000

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def scores_of(module: nn.Module) -> Scorer:
    """The module's scores, in eval mode, on the device that its weights are on."""

    def scores(x: Samples) -> Float64[np.ndarray, "batch classes"]:
        return _scores(module.eval(), x)

    return scores


def _scores(module: nn.Module, x: Samples) -> Float64[np.ndarray, "batch classes"]:
    """Scores in the mode that the module is in, BATCH samples at a time."""
    place = next(module.parameters()).device
    parts = [torch.tensor(x[at : at + BATCH], device=place) for at in range(0, len(x), BATCH)]
    try:
        with torch.no_grad():
            return np.concatenate([module(part).cpu().numpy() for part in parts]).astype(np.float64)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the module does not take samples of shape {x.shape[1:]}: {reason}") from None


def dropout_probabilities(module: nn.Module, *, passes: int = 20, seed: int = 0) -> Scorer:
    """Mean softmax over `passes` with dropout on and all else in eval mode (Gal and Ghahramani, ICML 2016).

    The same samples in the same order give the same numbers again. Raises NetworkError for a module without
    a dropout layer.
    """
    drops = [part for part in module.modules() if isinstance(part, DROPOUT)]
    if not drops:
        raise NetworkError(
            f"module {type(module).__name__} has no dropout layer to draw from; name another method"
        )

    def probabilities(x: Samples) -> Float64[np.ndarray, "batch classes"]:
        module.eval()
        for drop in drops:
            drop.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            total = sum((softmax(_scores(module, x), axis=1) for _ in range(passes)), np.zeros(()))
        module.eval()
        return total / passes

    return probabilities


def ensemble_probabilities(members: Sequence[Scorer]) -> Scorer:
    """Mean softmax of the members' scores."""

    def probabilities(x: Samples) -> Float64[np.ndarray, "batch classes"]:
        return np.mean([softmax(scores(x), axis=1) for scores in members], axis=0)

    return probabilities


def evidence(scores: Float64[np.ndarray, "batch classes"]) -> Float64[np.ndarray, "batch classes"]:
    """Mean of the Dirichlet distribution that evidential scores stand for: alpha / sum, alpha = relu + 1."""
    alpha = np.maximum(scores, 0) + 1
    return alpha / alpha.sum(axis=1, keepdims=True)


@final
class Scaled(nn.Module):
    """A module whose scores are mapped by an affine scaling."""

    def __init__(self, module: nn.Module, scaling: Affine) -> None:
        super().__init__()
        self.module = module
        place = next(module.parameters()).device
        self.register_buffer("scale", torch.tensor(scaling.scale, dtype=torch.float32, device=place))
        self.register_buffer("offset", torch.tensor(scaling.offset, dtype=torch.float32, device=place))

    def forward(self, x: Tensor) -> Tensor:
        """Calibrated scores."""
        return self.module(x) * self.scale + self.offset


@final
class ScaledByDistance(nn.Module):
    """A module whose scores are multiplied by a factor that the distance of its input decides."""

    mean: Tensor
    directions: Tensor

    def __init__(self, module: nn.Module, scale: ByDistance) -> None:
        super().__init__()
        self.module = module
        place, held, span = next(module.parameters()).device, scale.gaussian, scale.end - scale.start
        numbers = {"mean": held.mean, "directions": held.directions / np.sqrt(span)}
        for name, value in numbers.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32, device=place))
        self.rest, self.end, self.near, self.far = held.rest / span, scale.end / span, scale.near, scale.far

    def forward(self, x: Tensor) -> Tensor:
        """Calibrated scores."""
        apart = x.flatten(1) - self.mean
        along = (apart @ self.directions).square().sum(dim=1)
        near = (self.end + along - self.rest * apart.square().sum(dim=1)).clamp(0, 1)
        return self.module(x) * (self.far + (self.near - self.far) * near)[:, None]


@final
class ScaledByClass(nn.Module):
    """A module whose scores are multiplied by a factor that the distance of its features decides."""

    def __init__(self, module: nn.Module, scale: ByClass) -> None:
        super().__init__()
        self.module = module
        place = next(module.parameters()).device
        for name, value in asdict(tables(scale)).items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32, device=place))
        self.end, self.near = scale.end / (scale.end - scale.start), scale.near

    def forward(self, x: Tensor) -> Tensor:
        """Calibrated scores."""
        scores, features = heard(self.module, x)
        of = dict(self.named_buffers(recurse=False))
        u = features - of["centre"]
        along = (u @ of["directions"] - of["origin"]).square() @ of["owner"]
        each = u.square() @ of["squares"] + u @ of["lines"] + of["constant"] - along
        near = (self.end - (torch.softmax(scores, dim=1) * each).sum(dim=1)).clamp(0, 1)
        return scores * (1 + (self.near - 1) * near)[:, None]


def heard(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and what the last of the layers with weights that ran was given, a row a sample.

    Raises NetworkError where no such layer ran.
    """
    given: list[Tensor] = []

    def hear(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        given[:] = arguments[:1]

    layers = [part for part in module.modules() if isinstance(part, LAYERS)]
    hooks = [part.register_forward_pre_hook(hear) for part in layers]
    try:
        scores = module(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not given:
        raise NetworkError(
            f"module {type(module).__name__} has no dense or convolutional layer; name another method"
        )
    return scores, given[0].flatten(1)


def features_of(module: nn.Module) -> Scorer:
    """What the module's last layer with weights is given, in eval mode."""

    def features(x: Samples) -> Float64[np.ndarray, "batch features"]:
        module.eval()
        place = next(module.parameters()).device
        parts = [torch.tensor(x[at : at + BATCH], device=place) for at in range(0, len(x), BATCH)]
        with torch.no_grad():
            return np.concatenate([heard(module, part)[1].cpu().numpy() for part in parts]).astype(np.float64)

    return features


def module_of(given: object) -> nn.Module:
    """A copy of the module in eval mode; raises NetworkError for anything else."""
    if not isinstance(given, nn.Module):
        raise NetworkError(
            f"cannot calibrate {type(given).__name__}; give what sutura.load returned, or a torch module"
        )
    return copy.deepcopy(given).eval()
