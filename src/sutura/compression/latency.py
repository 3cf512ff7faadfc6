"""How long networks and single layers run in ONNX Runtime, measured in turns so that drift hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64

from sutura.compression.candidates import Candidates
from sutura.compression.factors import Factors, substitute
from sutura.compression.folding import Split, costs, divisors, kernels, schemes
from sutura.compression.layers import Layer
from sutura.compression.trace import alone
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.run import open_session, run

Runs = Sequence[Callable[[], object]]

STEP = 8
"""Ranks are measured in multiples of this: runtimes work on blocks of 8 or 16 channels."""

FORMS = ((0, 1), (0, 2), (0, 4), (1, 1), (2, 1), (3, 1))
"""(scheme, k) of the splits that are measured; more groups run no faster."""

SMALL_ROUNDS = 25


QUIET = 0.1
"""The share of runs whose slowest tells what a quiet machine takes: other work only ever adds time."""


def medians(runs: Runs, rounds: int) -> list[float]:
    """The median seconds of each, all run in turn `rounds` times."""
    return _quantiles(runs, rounds, 0.5)


def quiet(runs: Runs, rounds: int) -> list[float]:
    """The seconds of each on a quiet machine, an estimate to plan by: a low quantile of runs in turn."""
    return _quantiles(runs, rounds, QUIET)


def _quantiles(runs: Runs, rounds: int, share: float) -> list[float]:
    times = np.empty((rounds + 2, len(runs)))
    for row in times:
        for at, once in enumerate(runs):
            started = time.perf_counter()
            once()
            row[at] = time.perf_counter() - started
    return np.quantile(times[2:], share, axis=0).tolist()


def in_runtime(network: Network, batch: int = 1) -> Callable[[], object]:
    """Runs the network once in ONNX Runtime on one thread, on a batch of fixed random numbers."""
    x = np.random.default_rng(0).random((batch, *network.input_shape), dtype=np.float32)
    return partial(run, open_session(write_onnx(network)), x)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the time of a layer depends on."""

    weight: tuple[int, ...]
    input: tuple[int, ...]
    windows: tuple[tuple[int, ...], ...]


Times = Mapping[Kind, Mapping[Split | None, float]]
"""Seconds of each split of each kind of layer; None stands for the layer as it is."""


def kind_of(layer: Layer) -> Kind:
    """What tells layers of different speed apart."""
    return Kind(layer.weight.shape, layer.input, (layer.strides, layer.pads, layer.dilations))


def measured(network: Network, layers: Sequence[Layer]) -> Times:
    """Seconds for one sample of each kind of layer, alone in a network: as it is, and split in many ways."""
    kinds = {kind_of(layer): layer for layer in layers}
    return {kind: _timed(network, layer) for kind, layer in kinds.items()}


def _timed(network: Network, layer: Layer) -> Mapping[Split | None, float]:
    dense = alone(network, layer.node)
    splits = list(_measurable(layer))
    parts = [substitute(dense, {layer.key: layer}, {layer.key: sketch(layer, split)}) for split in splits]
    found = quiet([in_runtime(net) for net in (dense, *parts)], SMALL_ROUNDS)
    return dict(zip((None, *splits), found, strict=True))


def _measurable(layer: Layer) -> Sequence[Split]:
    found = list[Split]()
    for scheme, groups in FORMS:
        if scheme not in schemes(layer, (scheme,)) or groups not in divisors(layer):
            continue
        cost = costs(layer, scheme, groups)
        step = max(1, STEP // groups)
        top = min(cost.full, layer.weight.size // cost.weights)
        found += [Split(scheme, groups, rank) for rank in range(step, top + 1, step)]
    return found


def sketch(layer: Layer, split: Split) -> Factors:
    """Factors of the right shapes, all zeros: to measure sizes and times."""
    inner, outer = kernels(layer, split.scheme)
    out, channels = layer.sides
    many = split.groups * split.rank
    encoder = np.zeros((many, channels // split.groups, *inner), np.float32)
    return Factors(split, encoder, np.zeros((out, many, *outer), np.float32), layer.bias)


def seconds(table: Candidates, times: Times) -> Float64[np.ndarray, " n"]:
    """Seconds of each candidate; infinite where it was not measured."""
    known = times[kind_of(table.layer)]
    return np.array([known.get(table.split(row), np.inf) for row in range(len(table.splits))])
