"""Losses that people train with for better probabilities: label smoothing, evidence, adversarial samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sutura.calibration.adversary import INPUTS, Space, fgsm
from sutura.calibration.falcon import penalty
from sutura.training.train import Moment, Objective


def plain(weight: float = 0.0) -> Objective:
    """Mean cross entropy and `weight` times the squared weights of the dense layers."""

    def loss(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        return functional.cross_entropy(module(x), y) + penalty(module, weight)

    return Objective(loss, title=f"plain {weight}")


def label_smoothing(share: float = 0.1, weight: float = 0.0) -> Objective:
    """Cross entropy with `share` of every target spread over all classes (Szegedy et al. 2016, section 7)."""

    def loss(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        smoothed = functional.cross_entropy(module(x), y, label_smoothing=share)
        return smoothed + penalty(module, weight)

    return Objective(loss, title=f"label smoothing {share} {weight}")


def evidential(ramp: int = 10, weight: float = 0.0) -> Objective:
    """Squared error of a Dirichlet distribution and its divergence from an even one, on wrong evidence.

    Sensoy, Kaplan and Kandemir, NeurIPS 2018, equation 5 and below: alpha = relu(scores) + 1, the divergence
    weighs min(1, epoch / `ramp`). Predictions are alpha / sum of alpha (see `evidence`).
    """

    def loss(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        scores = module(x)
        target = functional.one_hot(y, scores.shape[1]).to(scores.dtype)
        alpha = functional.relu(scores) + 1
        total = alpha.sum(dim=1, keepdim=True)
        p = alpha / total
        risk = ((target - p).square() + p * (1 - p) / (total + 1)).sum(dim=1)
        share = min(1.0, moment.epoch / ramp)
        misled = divergence_from_even(target + (1 - target) * alpha)
        return (risk + share * misled).mean() + penalty(module, weight)

    return Objective(loss, title=f"evidential {ramp} {weight}")


def divergence_from_even(alpha: Tensor) -> Tensor:
    """Kullback-Leibler divergence of Dirichlet(alpha) from Dirichlet(1, ..., 1), a row each."""
    total = alpha.sum(dim=1, keepdim=True)
    count = alpha.new_tensor(float(alpha.shape[1]))
    normal = torch.lgamma(total.squeeze(1)) - torch.lgamma(count) - torch.lgamma(alpha).sum(dim=1)
    return normal + ((alpha - 1) * (torch.digamma(alpha) - torch.digamma(total))).sum(dim=1)


def adversarial(strength: float = 0.01, weight: float = 0.0, space: Space = INPUTS) -> Objective:
    """Cross entropy on the samples and on their FGSM versions, for members of an ensemble.

    Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017, algorithm 1.
    """

    def loss(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        points = fgsm(module, x, y, strength, space)
        clean = functional.cross_entropy(module(x), y)
        return clean + functional.cross_entropy(space.leave(module, points), y) + penalty(module, weight)

    return Objective(loss, title=f"adversarial {strength} {weight}")
