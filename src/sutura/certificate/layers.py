"""The network part of an exported file as layers over flattened values, ready to be bounded.

Value 0 is the input; layer i defines value i + 1. Weights are float64 copies of the file's float32 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sutura.certificate.wire import Array

Float = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """y = weight x + bias; `roundings` bounds how many roundings a term passes in any order of summation."""

    source: int
    weight: Float
    absolute: Float
    bias: Float
    roundings: int


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """y = factor x + shift, elementwise; `mass` bounds the sum of absolute parts that make up the shift."""

    source: int
    factor: Float
    shift: Float
    mass: Float


@dataclass(frozen=True, slots=True)
class Sum:
    """y = left + sign * right."""

    left: int
    right: int
    sign: float


@dataclass(frozen=True, slots=True, eq=False)
class Select:
    """y[i] = joined[index[i]] of the sources joined, or `fill` where the index is -1."""

    sources: tuple[int, ...]
    index: Array
    fill: float


@dataclass(frozen=True, slots=True)
class Leaky:
    """y = x where x >= 0, else slope * x, with 0 <= slope <= 1; a slope of 0 is Relu."""

    source: int
    slope: float


@dataclass(frozen=True, slots=True)
class Clamp:
    """y = min(max(x, low), high) with low <= high, either infinite."""

    source: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Squash:
    """y = tanh(x), or the logistic function where not `tanh`."""

    source: int
    tanh: bool


@dataclass(frozen=True, slots=True, eq=False)
class Peak:
    """y[i] = the largest x[windows[i, j]] over all j; windows repeat an index where they are short."""

    source: int
    windows: Array


@dataclass(frozen=True, slots=True, eq=False)
class Pin:
    """In row r, y = value[r] where mask[r], else x."""

    source: int
    mask: Array
    value: Float


Layer = Dense | Scale | Sum | Select | Leaky | Clamp | Squash | Peak | Pin


@dataclass(frozen=True, slots=True)
class Program:
    """The layers, the sizes of the values 0..len(layers), and the value to bound."""

    layers: tuple[Layer, ...]
    sizes: tuple[int, ...]
    output: int
