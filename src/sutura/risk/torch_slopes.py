"""Gradients by PyTorch, for networks that are large (needs the torch extra)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64

from sutura.network.graph import Network
from sutura.network.torch_write import to_module

BATCH_NUMBERS = 1 << 24
"""Input numbers that go through the network together."""


def torch_slopes(
    network: Network,
) -> Callable[
    [Float64[np.ndarray, "batch n"]],
    tuple[Float64[np.ndarray, "batch m"], Callable[[np.ndarray], np.ndarray]],
]:
    """Outputs in float32 and their gradients. Raises NetworkError for an operator without a PyTorch form."""
    module = to_module(network).requires_grad_(False)

    def slopes(
        x: Float64[np.ndarray, "batch n"],
    ) -> tuple[Float64[np.ndarray, "batch m"], Callable[[np.ndarray], np.ndarray]]:
        points = torch.from_numpy(x.astype(np.float32)).reshape(-1, *network.input_shape).requires_grad_(True)
        outputs = module(points).reshape(len(x), -1)

        def pull(seed: np.ndarray) -> np.ndarray:
            found = torch.autograd.grad(
                outputs, points, torch.from_numpy(seed.astype(np.float32)), retain_graph=True
            )
            return found[0].reshape(len(x), -1).numpy().astype(np.float64)

        return outputs.detach().numpy().astype(np.float64), pull

    return slopes
