"""condense(): a network's orientations, and the network with its neurons merged to a target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float64

from sutura.condensation.bound import merge_bound
from sutura.condensation.carry import Carry, CarryConfig, carry
from sutura.condensation.measure import LayerOrientations, measured
from sutura.condensation.merge import Merged, plan
from sutura.condensation.target import (
    accuracy_of,
    merged_to_share,
    merged_within_difference,
    merged_within_loss,
)
from sutura.dataset import Dataset
from sutura.errors import MismatchError, NetworkError
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded, load
from sutura.progress import Listener, silent
from sutura.property.spec import Property
from sutura.verdict.difference import DiffConfig, Difference, diff
from sutura.verdict.search import VerifyConfig

Decision = Literal["argmax", "argmin"]


@dataclass(frozen=True, slots=True)
class CondenseConfig:
    """At most one target: the share of hidden neurons to `keep`; the most points of accuracy to `lose` on
    `data`; or the certified difference, `at_most`, on the boxes of `region`. Without one nothing is merged.

    `data` and `region` may stand beside any target: accuracy and certified difference are then told.
    `prove` are properties to prove of the merged network and, through the difference, of the original.
    """

    keep: float | None = None
    lose: float | None = None
    at_most: float | None = None
    data: Dataset | None = None
    region: Property | None = None
    prove: tuple[Property, ...] = ()
    difference: DiffConfig = field(default_factory=DiffConfig)


@dataclass(frozen=True, slots=True, eq=False)
class Condensed:
    """The orientations of the original, and what merging made of it.

    `bound` is the data-free one over the region's boxes for each output (sound over the reals), `difference`
    the certified one there (sound for float32 execution); `accuracies` are before and after, in ONNX Runtime;
    `carries` says of each property that was to be proved what is known of the two networks.
    """

    layers: tuple[LayerOrientations, ...]
    merged: Merged | None
    bound: Float64[np.ndarray, " outputs"] | None
    difference: Difference | None
    accuracies: tuple[float, float] | None
    carries: tuple[Carry, ...] = ()

    @property
    def network(self) -> Network | None:
        """The smaller network, where one was asked for."""
        return None if self.merged is None else self.merged.network


def condense(loaded: Loaded, config: CondenseConfig | None = None, *, listen: Listener = silent) -> Condensed:
    """Measure the orientations of a network and merge neurons to the target asked for.

    Raises NetworkError where the target cannot be met or no layer can be merged, DataError and MismatchError
    where data or region do not fit.
    """
    config = config or CondenseConfig()
    network = loaded.network
    _check(config, network)
    layers = measured(network)
    if config.keep is None and config.lose is None and config.at_most is None:
        return Condensed(layers, None, None, None, None)
    merged, difference = _merged(network, config, listen)
    bound = None
    if config.region is not None:
        bound = _over_boxes(merged, config.region)
        if difference is None:
            difference = diff(loaded, _loaded(merged), config.region, config.difference, listen=listen)
    accuracies = None
    if config.data is not None:
        decision = config.difference.decision
        before, after = (accuracy_of(n, config.data, decision) for n in (network, merged.network))
        accuracies = before, after
    carries = tuple(_carry(loaded, merged, prop, config, listen) for prop in config.prove)
    return Condensed(layers, merged, bound, difference, accuracies, carries)


def _carry(loaded: Loaded, merged: Merged, prop: Property, config: CondenseConfig, listen: Listener) -> Carry:
    how = VerifyConfig(timeout=config.difference.timeout, seed=config.difference.seed)
    return carry(loaded, _loaded(merged), prop, CarryConfig(config.difference, how), listen=listen)


def _check(config: CondenseConfig, network: Network) -> None:
    targets = [t for t in (config.keep, config.lose, config.at_most) if t is not None]
    if len(targets) > 1:
        raise NetworkError(
            "give one target: the share to keep, the accuracy to lose, or the difference allowed"
        )
    if config.lose is not None and config.data is None:
        raise NetworkError(f"to lose at most {config.lose} points needs --data with labels to count them on")
    if config.at_most is not None and config.region is None:
        raise NetworkError(f"a difference of at most {config.at_most} needs --region to certify it on")
    if config.prove and not targets:
        raise NetworkError(
            f"to prove {config.prove[0].name} of a merged network, say how far to merge; else use `verify`"
        )
    for prop in (*(() if config.region is None else (config.region,)), *config.prove):
        if prop.inputs != network.input_size:
            raise MismatchError(
                f"{prop.name} has {prop.inputs} inputs; {network.name} has {network.input_size}"
            )


def _merged(network: Network, config: CondenseConfig, listen: Listener) -> tuple[Merged, Difference | None]:
    planned = plan(network)
    if config.keep is not None:
        return merged_to_share(planned, config.keep), None
    if config.lose is not None and config.data is not None:
        decision = config.difference.decision
        return merged_within_loss(planned, config.data, config.lose, decision, listen), None
    assert config.at_most is not None and config.region is not None
    return merged_within_difference(planned, config.region, config.at_most, config.difference, listen)


def _over_boxes(merged: Merged, region: Property) -> Float64[np.ndarray, " outputs"] | None:
    """The data-free bound over the box that holds all boxes; None where an activation has none."""
    hulls = [case.box.float32_hull() for case in region.cases]
    low = np.min([low for low, _ in hulls], axis=0).astype(np.float64)
    high = np.max([high for _, high in hulls], axis=0).astype(np.float64)
    try:
        return merge_bound(merged, low, high)
    except NetworkError:
        return None


def _loaded(merged: Merged) -> Loaded:
    return load(write_onnx(merged.network), name=merged.network.name)
