"""The methods that need PyTorch: training on, ensembles trained anew, passes with dropout."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sutura.calibration.config import CalibrateConfig
from sutura.calibration.falcon import falcon
from sutura.calibration.fold import scores_part
from sutura.calibration.graded import graded
from sutura.calibration.made import Made, Run, Source
from sutura.calibration.objective import adversarial, evidential, label_smoothing, plain
from sutura.calibration.predict import dropout_probabilities, ensemble_probabilities, scores_of
from sutura.dataset import Dataset
from sutura.errors import CalibrationError
from sutura.network.torch_read import from_torch
from sutura.network.torch_write import to_module
from sutura.training.train import Objective, Trained, train


def retrained(name: str, source: Source, data: Dataset, config: CalibrateConfig, run: Run) -> Source:
    """The source after training on `data` with the objective of that name; a network becomes a network."""
    trained = _trained(_module(source), name, data, config, run)
    if source.network is None:
        return Source(None, trained.module, scores_of(trained.module))
    network = from_torch(trained.module, torch.zeros(1, *source.network.input_shape))
    return Source(network, trained.module, scores_of(trained.module))


def dropout(source: Source, config: CalibrateConfig) -> Made:
    """The mean of passes with dropout; only a module has dropout to draw from."""
    if source.module is None:
        raise CalibrationError("mc-dropout needs a PyTorch module with dropout; a network file has none")
    return Made(dropout_probabilities(source.module, passes=config.passes, seed=config.seed))


def ensemble(name: str, source: Source, data: Dataset, config: CalibrateConfig, run: Run) -> Made:
    """Members of the source's layers, with weights drawn anew by seed and trained on all the data."""
    members: list[nn.Module] = []
    for member in range(config.members):
        seed = config.train.seed + member
        fresh = drawn_anew(_module(source), seed)
        place = None if run.checkpoint is None else _numbered(run.checkpoint, member)
        how = replace(config, train=replace(config.train, seed=seed))
        members.append(_trained(fresh, name, data, how, Run(run.listen, place)).module)
    return Made(ensemble_probabilities([scores_of(member) for member in members]))


def drawn_anew(module: nn.Module, seed: int) -> nn.Module:
    """A copy of the module with every layer's weights drawn again, as the layer itself draws them.

    Raises CalibrationError for a layer with weights that does not say how it draws them.
    """
    fresh = copy.deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, layer in fresh.named_modules():
            if not list(layer.parameters(recurse=False)):
                continue
            draw = getattr(layer, "reset_parameters", None)
            if draw is None:
                raise CalibrationError(
                    f"layer {name or type(layer).__name__} cannot be drawn anew; name another method"
                )
            draw()
    return fresh


def _trained(module: nn.Module, name: str, data: Dataset, config: CalibrateConfig, run: Run) -> Trained:
    objective = OBJECTIVES[name](config)
    return train(module, data, config.train, loss=objective, listen=run.listen, checkpoint=run.checkpoint)


def _module(source: Source) -> nn.Module:
    """The module that gives the scores."""
    if source.module is not None:
        return source.module
    assert source.network is not None
    return to_module(scores_part(source.network))


def _numbered(place: Path, member: int) -> Path:
    return place.with_name(f"{place.stem}.{member}{place.suffix}")


OBJECTIVES: dict[str, Callable[[CalibrateConfig], Objective]] = {
    "plain": lambda config: plain(),
    "adversarial": lambda config: adversarial(),
    "label-smoothing": lambda config: label_smoothing(config.smoothing),
    "evidential": lambda config: evidential(),
    "falcon": lambda config: falcon(config.falcon),
    "graded": lambda config: graded(config.graded),
}
