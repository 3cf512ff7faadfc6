"""A shifted network as ordinary quantised ONNX: its weights int8, made float32 again by DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8, Int64

from sutura.network import ops
from sutura.network.graph import Node
from sutura.network.onnx_write import to_model
from sutura.shift.convert import Shifted, ShiftedLayer

SPANS = (6, 14)
"""One plane of int8 holds powers this far apart, two planes those."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """The bytes of the file; names of layers by planes of int8; `float32` names those left as they are."""

    onnx: bytes
    one: tuple[str, ...]
    two: tuple[str, ...]
    float32: tuple[str, ...]


def quantised(made: Shifted) -> Quantised:
    """The same network, bit for bit in its weights, with 8 bits a weight (powers of 4 bits) or 16 (of 5).

    A row of weights whose powers lie at most 6 apart is one plane of int8 with one scale an output channel,
    which is what quantised networks are everywhere; up to 14 apart it is the sum of two such planes. A layer
    whose powers lie further apart (5 bits without zero can) stays float32. Activations stay float32.
    """
    model, layers = to_model(made.network), {layer.name: layer for layer in made.layers}
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes, found = list[Any](), {0: list[str](), 1: list[str](), 2: list[str]()}
    for written, node in zip(list(model.graph.node), made.network.nodes, strict=True):
        layer = layers.get(node.name or node.output)
        if layer is not None and isinstance(node.op, ops.Conv | ops.Gemm | ops.MatMul):
            parts = planes(layer)
            found[len(parts)].append(layer.name)
            if parts:
                model.graph.initializer.remove(held[written.input[1]])
                nodes += _dequantised(model, written.input[1], node, parts)
        nodes.append(written)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    data = model.SerializeToString(deterministic=True)
    return Quantised(data, *(tuple(found[count]) for count in (1, 2, 0)))


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Whole numbers and the scale of each row of them."""

    whole: Int8[np.ndarray, "out columns"]
    scale: Float32[np.ndarray, " out"]


def planes(layer: ShiftedLayer) -> tuple[Plane, ...]:
    """One or two planes whose sum is the layer's weights exactly; none where powers lie too far apart."""
    exponents = np.frexp(layer.values)[1] - 1
    used = layer.values != 0
    lowest = np.where(used, exponents, 0).min(axis=1)
    span = int((np.where(used, exponents, lowest[:, None]).max(axis=1) - lowest).max())
    count = next((n for n, limit in enumerate(SPANS, 1) if span <= limit), 0)
    whole = np.ldexp(layer.values.astype(np.float64), -lowest[:, None]).astype(np.int64)
    scale = np.ldexp(np.ones(1, np.float32) if layer.scale is None else layer.scale, lowest)
    if not (scale >= np.finfo(np.float32).tiny).all():
        return ()
    if count == 2:
        low = ((whole + 128) & 255) - 128
        return Plane(low.astype(np.int8), scale), _above(whole - low, scale)
    return (Plane(whole.astype(np.int8), scale),) if count else ()


def _above(rest: Int64[np.ndarray, "out columns"], scale: Float32[np.ndarray, " out"]) -> Plane:
    return Plane((rest >> 8).astype(np.int8), scale * np.float32(256))


def _dequantised(model: Any, name: str, node: Node, parts: tuple[Plane, ...]) -> list[Any]:
    """Nodes that give the weight `name` the way round its operator has it; adds their constants."""
    from onnx import helper, numpy_helper

    turned = isinstance(node.op, ops.MatMul) or (isinstance(node.op, ops.Gemm) and not node.op.transposed)
    shape = node.op.weight.shape if isinstance(node.op, ops.Conv | ops.Gemm | ops.MatMul) else ()
    made, sums = list[Any](), list[str]()
    for at, part in enumerate(parts):
        stem = f"{name}.{at}"
        whole = part.whole.T if turned else part.whole.reshape(shape)
        zero = np.zeros(len(part.scale), np.int8)
        for suffix, array in (("int8", whole), ("scale", part.scale), ("zero", zero)):
            tensor = numpy_helper.from_array(np.ascontiguousarray(array), f"{stem}.{suffix}")
            model.graph.initializer.append(tensor)
        inputs = [f"{stem}.{suffix}" for suffix in ("int8", "scale", "zero")]
        sums.append(name if len(parts) == 1 else f"{stem}.float32")
        made.append(helper.make_node("DequantizeLinear", inputs, [sums[-1]], sums[-1], axis=int(turned)))
    if len(parts) == 2:
        made.append(helper.make_node("Add", sums, [name], name))
    return made
