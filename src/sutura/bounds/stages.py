"""A program as stages, each an affine map of earlier activations and then an activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.sparse import csr_array, eye_array, issparse

from sutura.bounds import interval
from sutura.bounds.crown import Bounds
from sutura.bounds.program import Affine, Elementwise, Matrix, MaxOf, Program, sources
from sutura.bounds.rounding import UNIT64, gamma

Array = Float64[np.ndarray, "batch n"]

ALLOWANCE = 4.0
"""Times gamma: float64 roundings of composing a stage's matrix, of using it, and of the sums around it."""


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """before = sum_k weights[k] @ after_k + bias, then `after` = the activation of `before`.

    Stage k of `weights` counts from 1; 0 is the input. `before` and `after` are where the program holds them.
    The last stage is the output and has no activation.
    """

    weights: Mapping[int, Matrix]
    bias: Float64[np.ndarray, " n"]
    activation: Elementwise | MaxOf | None
    before: int
    after: int

    @property
    def size(self) -> int:
        """Length of `before`."""
        return len(self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    weights: Mapping[int, Matrix]
    bias: np.ndarray


def stages(program: Program) -> tuple[Stage, ...]:
    """The program with its affine layers composed (in float64; `noise` charges for that)."""
    sums: dict[int, _Sum] = {0: _source(program.inputs, 0)}
    found: list[Stage] = []
    for at, layer in enumerate(program.layers, start=1):
        if isinstance(layer, Affine):
            sums[at] = _composed(layer, sums)
            continue
        read = sums[layer.source]
        found.append(Stage(read.weights, read.bias, layer, layer.source, at))
        sums[at] = _source(layer.size, len(found))
    end = len(program.layers)
    return (*found, Stage(sums[end].weights, sums[end].bias, None, end, end))


def _source(size: int, stage: int) -> _Sum:
    return _Sum({stage: csr_array(eye_array(size))}, np.zeros(size))


def _composed(layer: Affine, sums: Mapping[int, _Sum]) -> _Sum:
    weights: dict[int, Matrix] = {}
    bias = layer.bias
    for source, outer in zip(layer.sources, layer.weights, strict=True):
        bias = bias + outer @ sums[source].bias
        for stage, inner in sums[source].weights.items():
            product = outer @ inner
            weights[stage] = _total(weights[stage], product) if stage in weights else product
    return _Sum(weights, bias)


def _total(a: Matrix, b: Matrix) -> Matrix:
    return csr_array(a + b) if issparse(a) and issparse(b) else dense(a) + dense(b)


def dense(matrix: Matrix) -> Float64[np.ndarray, "n m"]:
    """The matrix without sparsity."""
    return csr_array(matrix).toarray() if issparse(matrix) else np.asarray(matrix)


def noise(program: Program, parts: Sequence[Stage], bounds: Bounds) -> tuple[Array, ...]:
    """For each stage, how far an executed `before` may lie from weights @ after + bias.

    The float32 errors of the affine layers on the way, carried through those after them, and what float64
    loses in composing and applying the stage.
    """
    errors: dict[int, Array] = {0: np.zeros_like(bounds.low[0])}
    sizes: dict[int, Array] = {0: interval.magnitude(bounds.low[0], bounds.high[0])}
    for at, layer in enumerate(program.layers, start=1):
        own = bounds.errors[at]
        if not isinstance(layer, Affine) or own is None:
            errors[at] = np.zeros_like(bounds.low[at])
            sizes[at] = interval.magnitude(bounds.low[at], bounds.high[at])
            continue
        pairs = list(zip(sources(layer), layer.absolute, strict=True))
        errors[at] = own + sum(errors[s] @ w.T for s, w in pairs)
        sizes[at] = layer.absolute_bias + sum(sizes[s] @ w.T for s, w in pairs)
    share = ALLOWANCE * gamma(interval.terms(program), UNIT64)
    return tuple(errors[part.before] + share * sizes[part.before] for part in parts)
