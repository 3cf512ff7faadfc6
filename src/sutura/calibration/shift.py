"""A shift of the domain: one kind of perturbation at rising strengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Perturb = Callable[[np.ndarray, float, int], np.ndarray]
"""Samples, strength, seed -> perturbed samples of the same shape and number type."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A kind of perturbation and the strengths at which it is measured, weakest first."""

    name: str
    strengths: tuple[float, ...]
    perturb: Perturb
