"""The multiplicity of an activation: how flat it is at zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Activation = Callable[[Tensor], Tensor]

STEP = 1e-4
"""How far from zero one-sided derivatives are compared."""

TOLERANCE = 1e-9


def multiplicity(activation: Activation, most: int = 8) -> int | None:
    """The smallest p >= 1 with a p-th derivative at zero that is not zero; derivatives below p vanish.

    None where it is undefined: a derivative up to the p-th jumps at zero, as ReLU's first does, or all up to
    the `most`-th vanish. Derivatives come from nested automatic differentiation in float64 (arXiv 2105.11686,
    Definition 1).
    """
    for order, here in enumerate(_derivatives(activation, 0.0, most), start=1):
        left = _derivatives(activation, -STEP, order)[-1]
        right = _derivatives(activation, STEP, order)[-1]
        # Of a smooth function the three lie within a few STEP of each other.
        if abs(right - left) > 1e-2 * (1.0 + abs(here)):
            return None
        if abs(here) > TOLERANCE:
            return order
    return None


def _derivatives(activation: Activation, at: float, most: int) -> list[float]:
    """The first `most` derivatives at a point; zeros from where the graph is constant."""
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    value, found = activation(x), list[float]()
    for _ in range(most):
        if not value.requires_grad:
            break
        (value,) = torch.autograd.grad(value, x, create_graph=True, materialize_grads=True)
        found.append(float(value.detach()))
    return found + [0.0] * (most - len(found))
