"""A small classifier of synthetic images for recipes: made here, so that no data are needed."""

from __future__ import annotations

import numpy as np


def images(count, seed, side=8, classes=4):
    """Blurred bars at class-dependent places, with noise; pixels in 0 to 1."""
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=count)
    x = 0.15 * random.random((count, 1, side, side))
    for at, label in enumerate(y):
        place = 1 + 2 * (label % 2) * 2 + random.integers(0, 2)
        if label < 2:
            x[at, 0, place : place + 2] += 0.8
        else:
            x[at, 0, :, place : place + 2] += 0.8
    return np.clip(x, 0, 1).astype(np.float32), y.astype(np.int64)


def classifier(x, y, seed=0, width=16):
    """A trained dense ReLU classifier of these images."""
    import torch
    from torch import nn

    from sutura.dataset import Dataset
    from sutura.training.config import TrainConfig
    from sutura.training.train import train

    torch.manual_seed(seed)
    size = int(np.prod(x.shape[1:]))
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(size, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 4),
    )
    return train(module, Dataset("images", x, y), TrainConfig(epochs=8, batch=32, rate=3e-3)).module
