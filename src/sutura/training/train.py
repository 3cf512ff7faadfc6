"""The training loop: the same weights from the same seed, also when it was killed in between."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from sutura.errors import TrainingError
from sutura.training import checkpoint as standing
from sutura.training.config import TrainConfig, checked, optimiser_of, schedule_of
from sutura.training.samples import Samples, Targets, samples

if TYPE_CHECKING:
    from sutura.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in the run a batch stands: epoch and step count from 0; `rate` is the learning rate now."""

    epoch: int
    epochs: int
    step: int
    steps: int
    rate: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a listener hears: epochs done of how many, the mean loss of the last, seconds since the start."""

    done: int
    epochs: int
    loss: float
    seconds: float


Loss = Callable[[nn.Module, Tensor, Tensor, Moment], Tensor]
"""Module in training mode, x, y, moment -> the number to make small."""

Step = Callable[[nn.Module, Tensor, Tensor, Moment], None]
"""What else to do to the module after the optimiser's step on a batch."""

EpochListener = Callable[[Epoch], None]


def nothing_more(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> None:
    """No further step."""


def unheard(event: Epoch) -> None:
    """Listens to nothing."""


def cross_entropy(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
    """Mean cross entropy of scores and integer labels."""
    return functional.cross_entropy(module(x), y)


def squared_error(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
    """Mean squared difference of outputs and targets."""
    return functional.mse_loss(module(x), y)


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, and a step of one's own after each of the optimiser's; `title` tells runs apart."""

    loss: Loss = cross_entropy
    after: Step = nothing_more
    title: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A new module in eval mode, the mean loss of every epoch, seconds, epochs taken from a checkpoint."""

    module: nn.Module
    losses: tuple[float, ...]
    seconds: float
    resumed: int


def train(
    module: nn.Module,
    data: Dataset | Targets,
    config: TrainConfig | None = None,
    *,
    loss: Loss | Objective = cross_entropy,
    listen: EpochListener = unheard,
    checkpoint: Path | None = None,
) -> Trained:
    """Train a copy of `module`; the one given is not changed.

    The seed decides the order of the samples and every random number torch draws in the module and the loss,
    so that a machine gives the same weights again. With a `checkpoint` file the run writes there after each
    epoch (see TrainConfig.every) and goes on from there when it is called again with the same arguments; the
    result is the same as without the interruption. Put what the run depends on beside data, weights and
    configuration, such as the settings of a loss, into Objective.title. Raises DataError for data that do not
    fit the module, TrainingError for a bad configuration, a loss that is not finite or a foreign checkpoint,
    OutputError where a checkpoint cannot be written.
    """
    config = checked(config or TrainConfig())
    objective = loss if isinstance(loss, Objective) else Objective(loss)
    module = _copied(module, config.device)
    held = samples(module, data, config.device)
    optimiser = optimiser_of(module, config)
    run, losses = _identity(module, held, config, objective), tuple[float, ...]()
    if checkpoint is not None and checkpoint.exists():
        losses = standing.read(checkpoint, run, module, optimiser).losses
    resumed, started = len(losses), time.monotonic()
    rates = [group["lr"] for group in optimiser.param_groups]
    with _own_randomness(config.device):
        for epoch in range(resumed, config.epochs):
            loss_of_epoch = _epoch(module, held, config, objective, optimiser, (epoch, rates))
            losses = (*losses, loss_of_epoch)
            if (epoch + 1) % config.every and epoch + 1 < config.epochs:
                continue
            if checkpoint is not None:
                standing.write(checkpoint, standing.Standing(run, losses), module, optimiser)
            listen(Epoch(epoch + 1, config.epochs, losses[-1], time.monotonic() - started))
    return Trained(module.eval(), losses, time.monotonic() - started, resumed)


def _copied(module: nn.Module, device: str) -> nn.Module:
    try:
        return copy.deepcopy(module).to(device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"device={device!r} cannot be used: {reason}; give 'cpu', or 'cuda'") from None


def _epoch(
    module: nn.Module,
    data: Samples,
    config: TrainConfig,
    objective: Objective,
    optimiser: Optimizer,
    place: tuple[int, list[float]],
) -> float:
    """One pass; the mean loss over its samples."""
    epoch, rates = place
    torch.manual_seed(_seed(config.seed, epoch))
    batches = list(_batches(len(data), config.batch))
    schedule, total = schedule_of(config), 0.0
    module.train()
    for step, batch in enumerate(batches):
        factor = schedule((epoch * len(batches) + step) / (config.epochs * len(batches)))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        moment = Moment(epoch, config.epochs, step, len(batches), config.rate * factor)
        x, y = data.x[batch], data.y[batch]
        optimiser.zero_grad()
        value = objective.loss(module, x, y, moment)
        told = _finite(value.item(), moment, config)
        value.backward()
        optimiser.step()
        objective.after(module, x, y, moment)
        total += told * len(batch)
    if not standing.finite(module):
        raise TrainingError(f"a weight is no longer finite after epoch {epoch + 1}; {_advice(config)}")
    return total / len(data)


def _finite(value: float, moment: Moment, config: TrainConfig) -> float:
    if math.isfinite(value):
        return value
    raise TrainingError(
        f"the loss is {value} in epoch {moment.epoch + 1}, step {moment.step + 1} of {moment.steps}; "
        f"{_advice(config)}"
    )


def _advice(config: TrainConfig) -> str:
    return f"give a rate below {config.rate:g}"


def _batches(count: int, size: int | None) -> Iterable[Tensor]:
    """All samples in random order; a last batch of one joins the one before, as batch norm needs two."""
    parts = list(torch.randperm(count).split(size or count))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _seed(seed: int, epoch: int) -> int:
    """One seed an epoch, so that an epoch depends on no random number drawn before it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "big") >> 1


@contextmanager
def _own_randomness(device: str) -> Generator[None]:
    """Leave the caller's random state as it was."""
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def _identity(module: nn.Module, data: Samples, config: TrainConfig, objective: Objective) -> str:
    """What the result depends on, as a digest."""
    settings = [config.epochs, config.batch, config.rate, config.momentum, config.decay, config.seed]
    named = [_name(part) for part in (config.optimiser, config.schedule, objective.loss, objective.after)]
    digest = hashlib.sha256(standing.state_bytes(module))
    digest.update(repr([data.sha256, settings, named, objective.title]).encode())
    return digest.hexdigest()


def _name(part: object) -> str:
    return part if isinstance(part, str) else str(getattr(part, "__qualname__", type(part).__qualname__))
