"""Gradients by PyTorch, for networks that are large (needs the torch extra)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64

from sutura.network.graph import Network
from sutura.network.torch_write import to_module

KEPT_NUMBERS = 1 << 26
"""Numbers inside the network, of all samples together, that are kept for a gradient: a quarter gigabyte."""


def torch_slopes(
    network: Network,
) -> Callable[
    [Float64[np.ndarray, "batch n"]],
    tuple[Float64[np.ndarray, "batch m"], Callable[[np.ndarray], np.ndarray]],
]:
    """Outputs in float32 and their gradients. Raises NetworkError for an operator without a PyTorch form.

    What does not fit into KEPT_NUMBERS goes through the network in parts, and once more for its gradients.
    """
    module = to_module(network).requires_grad_(False)
    step = max(1, KEPT_NUMBERS // sum(math.prod(shape) for shape in network.shapes.values()))

    def graph(x: Float64[np.ndarray, "batch n"]) -> tuple[torch.Tensor, torch.Tensor]:
        points = torch.from_numpy(x.astype(np.float32)).reshape(-1, *network.input_shape).requires_grad_(True)
        return points, module(points).reshape(len(x), -1)

    def slopes(
        x: Float64[np.ndarray, "batch n"],
    ) -> tuple[Float64[np.ndarray, "batch m"], Callable[[np.ndarray], np.ndarray]]:
        parts = [slice(i, i + step) for i in range(0, max(1, len(x)), step)]
        with torch.set_grad_enabled(len(parts) == 1):
            kept = [graph(x[part]) for part in parts]
        outputs = torch.cat([out.detach() for _, out in kept]).numpy().astype(np.float64)

        def pull(seed: np.ndarray) -> np.ndarray:
            found: list[np.ndarray] = []
            for part in parts:
                points, out = kept[0] if len(parts) == 1 else graph(x[part])
                way = torch.from_numpy(seed[part].astype(np.float32))
                grad = torch.autograd.grad(out, points, way, retain_graph=len(parts) == 1)[0]
                found.append(grad.reshape(len(grad), -1).numpy().astype(np.float64))
            return np.concatenate(found)

        return outputs, pull

    return slopes
