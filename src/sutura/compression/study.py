"""All that serves every target of one network: its layers, calibration, and the tables of the methods."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from sutura.compression.budget import Budget, Kind, budget_of
from sutura.compression.calibration import Calibration, calibration
from sutura.compression.layers import Layer, Left, compressible
from sutura.compression.methods import METHODS, Planner, Task
from sutura.compression.moments import moments
from sutura.dataset import Dataset
from sutura.errors import CompressionError
from sutura.network.budget import shown
from sutura.network.graph import Network

PORTFOLIO = "portfolio"

WITH_DATA = ("whitened", "whitened-minimax", "frobenius", "exact-reference", "exact")
"""Methods of the portfolio, the best of which calibration samples pick."""

WITHOUT_DATA = ("frobenius",)
"""What stands for the portfolio where there are no samples to pick by."""


@dataclass(frozen=True, slots=True)
class CompressConfig:
    """What to keep, counted in what, and how.

    `target` is the share (above 0, at most 1) of the network's parameters, multiply-accumulate steps, bytes
    as ONNX, or measured seconds (ONNX Runtime, one thread, one sample) to keep. `method` is in METHODS or
    "portfolio": the best of several by held-out calibration samples, without samples `frobenius`. Networks of
    the methods of our own are finished by `refit` where there are samples, published ones left as published;
    `finish` False leaves all. `keep` names layers to leave alone, `samples` bounds how many samples are used.
    """

    target: float = 0.5
    budget: Kind = "params"
    method: str = PORTFOLIO
    finish: bool = True
    keep: tuple[str, ...] = ()
    samples: int = 400
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What `compress` works from; `seconds` is the time that the tables took."""

    network: Network
    layers: tuple[Layer, ...]
    left: tuple[Left, ...]
    budget: Budget
    planners: Mapping[str, Planner]
    calibration: Calibration | None
    config: CompressConfig
    seconds: float


def study(network: Network, config: CompressConfig, data: Dataset | None = None) -> Study:
    """Prepare a network for any target; raises what `compress` does."""
    started = time.perf_counter()
    names = _names(config, data is not None)
    layers, left = compressible(network, config.keep)
    samples = None if data is None else calibration(network, data, config.samples, config.seed)
    looks = any(METHODS[name].data for name in names)
    known = moments(network, layers, samples.fit, config.seed) if looks and samples is not None else {}
    budget = budget_of(network, layers, config.budget)
    task = Task(layers, budget, known, config.seed)
    planners = {name: METHODS[name].prepare(task) for name in names}
    return Study(network, layers, left, budget, planners, samples, config, time.perf_counter() - started)


def _names(config: CompressConfig, has_data: bool) -> tuple[str, ...]:
    """The methods that are prepared. Raises CompressionError for a choice that cannot be carried out."""
    if config.method == PORTFOLIO:
        return WITH_DATA if has_data else WITHOUT_DATA
    if config.method not in METHODS:
        near = get_close_matches(config.method, [PORTFOLIO, *METHODS], 1, 0.0)[0]
        raise CompressionError(f"there is no method {shown(config.method)}; the nearest name is {near!r}")
    method = METHODS[config.method]
    if method.data and not has_data:
        raise CompressionError(
            f"method {config.method} looks at what layers read: give calibration samples, no labels needed"
        )
    if config.budget == "latency" and method.published:
        ours = ", ".join(name for name, other in METHODS.items() if not other.published)
        raise CompressionError(
            f"method {config.method} cannot plan by measured time; budget macs, or use one of {ours}"
        )
    return (config.method,)
