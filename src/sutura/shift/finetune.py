"""Train shifted modules further, with the published settings as presets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn, optim

from sutura.shift.parametrisation import Rounding, clamp, drawn, shifted_module
from sutura.training.config import TrainConfig
from sutura.training.train import Moment, Objective, Trained, cross_entropy, train

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from sutura.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneConfig:
    """`method` "q" or "ps", `bits` 2 to 5, layers named in `keep` left out, and how to round and train.

    `scratch` draws the shifts and signs of DeepShift-PS as published, in place of the module's weights.
    Without `training` it is the published schedule for pretrained networks, PRESETS[method].
    """

    method: str = "ps"
    bits: int = 5
    keep: Collection[str] = ()
    rounding: Rounding = "deterministic"
    scratch: bool = False
    training: TrainConfig | None = None


def fine_tuned(module: nn.Module, data: Dataset, config: FineTuneConfig | None = None) -> Trained:
    """A copy of `module`, shifted and trained on labelled data by cross entropy; `plain` of it exports.

    From the weights it has, unless `scratch`. After each step parameters
    are clamped to their range, as the published code does before each forward pass. Raises ShiftError for a
    bad method or width, TrainingError and DataError as `train` does.
    """
    config = config or FineTuneConfig()
    made = shifted_module(module, config.method, config.bits, keep=config.keep, rounding=config.rounding)
    training = config.training or PRESETS[config.method]
    if config.scratch:
        made = drawn(made, training.seed)
    clamp(made)
    title = f"shift {config.method} {config.bits} {config.rounding}"
    return train(made, data, training, loss=Objective(cross_entropy, _clamped, title))


def radam(module: nn.Module, config: TrainConfig) -> Optimizer:
    """RAdam, with the weight decay of `config` on all but the shifts and signs of DeepShift-PS."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, part in module.named_parameters():
        groups[".parametrizations." in f".{name}"].append(part)
    settings = [{"params": groups[True], "weight_decay": 0.0}, {"params": groups[False]}]
    return optim.RAdam(
        [group for group in settings if group["params"]], lr=config.rate, weight_decay=config.decay
    )


def _clamped(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> None:
    clamp(module)


def _every_third(done: float) -> float:
    """A tenth of the rate after each third of the run: every 5 of 15 epochs."""
    return 0.1 ** int(3 * done)


PRESETS: dict[str, TrainConfig] = {
    "q": TrainConfig(
        epochs=15, batch=128, rate=1e-3, optimiser="sgd", schedule=_every_third, momentum=0.9, decay=1e-4
    ),
    "ps": TrainConfig(epochs=15, batch=128, rate=1e-3, optimiser=radam, schedule=_every_third, decay=1e-4),
}
"""Published settings from pretrained weights: SGD for Q, RAdam for PS."""
