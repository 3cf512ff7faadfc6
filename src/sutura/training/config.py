"""How to train: sizes, optimiser and schedule, by name or as a function of yours."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sutura.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    Factory = Callable[[nn.Module, "TrainConfig"], Optimizer]

Schedule = Callable[[float], float]
"""The share of the run that is done, 0 to 1 -> the factor of the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """`epochs` passes over the data in shuffled batches of `batch` samples (None: all of them at once).

    `optimiser` is one of OPTIMISERS or a function of the module and this configuration, `schedule` one of
    SCHEDULES or a function of the share done. `decay` is the optimiser's weight decay. A checkpoint is
    written and listeners hear after every `every` epochs, and after the last. `device` is a name of torch.
    """

    epochs: int = 10
    batch: int | None = 100
    rate: float = 1e-3
    optimiser: str | Factory = "adam"
    schedule: str | Schedule = "constant"
    momentum: float = 0.0
    decay: float = 0.0
    seed: int = 0
    every: int = 1
    device: str = "cpu"


def checked(config: TrainConfig) -> TrainConfig:
    """The same; raises TrainingError for a value out of range or a name that is not known."""
    numbers = {"epochs": config.epochs, "every": config.every, "batch": config.batch}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise TrainingError(f"{name}={value}; give at least 1")
    if not (math.isfinite(config.rate) and config.rate > 0):
        raise TrainingError(f"rate={config.rate}; give a finite learning rate above 0, such as 1e-3")
    if not 0 <= config.momentum < 1 or not 0 <= config.decay < math.inf:
        raise TrainingError(
            f"momentum={config.momentum}, decay={config.decay}; momentum is in [0, 1), decay finite, >= 0"
        )
    for kind, given, names in (
        ("optimiser", config.optimiser, OPTIMISERS),
        ("schedule", config.schedule, SCHEDULES),
    ):
        if isinstance(given, str) and given not in names:
            raise TrainingError(unknown(kind, given, names))
    return config


def unknown(kind: str, given: str, names: Collection[str]) -> str:
    """The message for a name that is not known, with the nearest that is."""
    near = difflib.get_close_matches(given, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no {kind} is called {given!r}{hint} known: {', '.join(sorted(names))}"


def optimiser_of(module: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimiser of the module's trainable parameters."""
    if not isinstance(config.optimiser, str):
        return config.optimiser(module, config)
    return OPTIMISERS[config.optimiser](module, config)


def schedule_of(config: TrainConfig) -> Schedule:
    """The schedule as a function."""
    return SCHEDULES[config.schedule] if isinstance(config.schedule, str) else config.schedule


def _optimiser(name: str, *, momentum: bool = False) -> Factory:
    def made(module: nn.Module, config: TrainConfig) -> Optimizer:
        from torch import optim

        trained = [p for p in module.parameters() if p.requires_grad]
        more: dict[str, Any] = {"momentum": config.momentum} if momentum else {}
        return getattr(optim, name)(trained, lr=config.rate, weight_decay=config.decay, **more)

    return made


OPTIMISERS: dict[str, Factory] = {
    "sgd": _optimiser("SGD", momentum=True),
    "rmsprop": _optimiser("RMSprop", momentum=True),
    "adam": _optimiser("Adam"),
    "adamw": _optimiser("AdamW"),
    "radam": _optimiser("RAdam"),
}

SCHEDULES: dict[str, Schedule] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "steps": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.75)),
}
