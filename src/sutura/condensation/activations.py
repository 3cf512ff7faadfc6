"""The activations of the experiments, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": functional.softplus,
        "gelu": functional.gelu,
        "silu": functional.silu,
        "relu": torch.relu,
        "xtanh": lambda x: x * torch.tanh(x),
        "xxtanh": lambda x: x * x * torch.tanh(x),
    }
)
"""Name -> activation; xtanh is x tanh(x), xxtanh x^2 tanh(x)."""
