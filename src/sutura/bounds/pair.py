"""Two networks over one input: their stages matched where they pair up, and both as one program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from scipy.sparse import csr_array, eye_array, issparse

from sutura.bounds.program import Affine, Elementwise, Layer, Matrix, MaxOf, Program
from sutura.bounds.stages import Stage, dense, stages


@dataclass(frozen=True, slots=True, eq=False)
class Twin:
    """A stage of the first network and the same stage of the second.

    With y the first network's activations and delta their difference from the second's, the difference before
    the activation is sum_k apart[k] @ y_k + second.weights[k] @ delta_k + bias, up to rounding.
    """

    first: Stage
    second: Stage
    apart: Mapping[int, Matrix]
    bias: Float64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """`twins` are None where the networks do not pair up; `joint` computes first - second over the reals."""

    first: Program
    second: Program
    twins: tuple[Twin, ...] | None
    joint: Program


def pair(first: Program, second: Program) -> Pair:
    """Two programs with as many inputs and outputs each, matched stage by stage if they can be."""
    assert first.inputs == second.inputs and first.outputs == second.outputs
    ours, theirs = stages(first), stages(second)
    same = len(ours) == len(theirs) and all(_alike(a, b) for a, b in zip(ours, theirs, strict=True))
    twins = tuple(_twin(a, b) for a, b in zip(ours, theirs, strict=True)) if same else None
    return Pair(first, second, twins, _joint(first, second))


def _alike(a: Stage, b: Stage) -> bool:
    match (a.activation, b.activation):
        case (None, None):
            return a.size == b.size
        case (Elementwise(op=one), Elementwise(op=other)):
            return a.size == b.size and one == other
        case (MaxOf(windows=one), MaxOf(windows=other)):
            return a.size == b.size and np.array_equal(one, other)
        case _:
            return False


def _twin(a: Stage, b: Stage) -> Twin:
    read = sorted({*a.weights, *b.weights})
    apart = {k: _minus(a.weights.get(k), b.weights.get(k)) for k in read}
    return Twin(a, b, apart, a.bias - b.bias)


def _minus(a: Matrix | None, b: Matrix | None) -> Matrix:
    if a is None or b is None:
        assert a is not None or b is not None
        return a if a is not None else -b  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
    return csr_array(a - b) if issparse(a) and issparse(b) else dense(a) - dense(b)


def _joint(first: Program, second: Program) -> Program:
    shift = len(first.layers)
    moved = [_shifted(layer, shift) for layer in second.layers]
    eye, zero = csr_array(eye_array(first.outputs)), np.zeros(first.outputs)
    last = Affine((shift, shift + len(moved)), (eye, csr_array(-eye)), zero, (eye, eye), zero, 0)
    return Program(first.inputs, (*first.layers, *moved, last))


def _shifted(layer: Layer, shift: int) -> Layer:
    if isinstance(layer, Affine):
        return replace(layer, sources=tuple(s + shift if s else 0 for s in layer.sources))
    return replace(layer, source=layer.source + shift if layer.source else 0)
