"""A network on one box, reduced to the neurons that the box leaves open.

Every other neuron is a straight line there, so that what an open neuron reads is affine in the inputs and in
the open neurons before it: dense blocks, whatever the layers were. Bounds are optimised in this form, in
float32; nothing is proved in it (`leaf` does that, on the program itself).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from sutura.bounds.crown import Bounds, Checkpoint, no_checkpoint
from sutura.bounds.program import Affine, Elementwise, Program
from sutura.bounds.region import Region
from sutura.bounds.relaxation import PIECEWISE_LINEAR

CHUNK = 64
"""Rows carried backward together."""

Vector = Float32[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The open entries of one activation, `start` to `stop` of all open neurons; `at` is its value."""

    at: int
    source: int
    entry: Int64[np.ndarray, " k"]
    op: Any
    start: int
    stop: int

    @property
    def span(self) -> slice:
        """Where its neurons are among all."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True, eq=False)
class Condensed:
    """z = from_inputs @ x + from_neurons @ f(z) + bias for the open neurons, the same for the asked rows.

    `from_neurons` is block lower triangular. Only inputs `varying` are kept; they are centre +- radius. `low`
    and `high` hold z, rounded outward to float32.
    """

    varying: Int64[np.ndarray, " v"]
    fixed: Float64[np.ndarray, " inputs"]
    centre: Vector
    radius: Vector
    blocks: tuple[Block, ...]
    from_inputs: Float32[np.ndarray, "n v"]
    from_neurons: Float32[np.ndarray, "n n"]
    bias: Vector
    low: Vector
    high: Vector
    rows_inputs: Float32[np.ndarray, "m v"]
    rows_neurons: Float32[np.ndarray, "m n"]
    rows_bias: Vector

    @property
    def neurons(self) -> int:
        """Number of open neurons."""
        return len(self.bias)

    def inputs(self, x: Float32[np.ndarray, "batch v"]) -> Float64[np.ndarray, "batch inputs"]:
        """Whole inputs from their varying entries."""
        whole = np.repeat(self.fixed[None], len(x), axis=0)
        whole[:, self.varying] = x
        return whole


@dataclass(frozen=True, slots=True, eq=False)
class _Forms:
    """Rows as affine forms of inputs and open neurons."""

    inputs: Float64[np.ndarray, "r inputs"]
    neurons: Float64[np.ndarray, "r n"]
    constant: Float64[np.ndarray, " r"]


def condense(
    program: Program,
    region: Region,
    bounds: Bounds,
    rows: Float64[np.ndarray, "m outputs"],
    checkpoint: Checkpoint = no_checkpoint,
) -> Condensed:
    """The open neurons of a program on the single box of `region`, and rows @ output. An estimate (float32).

    The program has no MaxOf layer (see `maxima`).
    """
    blocks = _blocks(program, bounds)
    count = blocks[-1].stop if blocks else 0
    forms = [_neuron_forms(program, bounds, blocks, block, checkpoint) for block in blocks]
    asked = _forms(program, bounds, blocks, {len(program.layers): rows})
    low, high = region.low[0], region.high[0]
    varying = np.flatnonzero(high > low)
    centre = (low + high) / 2.0
    fixed = np.where(high > low, 0.0, low)
    inputs = np.concatenate([f.inputs for f in forms]) if forms else np.zeros((0, program.inputs))
    neurons = np.concatenate([f.neurons for f in forms]) if forms else np.zeros((0, count))
    constant = np.concatenate([f.constant for f in forms]) if forms else np.zeros(0)
    least = [bounds.low[b.source][0, b.entry] for b in blocks]
    most = [bounds.high[b.source][0, b.entry] for b in blocks]
    return Condensed(
        varying,
        np.where(high > low, centre, low),
        centre[varying].astype(np.float32),
        ((high - low) / 2.0)[varying].astype(np.float32),
        blocks,
        inputs[:, varying].astype(np.float32),
        neurons.astype(np.float32),
        (constant + inputs @ fixed).astype(np.float32),
        _outward(least, -np.inf),
        _outward(most, np.inf),
        asked.inputs[:, varying].astype(np.float32),
        asked.neurons.astype(np.float32),
        (asked.constant + asked.inputs @ fixed).astype(np.float32),
    )


def _outward(parts: list[Float64[np.ndarray, " k"]], end: float) -> Vector:
    whole = np.concatenate(parts) if parts else np.zeros(0)
    return np.nextafter(whole.astype(np.float32), np.float32(end))


def _blocks(program: Program, bounds: Bounds) -> tuple[Block, ...]:
    found: list[Block] = []
    for at, layer in enumerate(program.layers, start=1):
        if isinstance(layer, Elementwise):
            low, high = bounds.low[layer.source][0], bounds.high[layer.source][0]
            bent = (
                (low < 0) & (high > 0) if isinstance(layer.op, PIECEWISE_LINEAR) else np.ones(len(low), bool)
            )
            entry, start = np.flatnonzero(bent), found[-1].stop if found else 0
            if len(entry):
                found.append(Block(at, layer.source, entry, layer.op, start, start + len(entry)))
    return tuple(found)


def _neuron_forms(
    program: Program, bounds: Bounds, blocks: tuple[Block, ...], block: Block, checkpoint: Checkpoint
) -> _Forms:
    parts: list[_Forms] = []
    for first in range(0, len(block.entry), CHUNK):
        checkpoint()
        entry = block.entry[first : first + CHUNK]
        unit = np.zeros((len(entry), program.sizes[block.source]))
        unit[np.arange(len(entry)), entry] = 1.0
        parts.append(_forms(program, bounds, blocks, {block.source: unit}))
    return _Forms(
        np.concatenate([p.inputs for p in parts]),
        np.concatenate([p.neurons for p in parts]),
        np.concatenate([p.constant for p in parts]),
    )


def _forms(
    program: Program, bounds: Bounds, blocks: tuple[Block, ...], start: Mapping[int, np.ndarray]
) -> _Forms:
    """Carry rows backward through everything that is affine on the box; stop at open neurons."""
    flowing = dict(start)
    count = len(next(iter(start.values())))
    open_at = {b.at: b for b in blocks}
    neurons = np.zeros((count, blocks[-1].stop if blocks else 0))
    constant = np.zeros(count)
    for at in range(max(flowing), 0, -1):
        a = flowing.pop(at, None)
        if a is None:
            continue
        layer = program.layers[at - 1]
        if isinstance(layer, Affine):
            constant = constant + a @ layer.bias
            for source, weight in zip(layer.sources, layer.weights, strict=True):
                _accumulate(flowing, source, a @ weight)
            continue
        assert isinstance(layer, Elementwise)
        lines = bounds.lines[at]
        assert lines is not None
        slope = lines.lower_slope[0].copy()
        if at in open_at:
            neurons[:, open_at[at].span] = a[:, open_at[at].entry]
            slope[open_at[at].entry] = 0.0
        _accumulate(flowing, layer.source, a * slope)
    return _Forms(flowing.get(0, np.zeros((count, program.inputs))), neurons, constant)


def _accumulate(flowing: dict[int, np.ndarray], source: int, rows: np.ndarray) -> None:
    flowing[source] = flowing[source] + rows if source in flowing else rows
