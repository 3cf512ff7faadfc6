"""The linear layers of a shifted network to be timed: as float32, and packed in the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sutura.shift.convert import Shifted
from sutura.shift.kernel import Activations, Decoding, Kernels, linear
from sutura.shift.layout import laid_out
from sutura.shift.pack import Packed

Run = Callable[[], object]


def linear_layers(
    made: Shifted, batch: int, using: Kernels | Decoding, activations: Sequence[Activations] = ("float32",)
) -> tuple[Run, ...]:
    """Runs of all linear layers on `batch` random samples: float32 in NumPy, then packed for each kind of
    activations. Empty where the network has none."""
    layers = [layer for layer in made.layers if len(layer.shape) == 2]
    if not layers:
        return ()
    random = np.random.default_rng(0)
    inputs = [random.random((batch, layer.values.shape[1]), dtype=np.float32) for layer in layers]
    scales = [1.0 if layer.scale is None else layer.scale[:, None] for layer in layers]
    dense = [
        np.asarray(layer.values * scale, np.float32) for layer, scale in zip(layers, scales, strict=True)
    ]
    packed = [
        laid_out(Packed.of(layer.name, layer.shape, layer.grid, layer.values, layer.scale))
        for layer in layers
    ]

    def plain() -> object:
        return [x @ weight.T for x, weight in zip(inputs, dense, strict=True)]

    def with_kernels(kind: Activations) -> Run:
        pairs = list(zip(packed, inputs, strict=True))
        return lambda: [linear(layout, x, activations=kind, using=using) for layout, x in pairs]

    return plain, *(with_kernels(kind) for kind in activations)
