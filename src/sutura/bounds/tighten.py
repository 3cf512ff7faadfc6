"""Bounds of the open neurons with slopes of their own, layer after layer: full alpha-CROWN at the root."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.bounds import interval
from sutura.bounds.ascent import Domain, Effort, Start, ascend, plain_choice
from sutura.bounds.condensed import Block, Condensed
from sutura.bounds.crown import Bounds, Checkpoint, no_checkpoint
from sutura.bounds.leaf import Place, sound_values
from sutura.bounds.program import Elementwise, MaxOf, Program
from sutura.bounds.region import Region
from sutura.bounds.relaxation import LINES

ENTRIES = 1 << 20
"""Entries of the coefficients that are optimised together."""

Vector = Float32[np.ndarray, " n"]


def tighten(
    program: Program,
    region: Region,
    bounds: Bounds,
    net: Condensed,
    effort: Effort,
    checkpoint: Checkpoint = no_checkpoint,
) -> Bounds:
    """The bounds of a box with those of its open neurons improved, each by slopes of its own.

    Never worse than `bounds`. Sound for float32 execution: what the ascent finds is evaluated by `leaf`.
    """
    domain = Domain(net.low[None].copy(), net.high[None].copy())
    low, high = list(bounds.low), list(bounds.high)
    for index, block in enumerate(net.blocks):
        if not index:
            continue
        found = _block(program, region, (bounds, net), (domain, index), (effort, checkpoint))
        for ends, better, pick in ((low, found[0], np.maximum), (high, found[1], np.minimum)):
            whole = ends[block.source].copy()
            whole[0, block.entry] = pick(whole[0, block.entry], better)
            ends[block.source] = whole
        domain = _narrowed(domain, block, low[block.source][0], high[block.source][0])
    return rebuilt(program, replace(bounds, low=tuple(low), high=tuple(high)))


def _block(
    program: Program,
    region: Region,
    known: tuple[Bounds, Condensed],
    where: tuple[Domain, int],
    how: tuple[Effort, Checkpoint],
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Sound lower and upper bounds of the z of one block, from the domain of the blocks before it."""
    (bounds, net), (domain, index), (effort, checkpoint) = known, where, how
    block = net.blocks[index]
    size = block.stop - block.start
    step = max(1, ENTRIES // (2 * (len(net.varying) + block.start)))
    lows, highs = np.full(size, -np.inf), np.full(size, np.inf)
    for first in range(0, size, step):
        part = slice(first, min(size, first + step))
        start, signs, entry = _starts(net, block, part)
        many = Domain(
            *(np.repeat(v[:, : block.start], len(signs), axis=0) for v in (domain.low, domain.high))
        )
        earlier = net.blocks[:index]
        best = ascend(net, earlier, many, (start, plain_choice(earlier, many)), effort, checkpoint)
        unit = np.zeros((len(signs), program.sizes[block.source]))
        unit[np.arange(len(signs)), entry] = signs
        place = Place(program, region, bounds, net)
        value = sound_values(place, many, best.choice, (block.source, unit), checkpoint)
        half = len(signs) // 2
        lows[part], highs[part] = value[:half], -value[half:]
    return lows, highs


def _starts(net: Condensed, block: Block, part: slice) -> tuple[Start, Float64[np.ndarray, " r"], np.ndarray]:
    """Each neuron of a part of a block and its negative, as rows over what comes before the block."""
    at = slice(block.start + part.start, block.start + part.stop)
    ours = net.from_inputs[at], net.from_neurons[at, : block.start], net.bias[at]
    inputs, neurons, constant = (np.concatenate([v, -v]) for v in ours)
    count = part.stop - part.start
    entry = np.tile(block.entry[part], 2)
    return Start(inputs, neurons, constant), np.repeat([1.0, -1.0], count), entry


def _narrowed(
    domain: Domain, block: Block, low: Float64[np.ndarray, " n"], high: Float64[np.ndarray, " n"]
) -> Domain:
    """Rounded outward to float32."""
    ends = domain.low.copy(), domain.high.copy()
    ends[0][0, block.span] = np.nextafter(low[block.entry].astype(np.float32), np.float32(-np.inf))
    ends[1][0, block.span] = np.nextafter(high[block.entry].astype(np.float32), np.float32(np.inf))
    return Domain(*ends)


def rebuilt(program: Program, bounds: Bounds) -> Bounds:
    """The same bounds of the affine values, and what follows from them for the activations."""
    low, high, lines = list(bounds.low), list(bounds.high), list(bounds.lines)
    for at, layer in enumerate(program.layers, start=1):
        if isinstance(layer, Elementwise | MaxOf):
            ends = interval.activation(layer, low[layer.source], high[layer.source])
            low[at], high[at] = np.maximum(low[at], ends[0]), np.minimum(high[at], ends[1])
        if isinstance(layer, Elementwise):
            lines[at] = LINES[type(layer.op)](low[layer.source], high[layer.source], layer.op)
    return replace(bounds, low=tuple(low), high=tuple(high), lines=tuple(lines))
