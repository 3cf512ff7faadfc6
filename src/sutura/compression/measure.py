"""Before and after: measured time of one sample in ONNX Runtime and torch, and accuracy with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from sutura.compression.calibration import check_fits
from sutura.compression.compress import Compressed
from sutura.compression.latency import in_runtime, medians
from sutura.dataset import Dataset
from sutura.network.graph import Network
from sutura.network.predictions import accuracy, outputs_of

ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of the original and then of each compressed network; empty where they were not taken.

    Times are medians in seconds for one sample on one thread, all networks run in turn.
    """

    runtime: tuple[float, ...]
    torch: tuple[float, ...]
    accuracy: tuple[float, ...]


def measure(before: Network, found: Sequence[Compressed], test: Dataset | None = None) -> Measured:
    """Measure the original beside its compressed forms; torch where it is installed, accuracy with labels.

    Raises DataError where the labelled samples do not fit.
    """
    networks = [before, *(made.network for made in found)]
    runtime = medians([in_runtime(network) for network in networks], ROUNDS)
    torch = medians([_in_torch(network) for network in networks], ROUNDS) if find_spec("torch") else ()
    shares = tuple[float, ...]()
    if test is not None and test.y is not None:
        check_fits(before, test)
        shares = tuple(accuracy(outputs_of(network, test.x), test.y) for network in networks)
    return Measured(tuple(runtime), tuple(torch), shares)


def _in_torch(network: Network) -> Callable[[], object]:
    """Runs the network once as a PyTorch module, on one thread."""
    import torch

    from sutura.network.torch_write import to_module

    module = to_module(network)
    x = torch.tensor(np.random.default_rng(0).random((1, *network.input_shape), dtype=np.float32))

    def once() -> object:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                return module(x)
        finally:
            torch.set_num_threads(threads)

    return once
