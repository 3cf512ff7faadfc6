"""Adversarial samples by one step along the sign of the gradient (FGSM), inputs or embeddings alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

TEN = tuple(round(0.05 * step, 2) for step in range(10))
"""Ten evenly spaced strengths in [0, 0.5)."""

Part = Callable[[nn.Module, Tensor], Tensor]


def _unchanged(module: nn.Module, x: Tensor) -> Tensor:
    return x


def _whole(module: nn.Module, h: Tensor) -> Tensor:
    return module(h)


@dataclass(frozen=True, slots=True)
class Space:
    """Where samples are perturbed: `enter` takes a batch there, `leave` from there to the scores.

    By default the inputs themselves, kept in [0, 1]; for words give the embedding and what follows it. A
    `low` or `high` of None leaves that side open.
    """

    enter: Part = _unchanged
    leave: Part = _whole
    low: float | None = 0.0
    high: float | None = 1.0

    @property
    def title(self) -> str:
        """The same in every process, unlike the functions' own repr."""
        return f"{self.enter.__qualname__} {self.leave.__qualname__} {self.low} {self.high}"

    def kept(self, h: Tensor) -> Tensor:
        """`h` within the limits."""
        return h if self.low is None and self.high is None else h.clamp(self.low, self.high)


INPUTS = Space()


def fgsm(module: nn.Module, x: Tensor, y: Tensor, strength: float | Tensor, space: Space) -> Tensor:
    """Points of `space` at clip(h + strength * sign(d cross entropy / d h)), for the true labels.

    The gradient is taken in eval mode (no dropout); the module is left in the mode it was in.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    h = space.enter(module, x).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(space.leave(module, h), y, reduction="sum"), h)
    for part, training in modes:
        part.training = training
    return space.kept(h.detach() + strength * gradient.sign())


def drawn(strengths: tuple[float, ...]) -> float:
    """One of the strengths, by torch's random numbers."""
    return strengths[int(torch.randint(len(strengths), (1,)))]
