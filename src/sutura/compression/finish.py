"""The last step: of several plans and ways to finish, the network that changes held-out outputs least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sutura.compression.calibration import Calibration
from sutura.compression.factors import substitute
from sutura.compression.methods import METHODS, Plan
from sutura.compression.refit import fitted, normalised
from sutura.compression.study import Study
from sutura.network import ops
from sutura.network.graph import Network

AS_BUILT = "as built"

JUDGED = 64
"""Samples with which plans are compared before the best of them is finished on all."""


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A network, the method and the way of finishing that it came by, and its loss (None without samples)."""

    network: Network
    method: str
    finish: str
    loss: float | None


def finished(study: Study, plans: Mapping[str, Plan]) -> Finished:
    """The network that is best on the judging samples: of plans as built, and of ways to finish one.

    Which one is finished is decided with normalisations taken anew from a few samples: that alone tells how
    much of a loss is a mere shift of statistics.
    """
    samples = study.calibration
    built = {name: build(study, name, plan) for name, plan in plans.items()}
    if samples is None:
        return Finished(*next((network, name, AS_BUILT, None) for name, network in built.items()))
    found = [Finished(network, name, AS_BUILT, samples.loss(network)) for name, network in built.items()]
    if study.config.finish and not any(METHODS[name].published for name in built):
        best = _promising(found, samples)
        for finish, network in _ways(study, plans[best.method], best.network, samples):
            found.append(Finished(network, best.method, finish, samples.loss(network)))
    return min(found, key=_loss)


def _promising(found: Sequence[Finished], samples: Calibration) -> Finished:
    if len(found) == 1:
        return found[0]
    few = samples.fit[:JUDGED]
    return min(found, key=lambda f: min(_loss(f), samples.loss(normalised(f.network, few))))


def _ways(study: Study, plan: Plan, network: Network, samples: Calibration) -> Iterator[tuple[str, Network]]:
    """Ways to finish a network; those with new statistics only where it has normalisations."""
    split = [layer for layer, found in zip(study.layers, plan.splits, strict=True) if found is not None]
    fit = fitted(study.network, network, split, samples.fit, study.config.seed)
    yield "fitted", fit
    if any(isinstance(node.op, ops.BatchNormalization) for node in network.nodes):
        yield "normalised", normalised(network, samples.fit)
        yield "fitted, normalised", normalised(fit, samples.fit)


def _loss(found: Finished) -> float:
    return float("inf") if found.loss is None else found.loss


def build(study: Study, name: str, plan: Plan) -> Network:
    """The network of a plan, with the weights that the method gives its layers."""
    factors = study.planners[name].factors
    pairs = zip(study.layers, plan.splits, strict=True)
    parts = {layer.key: factors(layer, split) for layer, split in pairs if split is not None}
    return substitute(study.network, {layer.key: layer for layer in study.layers}, parts)
