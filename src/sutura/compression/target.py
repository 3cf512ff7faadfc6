"""From a target to a plan: what each method may spend, and whether the network then keeps what was asked."""

from __future__ import annotations

from sutura.compression.budget import Kind, size
from sutura.compression.factors import substitute
from sutura.compression.latency import in_runtime, quiet, sketch
from sutura.compression.methods import Plan
from sutura.compression.study import Study
from sutura.errors import CompressionError
from sutura.network.graph import Network

TRIES = 8
"""Bisections for the largest plan with which the network itself keeps a target of bytes or time."""

SLACK = 1.02
"""How far a measured time may be off its target: times of interleaved runs repeat to about this."""

ROUNDS = 60


def planned(study: Study, name: str, target: float) -> Plan:
    """The plan of a prepared method that keeps the target share.

    Parameters and steps are exact; bytes are those of a file with such layers, time is measured by running it
    beside the original. Raises CompressionError, which names the smallest reachable share, where none does.
    """
    budget, least = study.budget, study.planners[name].smallest
    most = max(least, target * budget.whole - budget.fixed)
    nominal = study.planners[name].plan(most)
    if _meets(study, nominal, target):
        return nominal
    found = study.planners[name].plan(least)
    if not _meets(study, found, target):
        raise CompressionError(
            f"target {target:g} of {WORDS[budget.kind]} cannot be met by method {name}; the smallest "
            f"reachable is {smallest(study, name):.3f}"
        )
    for _ in range(TRIES):
        middle = (least + most) / 2
        plan = study.planners[name].plan(middle)
        if _meets(study, plan, target):
            found, least = plan, middle
        else:
            most = middle
    return found


def _meets(study: Study, plan: Plan, target: float) -> bool:
    return kept(study, plan) <= target * (SLACK if study.budget.kind == "latency" else 1.0)


def smallest(study: Study, name: str) -> float:
    """The least share that a method can keep, rounded up to what can be asked for; an estimate of time."""
    planner = study.planners[name]
    return kept(study, planner.plan(planner.smallest)) + 0.0005


def kept(study: Study, plan: Plan) -> float:
    """The share that a network of this plan keeps of what is budgeted."""
    network = outline(study, plan)
    if study.budget.kind == "latency":
        after, before = quiet([in_runtime(network), in_runtime(study.network)], ROUNDS)
        return after / before
    return _amount(network, study.budget.kind) / study.budget.whole


def outline(study: Study, plan: Plan) -> Network:
    """A network with the shapes of the plan and zeros for weights."""
    pairs = zip(study.layers, plan.splits, strict=True)
    parts = {layer.key: sketch(layer, split) for layer, split in pairs if split is not None}
    return substitute(study.network, {layer.key: layer for layer in study.layers}, parts)


def _amount(network: Network, kind: Kind) -> float:
    found = size(network)
    return float({"params": found.params, "macs": found.macs, "bytes": found.bytes}[kind])


WORDS: dict[Kind, str] = {
    "params": "parameters",
    "macs": "multiply-accumulate steps",
    "bytes": "bytes",
    "latency": "measured time",
}
