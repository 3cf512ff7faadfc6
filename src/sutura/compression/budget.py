"""What a compressed network may cost: parameters, multiply-accumulate steps, bytes of its file, or time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float64

from sutura.compression.candidates import Candidates
from sutura.compression.folding import Costs
from sutura.compression.latency import in_runtime, kind_of, measured, quiet, seconds
from sutura.compression.layers import Layer, learned
from sutura.network import ops
from sutura.network.cost import macs
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx

Kind = Literal["params", "macs", "bytes", "latency"]

ROUNDS = 30
"""Runs of a whole network."""


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers that training sets, multiply-accumulate steps of weights for one sample, bytes as ONNX."""

    params: int
    macs: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """One kind of cost for one network: of the whole, and of all but the weights of its layers.

    `price` gives the cost of each candidate of a layer, `rate` that of each rank of a split; for time, which
    is measured and not proportional to anything, `rate` is None.
    """

    kind: Kind
    whole: float
    fixed: float
    price: Callable[[Candidates], Float64[np.ndarray, " n"]]
    rate: Callable[[Costs], float] | None


def size(network: Network) -> Size:
    """The size of a network; steps are those of convolutions and linear layers, as the field counts them."""
    weighted = (n for n in network.nodes if isinstance(n.op, ops.Conv | ops.Gemm | ops.MatMul))
    steps = sum(macs(node.op, network.shapes[node.output]) for node in weighted)
    return Size(sum(learned(node.op) for node in network.nodes), steps, len(write_onnx(network)))


def budget_of(network: Network, layers: Sequence[Layer], kind: Kind) -> Budget:
    """What counts, for a network and those of its layers that can be split; time is measured here."""
    if kind == "latency":
        return _timed(network, layers)
    whole = size(network)
    if kind == "macs":
        split = sum(macs(layer.node.op, layer.output) for layer in layers)
        return Budget(kind, whole.macs, whole.macs - split, _steps, lambda costs: float(costs.steps))
    unit = 4.0 if kind == "bytes" else 1.0
    total = float(whole.bytes if kind == "bytes" else whole.params)
    split = unit * sum(layer.weight.size for layer in layers)
    return Budget(kind, total, total - split, partial(_weights, unit), lambda costs: unit * costs.weights)


def _steps(table: Candidates) -> Float64[np.ndarray, " n"]:
    return table.steps.astype(np.float64)


def _weights(unit: float, table: Candidates) -> Float64[np.ndarray, " n"]:
    return unit * table.weights


def _timed(network: Network, layers: Sequence[Layer]) -> Budget:
    """Layers are timed alone; only differences between their times matter, so what each run costs cancels."""
    times = measured(network, layers)
    price = partial(seconds, times=times)
    dense = sum(float(times[kind_of(layer)][None]) for layer in layers)
    whole = quiet([in_runtime(network)], ROUNDS)[0]
    return Budget("latency", whole, whole - dense, price, None)
