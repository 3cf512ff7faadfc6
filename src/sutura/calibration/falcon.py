"""FALCON, fast adversarial calibration, in its two forms (Tomani and Buettner, AAAI 2021, arXiv 2012.10923).

The paper adds two terms to the cross entropy: predictive entropy and the calibration error of adversarial
samples, which never enter the cross entropy. The code that its authors released computes both otherwise, and
gives the second an optimiser of its own; each form is here under its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sutura.calibration.adversary import INPUTS, TEN, Space, drawn, fgsm
from sutura.errors import CalibrationError
from sutura.training.config import unknown
from sutura.training.train import Moment, Objective, Step

Form = Literal["paper", "released"]

KERAS_SMALLEST = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class FalconConfig:
    """Weights and schedule; neither paper nor code states defaults, these come from a grid on 5,000 digits.

    `entropy` and `adversarial` are lambda_S and lambda_adv; they grow linearly from the first epoch to the
    share `entropy_full` and `adversarial_full` of the epochs. A batch is perturbed with probability
    `probability`, by one of `strengths`. `penalty` weighs the squared weights of the dense layers (L2).
    """

    form: Form = "released"
    entropy: float = 1.0
    adversarial: float = 10.0
    entropy_full: float = 1.0
    adversarial_full: float = 0.5
    probability: float = 1.0
    strengths: tuple[float, ...] = TEN
    penalty: float = 0.0
    space: Space = INPUTS


def entropy_paper(logits: Tensor, y: Tensor) -> Tensor:
    """Predictive entropy as published: mean over i of sum_j -(1/C) log(p_ij (1 - y_ij) + y_ij)."""
    log_p = functional.log_softmax(logits, dim=1)
    wrong = 1 - functional.one_hot(y, logits.shape[1]).to(log_p.dtype)
    return -(log_p * wrong).sum(dim=1).mean() / logits.shape[1]


def entropy_released(logits: Tensor, y: Tensor) -> Tensor:
    """Predictive entropy as released: mean cross entropy of an even spread over the wrong classes.

    The prediction p_ij (1 - y_ij) is divided by its sum and held within [1e-7, 1 - 1e-7], as Keras does; that
    quotient is a softmax over the wrong classes, which stays finite where all of theirs round to zero.
    """
    right = functional.one_hot(y, logits.shape[1]).bool()
    logs = functional.log_softmax(logits.masked_fill(right, -math.inf), dim=1)
    held = logs.clamp(math.log(KERAS_SMALLEST), math.log1p(-KERAS_SMALLEST))
    return -held.masked_fill(right, 0).sum(dim=1).mean() / (logits.shape[1] - 1)


def calibration_paper(logits: Tensor, y: Tensor, bins: int = 10) -> Tensor:
    """|ECE| of a batch: sum_m |B_m|/n |acc(B_m) - conf(B_m)|; the accuracies pass no gradient."""
    confidence, accuracy, inside = _binned(logits, y, bins)
    gap = inside.sum(dim=0) * accuracy - (inside * confidence[:, None]).sum(dim=0)
    return gap.abs().sum() / len(y)


def calibration_released(logits: Tensor, y: Tensor, bins: int = 10) -> Tensor:
    """1/2 sum_i (acc of i's bin - conf_i)^2 over a batch; the accuracies pass no gradient."""
    confidence, accuracy, inside = _binned(logits, y, bins)
    return 0.5 * ((inside * accuracy).sum(dim=1) - confidence).square().sum()


def _binned(logits: Tensor, y: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Confidences (n), accuracy of each bin (0, 1/M], ... (M), and which sample lies in which bin (n x M)."""
    confidence, predicted = torch.softmax(logits, dim=1).max(dim=1)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=logits.device)
    index = (torch.bucketize(confidence.detach(), edges) - 1).clamp(0, bins - 1)
    inside = functional.one_hot(index, bins).to(confidence.dtype)
    right = (predicted == y).to(confidence.dtype)
    return confidence, (right @ inside) / inside.sum(dim=0).clamp(min=1), inside


def annealed(weight: float, moment: Moment, full: float) -> float:
    """The weight in this epoch: linear in epochs, whole from the share `full` of them on."""
    return min(weight, (moment.epoch + 1) * weight / (moment.epochs * full)) if full else weight


def penalty(module: nn.Module, weight: float) -> Tensor | float:
    """`weight` times the squares of all weights of the dense layers."""
    dense = [part.weight.square().sum() for part in module.modules() if isinstance(part, nn.Linear)]
    return weight * torch.stack(dense).sum() if weight and dense else 0.0


def falcon(config: FalconConfig | None = None) -> Objective:
    """The losses, and in the released form the second optimiser's step, for `train` or any loop like it.

    Released: the optimiser's step on cross entropy and entropy, then one of plain gradient descent at the
    same rate on the adversarial calibration term, a sum over the batch. Paper: one step on the sum of all.
    Raises CalibrationError for another form.
    """
    config = config or FalconConfig()
    if config.form not in ENTROPY:
        raise CalibrationError(unknown("form of FALCON", config.form, ENTROPY))
    if config.form == "released":
        return Objective(_domain_loss(config), calibration_step(config), _title(config))
    within = _domain_loss(config)

    def loss(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        weight = annealed(config.adversarial, moment, config.adversarial_full)
        return within(module, x, y, moment) + weight * adversarial_term(module, x, y, config)

    return Objective(loss, title=_title(config))


def _title(config: FalconConfig) -> str:
    """All settings; the space by its functions' names, for their repr differs from process to process."""
    own = {each.name: getattr(config, each.name) for each in fields(config) if each.name != "space"}
    return f"falcon {own} {config.space.title}"


def _domain_loss(config: FalconConfig) -> Callable[[nn.Module, Tensor, Tensor, Moment], Tensor]:
    """Cross entropy, entropy term and penalty on the samples as they are."""

    def loss(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        logits = module(x)
        weight = annealed(config.entropy, moment, config.entropy_full)
        entropy = ENTROPY[config.form](logits, y)
        return functional.cross_entropy(logits, y) + weight * entropy + penalty(module, config.penalty)

    return loss


def adversarial_term(module: nn.Module, x: Tensor, y: Tensor, config: FalconConfig) -> Tensor:
    """The calibration term on adversarial versions of a batch; zero where chance leaves the batch out."""
    if not config.adversarial or torch.rand(()) >= config.probability:
        return x.new_zeros(())
    points = fgsm(module, x, y, drawn(config.strengths), config.space)
    return CALIBRATION[config.form](config.space.leave(module, points), y)


def calibration_step(config: FalconConfig) -> Step:
    """Plain gradient descent on the adversarial calibration term alone, to follow each optimiser's step."""

    def step(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> None:
        value = adversarial_term(module, x, y, config)
        if not value.requires_grad:
            return
        weights = [p for p in module.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(value, weights, materialize_grads=True)
        rate = moment.rate * annealed(config.adversarial, moment, config.adversarial_full)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= rate * gradient

    return step


ENTROPY = {"paper": entropy_paper, "released": entropy_released}
CALIBRATION = {"paper": calibration_paper, "released": calibration_released}
