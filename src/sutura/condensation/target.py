"""How small a network may become: by a share, by a loss of accuracy, or by a certified difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Int64

from sutura.condensation.merge import Merged, Plan, merge
from sutura.dataset import Dataset
from sutura.errors import DataError, NetworkError
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.predictions import accuracy, outputs_of
from sutura.network.read import Loaded, load
from sutura.progress import Listener, Progress, silent
from sutura.property.spec import Property
from sutura.verdict.difference import DiffConfig, Difference, diff

Decision = Literal["argmax", "argmin"]


def merged_to_share(planned: Plan, share: float) -> Merged:
    """Keep this share (0 to 1] of the hidden neurons that can be merged, at least one a layer.

    Raises NetworkError for another share.
    """
    if not 0 < share <= 1:
        raise NetworkError(f"--merge {share}: give the share of hidden neurons to keep, above 0 and up to 1")
    return merge(planned, max(planned.least, round(share * planned.neurons)))


def merged_within_loss(
    planned: Plan, data: Dataset, points: float, decision: Decision, listen: Listener = silent
) -> Merged:
    """The smallest network found that loses at most so many points (hundredths) of accuracy on the data.

    Accuracy is ONNX Runtime's. Found by bisection, as if accuracy fell with size. Raises DataError where the
    data do not fit the network.
    """
    least = accuracy_of(planned.network, data, decision) - points / 100.0

    def kept(merged: Merged) -> bool:
        return accuracy_of(merged.network, data, decision) >= least - 1e-12

    return _smallest(planned, kept, listen)


def merged_within_difference(
    planned: Plan, region: Property, at_most: float, config: DiffConfig, listen: Listener = silent
) -> tuple[Merged, Difference]:
    """The smallest network found whose certified difference from the original on the region is no larger.

    Sound for float32 execution of both. Raises NetworkError where even merging nothing cannot be certified.
    """
    original = _loaded(planned.network)
    found: dict[int, Difference] = {}

    def kept(merged: Merged) -> bool:
        found[merged.kept] = diff(original, _loaded(merged.network), region, config)
        return found[merged.kept].largest <= at_most

    best = _smallest(planned, kept, listen)
    if best.kept not in found and not kept(best):
        raise NetworkError(
            f"even two runs of {planned.network.name} are only certified to differ by "
            f"{found[best.kept].largest:.3g} on {region.name};"
            f" ask for more than {at_most:g}, or a smaller region"
        )
    return best, found[best.kept]


def _smallest(planned: Plan, kept: Callable[[Merged], bool], listen: Listener) -> Merged:
    """Bisection between one neuron a layer and all of them, which are taken to do."""
    low, high = planned.least, planned.neurons
    best, done = merge(planned, high), 0
    while low < high:
        middle = (low + high) // 2
        merged = merge(planned, middle)
        if kept(merged):
            best, high = merged, middle
        else:
            low = middle + 1
        done += 1
        listen(Progress("merging", done, high - low, 1.0 - (high - low) / planned.neurons))
    return best


def accuracy_of(network: Network, data: Dataset, decision: Decision) -> float:
    """Share of the samples whose decision in ONNX Runtime is their label."""
    labels = _labels(network, data)
    found = outputs_of(network, data.x.reshape(len(data.x), *network.input_shape)).reshape(len(data.x), -1)
    return accuracy(found if decision == "argmax" else -found, labels)


def _labels(network: Network, data: Dataset) -> Int64[np.ndarray, " batch"]:
    if data.y is None:
        raise DataError(f"{data.name} has no labels y; a loss of accuracy needs them")
    if data.x[0].size != network.input_size:
        raise DataError(
            f"{data.name} has samples of shape {data.x.shape[1:]}; {network.name} takes {network.input_shape}"
        )
    if data.y.max() >= network.output_size:
        raise DataError(f"{data.name}: label {data.y.max()} is none of the {network.output_size} outputs")
    return data.y


def _loaded(network: Network) -> Loaded:
    return load(write_onnx(replace(network, sha256="")), name=network.name)
