"""How far a merged network can be from the original, from the weights alone. Sound over the reals.

For a 1-Lipschitz activation that scales and inputs |(x, 1)| <= R this is R sum_G sum_{j in G} |a_j| r_j |u_j
- v_G|;
deeper networks carry each layer's error on through the sizes of the weights that follow.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy.sparse import csr_array

from sutura.bounds import interval
from sutura.bounds.lower import lower_traced
from sutura.bounds.program import Affine, Elementwise, MaxOf, Program
from sutura.condensation.kinds import kind_of
from sutura.condensation.merge import Merged, Step
from sutura.errors import NetworkError

Array = np.ndarray
Span = tuple[Float64[Array, "1 n"], Float64[Array, "1 n"]]

ROOM = 1.0 + 1e-9
"""Covers the float64 rounding of the bound itself."""


def merge_bound(
    merged: Merged, low: Float64[Array, " inputs"], high: Float64[Array, " inputs"]
) -> Float64[Array, " outputs"]:
    """For every output, the most by which merging can move it anywhere in the box. Sound over the reals.

    Raises NetworkError where an operator behind a merged layer has no bounded slope.
    """
    total = np.zeros(merged.network.output_size)
    for step in merged.steps:
        total = total + _moved(step, (low[None].astype(np.float64), high[None].astype(np.float64)))
    return total


def _moved(step: Step, box: Span) -> Float64[Array, " outputs"]:
    """The error of one layer, at the network's output."""
    program, at = lower_traced(step.before)
    spans = _spans(program, box)
    start = at[step.block.activation.output]
    own = _own_error(step, spans, _weights_of(program, at[step.block.source.output]))
    errors: dict[int, Array] = {start: own}
    for value in range(start + 1, len(program.layers) + 1):
        carried = _carried(program.layers[value - 1], errors)
        if carried is not None:
            errors[value] = carried
    return errors.get(len(program.layers), np.zeros(program.outputs)) * ROOM


def _weights_of(program: Program, value: int) -> Affine:
    layer = program.layers[value - 1]
    assert isinstance(layer, Affine)
    return layer


def _own_error(step: Step, spans: list[Span], seen: Affine) -> Float64[Array, " n"]:
    """gap_j |(x, 1)| + rest_j for every entry of the activation; x is what its row of weights reads."""
    (source,), (matrix,) = seen.sources, seen.weights
    size = interval.magnitude(*spans[source])[0]
    if isinstance(matrix, csr_array):
        support = csr_array((np.ones(len(matrix.data)), matrix.indices, matrix.indptr), shape=matrix.shape)
        squares = support @ (size * size)
    else:
        squares = np.full(matrix.shape[0], float(size @ size))
    reach = np.sqrt(squares + 1.0)
    area = len(reach) // len(step.gap)
    return np.repeat(step.gap, area) * reach + np.repeat(step.rest, area)


def _spans(program: Program, box: Span) -> list[Span]:
    """Interval bounds of every value, over the reals."""
    spans = [box]
    for layer in program.layers:
        if isinstance(layer, Affine):
            lows, highs = [spans[s][0] for s in layer.sources], [spans[s][1] for s in layer.sources]
            spans.append(interval.affine(layer, lows, highs, np.zeros((1, layer.size))))
        else:
            spans.append(interval.activation(layer, *spans[layer.source]))
    return spans


def _carried(layer: Affine | Elementwise | MaxOf, errors: dict[int, Array]) -> Array | None:
    """The error behind a layer; None where nothing that moved reaches it."""
    if isinstance(layer, Affine):
        pairs = zip(layer.sources, layer.absolute, strict=True)
        parts = [np.asarray(matrix @ errors[s]) for s, matrix in pairs if s in errors]
        return np.sum(parts, axis=0) if parts else None
    if layer.source not in errors:
        return None
    if isinstance(layer, MaxOf):
        return errors[layer.source][layer.windows].max(axis=1)
    kind = kind_of(layer.op)
    if kind is None:
        raise NetworkError(
            f"{type(layer.op).__name__} behind a merged layer has no bounded slope; ask for a certified "
            "bound on a region instead"
        )
    return kind.steepest * errors[layer.source]
