"""What is trained on: labelled samples, or samples with the numbers they should give."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from sutura.errors import DataError

if TYPE_CHECKING:
    from sutura.dataset import Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Samples and the numbers that the network should give for them, batch first."""

    name: str
    x: Float32[np.ndarray, "batch *sample"]
    y: Float32[np.ndarray, "batch *output"]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Checked samples as tensors, and what tells them apart from all others."""

    x: Tensor
    y: Tensor
    sha256: str

    def __len__(self) -> int:
        return len(self.x)


def samples(module: nn.Module, data: Dataset | Targets, device: str) -> Samples:
    """The data as tensors on `device`, checked against what `module` takes and gives.

    Raises DataError in one line: no labels, no samples, NaN or infinities, a shape that the module does not
    take, labels or targets that do not fit its outputs.
    """
    x, y = np.ascontiguousarray(data.x), data.y
    if y is None:
        raise DataError(f"{data.name} has no labels; training needs y beside x")
    if x.ndim < 2 or not len(x) or x.dtype != np.float32:
        raise DataError(f"{data.name}: x is {x.dtype} of shape {x.shape}; give float32, batch axis first")
    if len(y) != len(x):
        raise DataError(f"{data.name}: {len(x)} samples but {len(y)} labels; give one each")
    for name, values in (("x", x), ("y", y)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int(np.argmin(np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
            raise DataError(f"{data.name}: {name} holds NaN or infinities in sample {bad}; remove it")
    _check_outputs(_outputs(module, data.name, x, device), data.name, y)
    digest = hashlib.sha256(x.tobytes() + np.ascontiguousarray(y).tobytes())
    digest.update(f"{x.shape} {y.shape} {y.dtype}".encode())
    return Samples(torch.tensor(x, device=device), torch.tensor(y, device=device), digest.hexdigest())


def _outputs(module: nn.Module, name: str, x: np.ndarray, device: str) -> tuple[int, ...]:
    """Shape of what the module gives for two samples, in eval mode."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            return tuple(module(torch.tensor(x[:2], device=device)).shape[1:])
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name}: the network does not take samples of shape {x.shape[1:]}: {reason}"
        ) from None
    finally:
        for part, mode in modes.items():
            part.training = mode


def _check_outputs(outputs: tuple[int, ...], name: str, y: np.ndarray) -> None:
    if y.dtype.kind in "iu":
        if y.ndim != 1:
            raise DataError(f"{name}: y has shape {y.shape}; give one integer label a sample")
        if len(outputs) != 1:
            raise DataError(f"{name}: the network gives shape {outputs} a sample, not one score a class")
        bad = np.flatnonzero((y < 0) | (y >= outputs[0]))
        if len(bad):
            raise DataError(
                f"{name}: label {y[bad[0]]} of sample {bad[0]} is out of range; the network has {outputs[0]} "
                f"classes, 0 to {outputs[0] - 1}"
            )
    elif y.shape[1:] != outputs or y.dtype != np.float32:
        raise DataError(
            f"{name}: y is {y.dtype} of shape {y.shape[1:]} a sample; the network gives float32 {outputs}"
        )
