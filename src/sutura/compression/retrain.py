"""Training after compression with the learning rates of the end of training, once or target by target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sutura.compression.budget import size
from sutura.compression.compress import Compressed, compress
from sutura.compression.factors import recomposed
from sutura.compression.layers import compressible
from sutura.compression.study import CompressConfig
from sutura.dataset import Dataset
from sutura.errors import CompressionError
from sutura.extras import require
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.training.config import TrainConfig, schedule_of

if TYPE_CHECKING:
    from sutura.training.train import Objective


@dataclass(frozen=True, slots=True)
class RetrainConfig:
    """How the network was trained, and which last share of that is repeated after compression.

    `share` of the epochs, rounded to at least one: 0 is no retraining, 1 all of it.
    """

    training: TrainConfig
    share: float = 0.2


def rewound(config: RetrainConfig) -> TrainConfig:
    """The last epochs of a training as one of its own, learning rates as they were there.

    Learning-rate rewinding (Renda et al., 2020; section 3 of ALDS). Raises CompressionError for a share
    outside (0, 1].
    """
    if not 0.0 < config.share <= 1.0:
        raise CompressionError(f"share {config.share:g} of the epochs is none; give above 0, at most 1")
    whole, old = config.training.epochs, schedule_of(config.training)
    epochs = max(1, round(config.share * whole))
    before = (whole - epochs) / whole

    def late(done: float) -> float:
        return old(before + (1.0 - before) * done)

    return replace(config.training, epochs=epochs, schedule=late)


def retrain(
    made: Compressed, data: Dataset, config: RetrainConfig, *, objective: Objective | None = None
) -> Compressed:
    """The compressed network trained on labelled samples (see `train`); its splits stay.

    The account is as before but for sizes, `finish` and the loss, which is not known any more. Raises
    MissingExtraError without torch, DataError or TrainingError as training does.
    """
    require("torch", "torch")
    from sutura.network.torch_weights import with_weights
    from sutura.training.train import cross_entropy, train

    training = rewound(config)
    loss = cross_entropy if objective is None else objective
    module = train(made.module(), data, training, loss=loss).module
    network = with_weights(made.network, module.cpu())
    finish = f"{made.finish}, retrained for {training.epochs} epochs"
    return replace(
        made, network=network, onnx=write_onnx(network), after=size(network), finish=finish, loss=None
    )


def cascade(
    network: Network,
    targets: Sequence[float],
    data: Dataset,
    config: CompressConfig,
    retraining: RetrainConfig,
) -> Compressed:
    """Compress and retrain, target by target; each time the splits are made anew from recomposed layers.

    Each layer's factors are multiplied out before the next target, so that splits are never split again.
    """
    dense, made = network, compress(network, replace(config, target=1.0), data=data)
    for target in targets:
        made = retrain(compress(dense, replace(config, target=target), data=data), data, retraining)
        dense = whole_again(network, made, config.keep)
    return replace(made, before=size(network))


def whole_again(original: Network, made: Compressed, keep: tuple[str, ...] = ()) -> Network:
    """The network of `made` with each split multiplied out to one layer, in the nodes of the original."""
    layers = {layer.key: layer for layer in compressible(original, keep)[0]}
    splits = {layer.key: choice.split for layer, choice in zip(layers.values(), made.choices, strict=True)}
    return recomposed(original, made.network, layers, splits)
