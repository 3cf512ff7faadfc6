"""The initial flow with every neuron at unit relative speed, to check predicted orientations against.

Adam equalises neurons and plain descent lets one win; this flow turns each neuron by the field of the data
and
keeps its length, so that its direction goes where the data draw it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sutura.condensation.field import Field
from sutura.condensation.orientation import Orientations, orientations

Array = np.ndarray


def normalised_flow(
    flow: Field,
    activation: Callable[[Tensor], Tensor],
    *,
    neurons: int = 100,
    steps: int = 4000,
    seed: int = 0,
) -> Orientations:
    """Where neurons of random directions and either sign of output weight come to rest.

    Each moves by the gradient of sum_i e_i a s(w . x_i) at length 1e-3, which for an activation of
    multiplicity
    p is a T u^(p-1) up to terms of that length; steps are as long as its own gradient is short.
    """
    random = torch.Generator().manual_seed(seed)
    x = torch.tensor(flow.x, dtype=torch.float64)
    error = torch.tensor(flow.error, dtype=torch.float64)
    u = torch.randn(neurons, x.shape[1], generator=random, dtype=torch.float64)
    u /= u.norm(dim=1, keepdim=True)
    sign = torch.where(torch.arange(neurons) % 2 == 0, 1.0, -1.0).to(torch.float64)
    for step in range(steps):
        w = (SMALL * u).requires_grad_(True)
        rise = ((activation(w @ x.T) * error).sum(dim=1) * sign).sum()
        (gradient,) = torch.autograd.grad(rise, w)
        sideways = gradient - (gradient * u).sum(dim=1, keepdim=True) * u
        scale = gradient.norm(dim=1, keepdim=True).clamp_min(1e-300)
        u = u + PACE * (1.0 - 0.5 * step / steps) * sideways / scale
        u = u / u.norm(dim=1, keepdim=True)
    return orientations(np.asarray(u.numpy(), dtype=np.float64), None)


SMALL = 1e-3
PACE = 0.2
"""Length of the weights, and of a step where the whole gradient is sideways."""
