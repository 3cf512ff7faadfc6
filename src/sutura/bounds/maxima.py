"""Maxima as rectified differences: max(a, b) = b + relu(a - b), exactly over the reals.

A maximum of floats rounds nothing, so neither does the program that stands for it: its layers are charged no
rounding. Neurons can then be relaxed with free slopes and split, where a maximum could not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int64
from scipy.sparse import csr_array

from sutura.bounds.program import Affine, Elementwise, Layer, MaxOf, Program
from sutura.network.ops import Relu


def without_maxima(program: Program) -> Program:
    """The same function with every MaxOf layer as rounds of pairwise maxima. Values are renumbered."""
    layers: list[Layer] = []
    place = {0: 0}
    for at, layer in enumerate(program.layers, start=1):
        if isinstance(layer, MaxOf):
            _append_maximum(layers, place[layer.source], layer.windows, program.sizes[layer.source])
        elif isinstance(layer, Affine):
            layers.append(replace(layer, sources=tuple(place[s] for s in layer.sources)))
        else:
            layers.append(replace(layer, source=place[layer.source]))
        place[at] = len(layers)
    return Program(program.inputs, tuple(layers))


def _append_maximum(layers: list[Layer], source: int, windows: Int64[np.ndarray, "n k"], size: int) -> None:
    """Halve the windows until each is one entry."""
    while windows.shape[1] > 1:
        pairs = windows.shape[1] // 2
        first, second = windows[:, :pairs].reshape(-1), windows[:, pairs : 2 * pairs].reshape(-1)
        rest = windows[:, 2 * pairs :].reshape(-1)
        wide = len(first)
        difference = csr_array(_taken(first, size) - _taken(second, size))
        layers.append(_exact((source,), (difference,)))
        layers.append(Elementwise(len(layers), Relu(), wide))
        kept = _taken(np.concatenate([second, rest]), size)
        rises = csr_array((np.ones(wide), (np.arange(wide), np.arange(wide))), shape=(wide + len(rest), wide))
        layers.append(_exact((len(layers), source), (rises, kept)))
        source, size, count = len(layers), wide + len(rest), len(windows)
        left = np.arange(wide).reshape(count, pairs)
        windows = np.concatenate([left, wide + np.arange(len(rest)).reshape(count, -1)], axis=1)
    layers.append(_exact((source,), (_taken(windows.reshape(-1), size),)))


def _taken(entries: Int64[np.ndarray, " n"], size: int) -> csr_array:
    return csr_array((np.ones(len(entries)), (np.arange(len(entries)), entries)), shape=(len(entries), size))


def _exact(sources: tuple[int, ...], weights: tuple[csr_array, ...]) -> Affine:
    zero = np.zeros(len(weights[0].indptr) - 1)
    return Affine(sources, weights, zero, tuple(abs(w) for w in weights), zero, 0)
