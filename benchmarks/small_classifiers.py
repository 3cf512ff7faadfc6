"""Two small convolutional networks, trained here in a minute: for MNIST and for scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from sutura.dataset import Dataset
from sutura.network.graph import Network
from sutura.network.torch_read import from_torch
from sutura.training.config import TrainConfig
from sutura.training.train import train

CALIBRATION = 2000
"""Training samples that calibration may draw from."""

MNIST = TrainConfig(epochs=2, batch=64, rate=0.05, optimiser="sgd", momentum=0.9, schedule="linear")
DIGITS = TrainConfig(epochs=40, batch=64, rate=0.05, optimiser="sgd", momentum=0.9, schedule="linear")
"""How the networks are trained."""


def mnist_data(data: Path, images: int) -> tuple[Dataset, Dataset]:
    """MNIST for training, and the first `images` of a fixed shuffle of its test part."""
    with np.load(data / "mnist" / "mnist.npz") as held:
        x, y, x_test, y_test = (held[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    order = np.random.default_rng(2026).permutation(len(x_test))[:images]
    return _dataset("mnist", x / 255.0, y), _dataset("mnist test", x_test[order] / 255.0, y_test[order])


def digits_data(_: Path, images: int) -> tuple[Dataset, Dataset]:
    """Digits of scikit-learn: 1,200 for training, the others to test."""
    held = load_digits()
    order = np.random.default_rng(2026).permutation(len(held.target))
    x, y = held.images[order] / 16.0, held.target[order]
    return _dataset("digits", x[:1200], y[:1200]), _dataset(
        "digits test", x[1200:][:images], y[1200:][:images]
    )


def _dataset(name: str, x: np.ndarray, y: np.ndarray) -> Dataset:
    return Dataset(name, x[:, None].astype(np.float32), y.astype(np.int64))


def mnist_module(seed: int) -> nn.Module:
    """Two convolutions of 5x5 with pooling, two linear layers: 431,080 parameters, no normalisation."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def digits_module(seed: int) -> nn.Module:
    """Three normalised convolutions of 3x3 and a linear layer: 8x8 inputs."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip


def _made(
    module: nn.Module, held: tuple[Dataset, Dataset], config: TrainConfig
) -> tuple[Network, Dataset, Dataset]:
    learned, test = held
    net = train(module, learned, config).module
    calibration = Dataset(learned.name, learned.x[:CALIBRATION], learned.y)
    if learned.y is not None:
        calibration = Dataset(learned.name, learned.x[:CALIBRATION], learned.y[:CALIBRATION])
    return from_torch(net, torch.tensor(test.x[:1])), calibration, test


def mnist(data: Path, images: int) -> tuple[Network, Dataset, Dataset]:
    """The MNIST network with calibration and test samples."""
    return _made(mnist_module(0), mnist_data(data, images), MNIST)


def digits(data: Path, images: int) -> tuple[Network, Dataset, Dataset]:
    """The digits network with calibration and test samples."""
    return _made(digits_module(0), digits_data(data, images), DIGITS)
