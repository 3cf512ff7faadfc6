"""to_shift(): a network in, one whose weights are signed powers of two (times a scale) out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from sutura.dataset import Dataset
from sutura.errors import DataError, ShiftError
from sutura.network.budget import shown, shown_shape
from sutura.network.graph import Network
from sutura.network.onnx_write import digest_of, write_onnx
from sutura.network.read import Loaded, load
from sutura.shift.grid import Grid, log_rounded, ps_grid, q_grid
from sutura.shift.layers import Layer, Left, shiftable, with_rows
from sutura.shift.pack import Packed, pack
from sutura.shift.scaled import Rounded, scaled
from sutura.shift.sequential import converted

Source = Loaded | Network | Path | str | bytes | Any
"""A network, what `load` reads, or a PyTorch module in eval mode (with an example input)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftConfig:
    """`method` is one of METHODS, `bits` those of a weight, 2 to 5; layers named in `keep` stay as they are.

    For `ours`: `scale` is "free" (a float32 number for each output channel) or "power" (a power of two: no
    multiplication); of calibration data at most `samples` are used, drawn with `seed`.
    """

    method: str = "ours"
    bits: int = 5
    scale: Literal["free", "power"] = "free"
    keep: tuple[str, ...] = ()
    samples: int = 128
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ShiftedLayer:
    """A layer's weights: `scale * values` (no scale: 1), `values` on `grid`, an output channel a row.

    `error` is the relative error of the weights, |after - before| / |before|.
    """

    name: str
    shape: tuple[int, ...]
    grid: Grid
    values: Float32[np.ndarray, "out columns"]
    scale: Float32[np.ndarray, " out"] | None
    error: float

    @property
    def nominal_bits(self) -> int:
        """Bits of the weights, and 32 for each scale."""
        return self.grid.bits * self.values.size + (0 if self.scale is None else 32 * self.scale.size)


@dataclass(frozen=True, slots=True, eq=False)
class Shifted:
    """An ordinary float32 network with shifted weights, its ONNX bytes, and an account of every layer.

    Biases and normalisations stay float32 numbers.
    """

    network: Network
    onnx: bytes
    config: ShiftConfig
    layers: tuple[ShiftedLayer, ...]
    left: tuple[Left, ...]

    def packed(self) -> bytes:
        """The shifted weights as a .safetensors file of `bits` bits a weight; see sutura.shift.pack.

        Raises ShiftError where a layer of DeepShift-Q holds zeros beside its smallest power, for which there
        is no code left, or two layers have one name; MissingExtraError without safetensors.
        """
        parts = {
            layer.name: Packed.of(layer.name, layer.shape, layer.grid, layer.values, layer.scale)
            for layer in self.layers
        }
        if len(parts) < len(self.layers):
            raise ShiftError(
                f"{shown(self.network.name)} has two layers of one name, which no file can tell apart"
            )
        return pack(parts, onnx_sha256=self.network.sha256)


def to_shift(
    source: Source,
    config: ShiftConfig | None = None,
    *,
    data: Dataset | None = None,
    example: Any = None,
) -> Shifted:
    """The network with every layer's weights rounded to signed powers of two, without training.

    Methods `q` and `ps` round in the log domain as DeepShift does from pretrained weights. `ours` finds one
    scale for each output channel; with `data` (labels are not needed) it also feeds errors back over the
    columns and corrects biases and normalisations. The result computes something close, by estimate and not
    by proof. Raises ShiftError for a bad setting or a network without layers to shift, DataError where the
    data do not fit, NetworkError where the source cannot be read.
    """
    config = checked(config or ShiftConfig())
    network = _read(source, example)
    layers, left = shiftable(network, config.keep)
    if data is not None and config.method == "ours":
        found, made = _on_data(network, layers, config, data)
    else:
        found = {layer.index: METHODS[config.method](layer, config) for layer in layers}
        made = _substituted(network, found)
    accounts = tuple(_account(layer, found[layer.index], config) for layer in layers)
    made = replace(made, sha256=digest_of(made))
    return Shifted(made, write_onnx(made), config, accounts, left)


def checked(config: ShiftConfig) -> ShiftConfig:
    """The same; raises ShiftError for a value that is not offered."""
    q_grid(config.bits)
    for kind, given, known in (
        ("method", config.method, tuple(METHODS)),
        ("scale", config.scale, ("free", "power")),
    ):
        if given not in known:
            raise ShiftError(f"no {kind} is called {shown(str(given))}; known: {', '.join(known)}")
    if config.samples < 1:
        raise ShiftError(f"samples={config.samples}; give at least 1")
    return config


def _read(source: Source, example: Any) -> Network:
    if isinstance(source, Network):
        return source
    return source.network if isinstance(source, Loaded) else load(source, example=example).network


def _published(grid: Callable[[int], Grid]) -> Callable[[Layer, ShiftConfig], Rounded]:
    def rounded(layer: Layer, config: ShiftConfig) -> Rounded:
        values = log_rounded(layer.rows, grid(config.bits))
        one = np.ones(len(values), np.float32)
        loss = float(((values - layer.rows) ** 2).sum())
        return Rounded(_with_zero(values, grid(config.bits)), values, one, loss)

    return rounded


def _with_zero(values: Float32[np.ndarray, "out columns"], grid: Grid) -> Grid:
    """The grid with zero where exact zeros stayed zero and no power is too small for it; else `grid`."""
    sizes = np.abs(values[values != 0])
    fits = bool((sizes >= 2.0 ** ps_grid(grid.bits).lowest).all())
    return ps_grid(grid.bits) if sizes.size < values.size and fits else grid


def _ours(layer: Layer, config: ShiftConfig) -> Rounded:
    """With or without a zero on the grid, whichever loses less."""
    whole = config.scale == "power"
    both = (scaled(layer.rows, grid(config.bits), whole=whole) for grid in (q_grid, ps_grid))
    return min(both, key=lambda found: found.loss)


def _substituted(network: Network, found: Mapping[int, Rounded]) -> Network:
    nodes = tuple(
        with_rows(node, found[at].values * found[at].scale[:, None]) if at in found else node
        for at, node in enumerate(network.nodes)
    )
    return replace(network, nodes=nodes)


def _on_data(
    network: Network, layers: tuple[Layer, ...], config: ShiftConfig, data: Dataset
) -> tuple[Mapping[int, Rounded], Network]:
    if data.x.shape[1:] != network.input_shape or data.x.dtype != np.float32 or not len(data):
        raise DataError(
            f"{data.name}: samples are {data.x.dtype} {shown_shape(data.x.shape[1:])}, but "
            f"{shown(network.name)} takes float32 {shown_shape(network.input_shape)}"
        )
    chosen = np.random.default_rng(config.seed).permutation(len(data))[: config.samples]
    return converted(network, layers, config.bits, data.x[chosen], whole=config.scale == "power")


def _account(layer: Layer, found: Rounded, config: ShiftConfig) -> ShiftedLayer:
    change = found.values * found.scale[:, None] - layer.rows
    size = float(np.linalg.norm(layer.rows.astype(np.float64)))
    error = float(np.linalg.norm(change.astype(np.float64))) / (size or 1.0)
    scale = found.scale if config.method == "ours" else None
    return ShiftedLayer(layer.name, layer.shape, found.grid, found.values, scale, error)


METHODS: dict[str, Callable[[Layer, ShiftConfig], Rounded]] = {
    "q": _published(q_grid),
    "ps": _published(ps_grid),
    "ours": _ours,
}
"""Method -> how it rounds a layer without data."""
