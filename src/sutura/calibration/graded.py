"""Graded targets, our own training for probabilities that stay honest under shift.

Beside each batch a perturbed copy is learned, whose targets fade from the label to an even spread as the
perturbation grows: noise, mixing with another sample, shuffled blocks, adversarial steps, bending. What a
network learns is that confidence should fall with distance from the data, and it carries over to shifts of
other kinds. None of them moves, turns, leans or scales an image: the affine part of a bend is taken out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sutura.calibration.adversary import Space, fgsm
from sutura.calibration.falcon import penalty
from sutura.errors import CalibrationError
from sutura.training.config import unknown
from sutura.training.train import Moment, Objective

Kind = Literal["noise", "mix", "blocks", "adversary", "bend"]
Graded = tuple[Tensor, Tensor]
"""Perturbed samples, and the share of each target that is spread evenly (0 to 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedConfig:
    """Which perturbations (a sample gets one of them), the weight of what they teach, and its curve.

    A perturbation of strength u in [0, 1] spreads u ** `power` of the target evenly: at 2, slight ones hardly
    any. Strength 1 is normal noise of deviation `noise`, an adversarial step of `step`, an even mix, all
    blocks shuffled, pixels displaced by the share `bend` of the longer side (root mean square). `penalty`
    weighs the squared weights of the dense layers (L2). Samples are kept in [`low`, `high`].
    """

    kinds: tuple[Kind, ...] = ("noise", "mix", "blocks", "adversary", "bend")
    weight: float = 2.0
    power: float = 2.0
    noise: float = 1.0
    step: float = 0.5
    bend: float = 0.15
    penalty: float = 0.0
    low: float = 0.0
    high: float = 1.0


def graded(config: GradedConfig | None = None) -> Objective:
    """Mean cross entropy on the samples, and on perturbed ones with graded targets.

    Raises CalibrationError for an unknown kind of perturbation.
    """
    config = config or GradedConfig()
    for kind in config.kinds:
        if kind not in KINDS:
            raise CalibrationError(unknown("kind of perturbation", kind, KINDS))

    def loss(module: nn.Module, x: Tensor, y: Tensor, moment: Moment) -> Tensor:
        clean = functional.cross_entropy(module(x), y)
        points, spread = perturbed(module, x, y, config)
        scores = module(points)
        target = faded(y, spread**config.power, scores.shape[1])
        return (
            clean + config.weight * functional.cross_entropy(scores, target) + penalty(module, config.penalty)
        )

    return Objective(loss, title=f"graded {config!r}")


def faded(y: Tensor, spread: Tensor, classes: int) -> Tensor:
    """Targets (1 - spread) * label + spread / classes, a row a sample."""
    sharp = functional.one_hot(y, classes).to(spread.dtype)
    return torch.lerp(sharp, torch.full_like(sharp, 1 / classes), spread[:, None])


def perturbed(module: nn.Module, x: Tensor, y: Tensor, config: GradedConfig) -> Graded:
    """Each sample by one of the kinds, drawn evenly, at a strength drawn evenly from [0, 1)."""
    points, spread = x.clone(), torch.rand(len(x), device=x.device)
    kinds = torch.randint(len(config.kinds), (len(x),), device=x.device)
    for index, kind in enumerate(config.kinds):
        rows = (kinds == index).nonzero()[:, 0]
        if len(rows):
            points[rows] = KINDS[kind](module, x[rows], y[rows], spread[rows], config)
    return points, spread


def _rows(u: Tensor, x: Tensor) -> Tensor:
    """One number a sample, to be multiplied with samples."""
    return u.reshape(-1, *[1] * (x.ndim - 1))


def _noise(module: nn.Module, x: Tensor, y: Tensor, u: Tensor, config: GradedConfig) -> Tensor:
    return (x + config.noise * _rows(u, x) * torch.randn_like(x)).clamp(config.low, config.high)


def _mix(module: nn.Module, x: Tensor, y: Tensor, u: Tensor, config: GradedConfig) -> Tensor:
    other = x[torch.randperm(len(x), device=x.device)]
    return torch.lerp(x, other, _rows(u / 2, x))


def _adversary(module: nn.Module, x: Tensor, y: Tensor, u: Tensor, config: GradedConfig) -> Tensor:
    return fgsm(module, x, y, config.step * _rows(u, x), Space(low=config.low, high=config.high))


def _blocks(module: nn.Module, x: Tensor, y: Tensor, u: Tensor, config: GradedConfig) -> Tensor:
    """A share u of the blocks change places among themselves; a vector counts as an image of one row."""
    images = _images(x)
    height, width = images.shape[-2:]
    grids = [(_even(height, n), _even(width, n)) for n in (2, 4, 7, 14)]
    down, across = grids[int(torch.randint(len(grids), (1,)))]
    tall, wide, channels = height // down, width // across, images.shape[1]
    blocks = images.reshape(len(x), channels, down, tall, across, wide).permute(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(len(x), down * across, -1)
    order = partly_shuffled(len(x), down * across, u)
    moved = torch.gather(blocks, 1, order[:, :, None].expand_as(blocks))
    moved = moved.reshape(len(x), down, across, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
    return moved.reshape(x.shape)


def _images(x: Tensor) -> Tensor:
    return x[:, None, None] if x.ndim == 2 else x if x.ndim == 4 else x.reshape(len(x), 1, *x.shape[-2:])


def _bend(module: nn.Module, x: Tensor, y: Tensor, u: Tensor, config: GradedConfig) -> Tensor:
    """Elastic deformation by a smooth random field (Simard, Steinkraus and Platt 2003), not affine."""
    images = _images(x)
    height, width = images.shape[-2:]
    field = bends(len(x), height, width, x) * config.bend * max(height, width) * _rows(u, images)
    half = torch.tensor([max(width - 1, 1) / 2, max(height - 1, 1) / 2], dtype=x.dtype, device=x.device)
    grid = (_places(height, width, x) + field.permute(0, 2, 3, 1)) / half
    bent = functional.grid_sample(images, grid, padding_mode="border", align_corners=True)
    return bent.reshape(x.shape)


def bends(count: int, height: int, width: int, like: Tensor) -> Tensor:
    """Random smooth displacements of pixels, right and down, as count x 2 x height x width.

    Each is orthogonal to every affine map of the places, and its root mean square over the pixels is 1.
    """
    coarse = torch.randn(count, 2, 4, 4, dtype=like.dtype, device=like.device)
    field = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).flatten(2)
    places = _places(height, width, like).reshape(-1, 2)
    affine = torch.cat([torch.ones_like(places[:, :1]), places], dim=1)
    field = field - (field @ torch.linalg.pinv(affine).T) @ affine.T
    if height == 1:
        field = field * field.new_tensor([[1.0], [0.0]])
    size = field.square().sum(dim=1, keepdim=True).mean(dim=2, keepdim=True).sqrt()
    return (field / size.clamp(min=1e-12)).reshape(count, 2, height, width)


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """Column and row of each pixel, counted from the centre: height x width x 2."""
    rows, columns = (
        torch.arange(n, dtype=like.dtype, device=like.device) - (n - 1) / 2 for n in (height, width)
    )
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)


def _even(length: int, parts: int) -> int:
    """The number of equal parts, at least two where that can be, nearest to `parts`."""
    divisors = [n for n in range(2, length + 1) if length % n == 0] or [1]
    return min(divisors, key=lambda n: abs(n - parts))


def partly_shuffled(rows: int, count: int, share: Tensor) -> Tensor:
    """A permutation of 0 to `count` - 1 a row, in which a share of the places, drawn anew, are shuffled."""
    places = torch.arange(count, device=share.device).expand(rows, -1)
    chosen = torch.rand(rows, count, device=share.device) < share[:, None]
    first = torch.where(chosen, places, places + count).argsort(dim=1)
    drawn = torch.rand(rows, count, device=share.device)
    second = torch.where(chosen, drawn, places + count).argsort(dim=1)
    return torch.empty_like(first).scatter_(1, first, second)


KINDS: dict[str, Callable[[nn.Module, Tensor, Tensor, Tensor, GradedConfig], Tensor]] = {
    "noise": _noise,
    "mix": _mix,
    "blocks": _blocks,
    "adversary": _adversary,
    "bend": _bend,
}
