"""How much work an operator is: multiply-accumulate steps and parameters."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

from sutura.network import ops
from sutura.network.graph import Shape


def macs(op: ops.Op, output: Shape) -> int:
    """Multiply-accumulate steps for one sample, counted densely; a window counts one step an entry.

    Operators that only move numbers cost nothing, elementwise ones one step an output number.
    """
    size = math.prod(output)
    match op:
        case ops.MatMul():
            return size * op.weight.shape[0]
        case ops.Gemm():
            return op.weight.size
        case ops.Conv():
            return size * math.prod(op.weight.shape[1:])
        case ops.AveragePool() | ops.MaxPool():
            return size * math.prod(op.kernel)
        case ops.Reshape() | ops.Transpose() | ops.Pad() | ops.Concat() | ops.Take():
            return 0
        case _:
            return size


def parameters(op: ops.Op) -> int:
    """How many float32 numbers `op` holds."""
    values: list[Any] = [getattr(op, field.name) for field in fields(op)]
    return sum(v.size for v in values if isinstance(v, np.ndarray) and v.dtype == np.float32)
