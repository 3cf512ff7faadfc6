"""What an activation allows when neurons are merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sutura.network.ops import LeakyRelu, Relu, Sigmoid, Tanh


@dataclass(frozen=True, slots=True)
class Kind:
    """`scales`: s(r z) = r s(z) for r >= 0. `steepest`: no slope is larger in size.

    `reflection`: None, or (m, c) with s(-z) = m s(z) + c, so that opposite neurons can share one.
    """

    scales: bool
    steepest: float
    reflection: tuple[float, float] | None = None


def kind_of(op: object) -> Kind | None:
    """The kind of an activation operator; None where neurons behind it are not merged."""
    return KINDS[type(op)](op) if type(op) in KINDS else None


def _leaky(op: LeakyRelu) -> Kind:
    return Kind(True, max(1.0, abs(op.slope)), (1.0, 0.0) if op.slope == -1.0 else None)


KINDS: Mapping[type, Callable[[Any], Kind]] = {
    Relu: lambda _: Kind(True, 1.0),
    LeakyRelu: _leaky,
    Tanh: lambda _: Kind(False, 1.0, (-1.0, 0.0)),
    Sigmoid: lambda _: Kind(False, 0.25, (-1.0, 1.0)),
}
