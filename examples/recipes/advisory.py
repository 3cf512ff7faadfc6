"""A plain PyTorch module for module.toml: the network of examples/vertical_cas, its weights beside it."""

from __future__ import annotations

from torch import nn


def adviser() -> nn.Module:
    """Three hidden layers of 32 ReLU; state (height, climb rate, time) in, five scores out."""
    return nn.Sequential(
        nn.Linear(3, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 5),
    )
