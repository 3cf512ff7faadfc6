"""What an operator reader is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float32

from sutura.errors import NetworkError
from sutura.network.budget import shown, shown_shape
from sutura.network.graph import Shape
from sutura.network.onnx_file import Attribute
from sutura.network.onnx_tensor import Unreadable
from sutura.network.ops import Op

T = TypeVar("T")

BATCH = -(2**63)
"""Stands for the unknown batch length inside integer constants that come from Shape."""


@dataclass(frozen=True, slots=True)
class Activation:
    """A value that depends on the input; `shape` is that of one sample."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A value known at reading, with all its axes."""

    name: str
    array: np.ndarray


Value = Activation | Constant


@dataclass(frozen=True, slots=True)
class Applied:
    """Operators to apply: the first to `inputs`, each other to the result of the one before."""

    inputs: tuple[Activation, ...]
    ops: tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """What each output of a node with several outputs is."""

    outputs: tuple[Applied | Activation, ...]


Reading = Applied | Value | Parts
"""An activation means that the node changes nothing; a constant, that it was computed at reading."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One node with its inputs resolved (None where absent); `outputs` counts up to the last one in use.

    `listed` counts all outputs. Where not `batched`, axes of the file are axes of the sample.
    """

    operator: str
    opset: int
    batched: bool
    fixed_batch: bool
    inputs: tuple[Value | None, ...]
    outputs: int
    listed: int
    attributes: Mapping[str, Attribute]

    @property
    def lead(self) -> int:
        """How many axes a value of the file has before those of its sample: the batch axis, if any."""
        return int(self.batched)

    def axis(self, number: int, rank: int) -> int:
        """The sample axis that axis `number` of a value with `rank` axes in the file is.

        Raises NetworkError for the batch axis and for one that does not exist.
        """
        axis = number + rank if number < 0 else number
        if not self.lead <= axis < rank:
            where = "the batch axis" if axis == 0 and self.batched else f"axis {number}, which does not exist"
            raise NetworkError(f"works along {where}; only axes of the sample are supported")
        return axis - self.lead

    def input(self, index: int) -> Value | None:
        """The input at `index`, None where absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def activation(self, index: int = 0) -> Activation:
        """The input at `index`, which must depend on the network's input."""
        value = self.input(index)
        if not isinstance(value, Activation):
            raise NetworkError(f"input {index} must depend on the network's input; only constants elsewhere")
        return value

    def constant(self, index: int) -> Constant | None:
        """The input at `index`, which must be constant or absent."""
        value = self.input(index)
        if isinstance(value, Activation):
            raise NetworkError(f"input {index} is computed from the network's input; it must be a constant")
        return value

    def weight(self, index: int) -> Float32[np.ndarray, "*_"]:
        """The float32 constant at `index`, all finite."""
        value = self.constant(index)
        if value is None:
            raise NetworkError(f"input {index} is missing")
        return finite_weight(value)

    def optional_weight(self, index: int) -> Float32[np.ndarray, "*_"] | None:
        """As `weight`, None where absent."""
        return None if self.constant(index) is None else self.weight(index)

    def integers(self, index: int) -> tuple[int, ...] | None:
        """The integer constant at `index` as a flat tuple (BATCH for the batch length), None where absent."""
        value = self.constant(index)
        if value is None:
            return None
        if str(value.array.dtype) not in ("int32", "int64") or value.array.ndim > 1:
            raise NetworkError(f"tensor {shown(value.name)} must be a vector of integers")
        return tuple(int(v) for v in value.array.reshape(-1))

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return _typed(self.attributes.get(name, default), int, name)

    def number(self, name: str, default: float) -> float:
        """A finite number attribute."""
        value = _typed(self.attributes.get(name, default), float, name)
        if not np.isfinite(value):
            raise NetworkError(f"attribute {name} is {value}; it must be finite")
        return value

    def word(self, name: str, default: str) -> str:
        """A text attribute."""
        return _typed(self.attributes.get(name, default), str, name)

    def tuple_of(self, name: str) -> tuple[int, ...] | None:
        """An attribute that is a list of integers, None where absent."""
        value = self.attributes.get(name)
        if value is None:
            return None
        return tuple(_typed(v, int, name) for v in _typed(value, tuple, name))


def finite_weight(value: Constant) -> Float32[np.ndarray, "*_"]:
    """The numbers of a float32 constant; raises NetworkError naming it where one is not finite."""
    array = value.array
    if array.dtype != np.float32:
        raise NetworkError(f"tensor {shown(value.name)} has type {array.dtype}, where float32 is needed")
    if not np.isfinite(array).all():
        raise NetworkError(
            f"tensor {shown(value.name)} holds numbers that are not finite; train or export it again"
        )
    return array


def sample_constant(value: Constant, shape: Shape, *, batched: bool = True) -> Float32[np.ndarray, "*_"]:
    """A float32 constant that meets samples of `shape`, without the batch axis (of length 1) it may have."""
    array = finite_weight(value)
    if array.ndim <= len(shape):
        return array
    if batched and array.ndim == len(shape) + 1 and array.shape[0] == 1:
        return array[0]
    raise NetworkError(
        f"tensor {shown(value.name)} of {shown_shape(array.shape)} would mix the batch axis with samples of "
        f"{shown_shape(shape)}"
    )


def _typed(value: object, kind: type[T], name: str) -> T:
    if isinstance(value, kind):
        return value
    reason = value.reason if isinstance(value, Unreadable) else f"attribute {shown(name)} has the wrong type"
    raise NetworkError(reason)
