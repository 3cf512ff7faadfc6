"""Initial weights small enough that neurons condense."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sutura.errors import TrainingError


def condensing(module: nn.Module, gamma: float = 1.5, seed: int = 0) -> nn.Module:
    """A copy with weights and biases drawn anew from N(0, m^(-2 gamma)), m the outputs of a layer.

    For gamma > 1 training starts in the condensed regime of the phase diagram (Luo et al., JMLR 2021; arXiv
    2105.11686, Section 3); for gamma < 1 in the linear one. Layers are nn.Linear and convolutions; the last
    one's m is its inputs, so that a single output does not make it large. Raises TrainingError where there is
    no such layer or gamma is not positive.
    """
    if not gamma > 0:
        raise TrainingError(f"gamma={gamma}; give a positive exponent, above 1 for condensation")
    drawn = copy.deepcopy(module)
    layers = [part for part in drawn.modules() if isinstance(part, LAYERS)]
    if not layers:
        raise TrainingError(f"{type(module).__name__} has no linear or convolutional layer to draw anew")
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            width = layer.weight.shape[1] if layer is layers[-1] else layer.weight.shape[0]
            for part in (layer.weight, layer.bias):
                if part is not None:
                    part.normal_(0.0, float(width) ** -gamma, generator=random)
    return drawn


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
