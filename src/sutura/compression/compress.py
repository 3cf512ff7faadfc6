"""compress(): a network, a target and calibration samples in; a smaller network and an account of it out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sutura.compression.budget import Size, size
from sutura.compression.finish import finished
from sutura.compression.folding import Split, weights
from sutura.compression.layers import Left
from sutura.compression.methods import Plan
from sutura.compression.study import CompressConfig, Study, study
from sutura.compression.target import planned
from sutura.dataset import Dataset
from sutura.errors import CompressionError
from sutura.network.graph import Network
from sutura.network.onnx_write import write_onnx
from sutura.network.read import Loaded, load

Source = Loaded | Network | Path | str | bytes | Any
"""A network, what `load` reads, or a PyTorch module in eval mode (with an example input)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What became of a layer: its split (None: it stayed), and how many weights it had and has."""

    name: str
    split: Split | None
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Seconds:
    """Time spent on tables, which serve all targets, on choosing splits, and on the weights."""

    tables: float
    solve: float
    weights: float


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """A smaller network with the account of how it came about.

    `error` is the largest error of a layer by the measure of `method`; `loss` how far the outputs moved on
    held-out calibration samples, an estimate, None without samples. `finish` says how weights were finished.
    """

    network: Network
    onnx: bytes
    target: float
    method: str
    finish: str
    before: Size
    after: Size
    choices: tuple[Choice, ...]
    left: tuple[Left, ...]
    error: float
    loss: float | None
    seconds: Seconds

    def module(self) -> Any:
        """The network as a PyTorch module, which can be trained on; see sutura.network.torch_write."""
        from sutura.network.torch_write import to_module

        return to_module(self.network)


def compress(
    source: Source,
    config: CompressConfig | None = None,
    *,
    data: Dataset | None = None,
    example: Any = None,
) -> Compressed:
    """A network that keeps `config.target` of the parameters (or steps, bytes, seconds) and loses least.

    Layers are split in two thinner ones; the result is an ordinary network of the same input and output.
    It computes something close, by estimate and not by proof. With `data` (labels are not needed; where there
    are some, outputs are taken for scores of classes) splits lose least of what layers compute on it;
    without, least of their weights. Raises CompressionError where the target cannot be met, NetworkError
    where nothing can be compressed, DataError where the data do not fit.
    """
    config = config or CompressConfig()
    return at(study(read(source, example), config, data), config.target)


def curve(
    source: Source,
    targets: Sequence[float],
    config: CompressConfig | None = None,
    *,
    data: Dataset | None = None,
    example: Any = None,
) -> tuple[Compressed, ...]:
    """`compress` for several targets, in their order; the tables are made once. Not `config.target`."""
    prepared = study(read(source, example), config or CompressConfig(), data)
    return tuple(at(prepared, target) for target in targets)


def read(source: Source, example: Any = None) -> Network:
    """The network of a source."""
    if isinstance(source, Network):
        return source
    return source.network if isinstance(source, Loaded) else load(source, example=example).network


def at(prepared: Study, target: float) -> Compressed:
    """The smaller network for one target; see `compress`."""
    if not 0.0 < target <= 1.0:
        raise CompressionError(f"target {target:g} is no share; give a number above 0, at most 1")
    started = time.perf_counter()
    plans = {name: planned(prepared, name, target) for name in prepared.planners}
    chosen = time.perf_counter()
    best = finished(prepared, plans)
    done = time.perf_counter()
    return Compressed(
        network=best.network,
        onnx=write_onnx(best.network),
        target=target,
        method=best.method,
        finish=best.finish,
        before=size(prepared.network),
        after=size(best.network),
        choices=_choices(prepared, plans[best.method]),
        left=prepared.left,
        error=plans[best.method].error,
        loss=best.loss,
        seconds=Seconds(prepared.seconds, chosen - started, done - chosen),
    )


def _choices(prepared: Study, plan: Plan) -> tuple[Choice, ...]:
    pairs = zip(prepared.layers, plan.splits, strict=True)
    return tuple(
        Choice(layer.name, split, layer.weight.size, weights(layer, split)) for layer, split in pairs
    )
