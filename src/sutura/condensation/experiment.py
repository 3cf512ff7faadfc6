"""The experiments of arXiv 2105.11686: small initial weights, Adam, full batch, and the lines that appear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import final

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from sutura.condensation.activations import ACTIVATIONS
from sutura.condensation.orientation import Count, Orientations, count, orientations
from sutura.training.config import TrainConfig
from sutura.training.samples import Targets
from sutura.training.train import Moment, Objective, train

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Setting:
    """A target on `samples` points drawn from [low, high]^inputs, a network, and how it is trained.

    `activations` name those of the hidden layers, all `width` wide; `residual` adds each later layer's input
    to its output. Weights are drawn from N(0, deviation^2). `epochs` are when orientations are taken.
    """

    inputs: int
    samples: int
    low: float
    high: float
    target: Callable[[Float64[Array, "samples inputs"]], Float64[Array, " samples"]]
    activations: tuple[str, ...]
    width: int
    deviation: float
    rate: float
    epochs: tuple[int, ...]
    residual: bool = False
    grid: bool = field(default=False)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The orientations of every hidden layer after an epoch."""

    epoch: int
    layers: tuple[Orientations, ...]

    def counts(self, cosine: float = 0.95) -> tuple[Count, ...]:
        """Lines and orientations, layer by layer."""
        return tuple(count(layer, cosine) for layer in self.layers)


@final
class Perceptron(nn.Module):
    """Hidden layers of one width, an output without bias, as the paper writes them."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        sizes = [setting.inputs] + [setting.width] * len(setting.activations)
        self.hidden = nn.ModuleList(nn.Linear(n, setting.width) for n in sizes[:-1])
        self.output = nn.Linear(setting.width, 1, bias=False)
        self.activations = [ACTIVATIONS[name] for name in setting.activations]
        self.residual = setting.residual

    def forward(self, x: Tensor) -> Tensor:
        """Scores of a batch."""
        for at, (layer, activation) in enumerate(zip(self.hidden, self.activations, strict=True)):
            y = activation(layer(x))
            x = y + x if self.residual and at else y
        return self.output(x)


def points(setting: Setting, seed: int = 0) -> Targets:
    """The training data: random points, or evenly spaced ones for one input."""
    random = np.random.default_rng(seed)
    shape = (setting.samples, setting.inputs)
    x = random.uniform(setting.low, setting.high, shape)
    if setting.grid:
        x = np.linspace(setting.low, setting.high, setting.samples)[:, None]
    y = setting.target(x)
    return Targets("experiment", x.astype(np.float32), y[:, None].astype(np.float32))


def run(setting: Setting, seed: int = 0) -> tuple[Snapshot, ...]:
    """Train once and take the orientations after each of the setting's epochs."""
    return observed(_started(setting, seed), points(setting, seed), setting, seed)


def observed(module: nn.Module, data: Targets, setting: Setting, seed: int = 0) -> tuple[Snapshot, ...]:
    """Train a module with `hidden` layers on data, full batch, and take its orientations on the way."""
    taken: list[Snapshot] = []

    def look(trained: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> None:
        if moment.epoch + 1 in setting.epochs:
            taken.append(Snapshot(moment.epoch + 1, layers_of(trained)))

    config = TrainConfig(
        epochs=max(setting.epochs), batch=None, rate=setting.rate, seed=seed, every=max(setting.epochs)
    )
    train(module, data, config, loss=Objective(half_squared_error, look))
    return tuple(taken)


def half_squared_error(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
    """R = 1/(2n) sum (f(x_i) - y_i)^2."""
    return 0.5 * (module(x) - y).square().mean()


def layers_of(module: nn.Module) -> tuple[Orientations, ...]:
    """The orientations of every linear layer of a module but the last."""
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return tuple(_oriented(layer) for layer in linear[:-1])


def _oriented(layer: nn.Linear) -> Orientations:
    parts = dict(layer.named_parameters())
    bias = parts["bias"].detach().numpy() if "bias" in parts else None
    return orientations(layer.weight.detach().numpy(), bias)


def _started(setting: Setting, seed: int) -> Perceptron:
    module = Perceptron(setting)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.parameters():
            part.normal_(0.0, setting.deviation, generator=random)
    return module


def _waves(height: float, pace: float) -> Callable[[Array], Array]:
    return lambda x: (height * np.sin(pace * x + 1.0)).sum(axis=1)


def _two_tones(x: Float64[Array, "samples 1"]) -> Float64[Array, " samples"]:
    return np.sin(3.0 * x[:, 0]) + 0.5 * np.sin(6.0 * x[:, 0])


FIVE = Setting(5, 80, -4.0, 2.0, _waves(3.5, 5.0), ("tanh",), 50, 0.005, 1e-3, (100,))
ONE = Setting(1, 40, -1.0, 1.5, _two_tones, ("tanh",), 100, 0.005, 5e-4, (100, 200, 400), grid=True)

SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "five-tanh": FIVE,
        "five-sigmoid": replace(FIVE, activations=("sigmoid",), rate=8e-4, epochs=(100, 200)),
        "five-softplus": replace(FIVE, activations=("softplus",), rate=2.5e-4, epochs=(100, 200)),
        "five-xtanh": replace(FIVE, activations=("xtanh",)),
        "five-xxtanh": replace(FIVE, activations=("xxtanh",)),
        "five-relu": replace(FIVE, activations=("relu",)),
        "one-tanh": ONE,
        "one-xtanh": replace(ONE, activations=("xtanh",)),
        "one-xxtanh": replace(ONE, activations=("xxtanh",)),
        "six-layers": Setting(
            3, 80, -4.0, 2.0, _waves(4.0, 12.0),
            ("xxtanh", "xtanh", "sigmoid", "tanh", "softplus"),
            18, 0.01, 4e-5, (900, 1000, 1400), residual=True,
        ),
    }
)  # fmt: skip
"""Figures 2, 3, 5 and 6: name -> setting, as stated there; their random data are not published."""

OWN_EPOCH: Mapping[int, int] = MappingProxyType({0: 1000, 1: 900, 2: 900, 3: 1400, 4: 1400})
"""Of the six-layer network: hidden layer -> the epoch at which the paper shows it."""
