"""Encoder and decoder of a layer, and the network with them in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.compression.folding import (
    Split,
    decoder_weight,
    encoder_axes,
    encoder_weight,
    fold,
    recompose,
    slices,
    windows,
)
from sutura.compression.layers import Layer
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import digest_of
from sutura.network.shapes import output_shape


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The two layers that stand for one: the encoder without bias, the decoder with that of the layer.

    `shift` is a constant still to be added to the output, by way of the normalisation that reads it.
    """

    split: Split
    encoder: Float32[np.ndarray, "n in_per_group *kernel"]
    decoder: Float32[np.ndarray, "out n *kernel"]
    bias: Float32[np.ndarray, " out"] | None
    shift: Float32[np.ndarray, " out"] | None = None

    def weight(self, layer: Layer) -> Float32[np.ndarray, "out in *kernel"]:
        """The weight that both together have."""
        return recompose(layer, self.split, self.encoder, self.decoder)


def truncated(layer: Layer, split: Split) -> Factors:
    """Each slice's singular value decomposition cut to the rank, its singular values shared evenly."""
    matrix = fold(layer, layer.weight.astype(np.float64), split.scheme)
    u, s, v = np.linalg.svd(slices(matrix, split.groups), full_matrices=False)
    root = np.sqrt(s[:, : split.rank])
    columns = u[:, :, : split.rank] * root[:, None, :]
    return of_columns(layer, split, columns, root[:, :, None] * v[:, : split.rank])


def of_columns(
    layer: Layer,
    split: Split,
    columns: Float64[np.ndarray, "groups rows rank"],
    rows: Float64[np.ndarray, "groups rank width"],
    lost: Float64[np.ndarray, " out"] | None = None,
) -> Factors:
    """Factors from the left and right factors of each slice, with the layer's own bias.

    `lost` is what the output lacks on average; it goes where the layer can take up a constant.
    """
    encoder = encoder_weight(layer, split, rows).astype(np.float32)
    decoder = decoder_weight(layer, split, columns).astype(np.float32)
    if lost is None or not layer.absorbs:
        return Factors(split, encoder, decoder, layer.bias)
    constant = lost.astype(np.float32)
    if layer.bias is not None:
        return Factors(split, encoder, decoder, layer.bias + constant)
    return Factors(split, encoder, decoder, None, constant)


def substitute(network: Network, layers: Mapping[str, Layer], parts: Mapping[str, Factors]) -> Network:
    """The network with each layer of `parts` (by its key) replaced; the others are as they were.

    The last node of a replacement defines the value that the layer defined.
    """
    nodes = list[Node]()
    for node in network.nodes:
        part = parts.get(node.output)
        nodes += [_shifted(node, parts)] if part is None else _nodes(network, layers[node.output], part)
    return shaped(network, nodes)


def _shifted(node: Node, parts: Mapping[str, Factors]) -> Node:
    """A normalisation whose mean makes up for the constant that its input lacks."""
    part = parts.get(node.inputs[0]) if node.inputs else None
    if part is None or part.shift is None or not isinstance(node.op, ops.BatchNormalization):
        return node
    return replace(node, op=replace(node.op, mean=node.op.mean - part.shift))


def shaped(network: Network, nodes: list[Node]) -> Network:
    """A network of these nodes between the same input and output, its shapes and digest computed anew."""
    shapes = {network.input: network.input_shape}
    for node in nodes:
        shapes[node.output] = output_shape(node.op, tuple(shapes[name] for name in node.inputs))
    made = replace(network, nodes=tuple(nodes), shapes=shapes, sha256="")
    return replace(made, sha256=digest_of(made))


def _nodes(network: Network, layer: Layer, part: Factors) -> list[Node]:
    chain = _convolutions(layer, part) if layer.kernel else _products(layer, part)
    nodes, value = list[Node](), layer.node.inputs[0]
    for place, (suffix, op) in enumerate(chain):
        last = place == len(chain) - 1
        name = f"{layer.name}.{suffix}"
        output = layer.key if last else _unused(f"{layer.key}.{suffix}", network)
        nodes.append(Node(name, op, (value,), output))
        value = output
    return nodes


def _unused(name: str, network: Network) -> str:
    while name in network.shapes:
        name += "_"
    return name


def _convolutions(layer: Layer, part: Factors) -> list[tuple[str, ops.Op]]:
    kept = encoder_axes(layer, part.split.scheme)
    first = windows(layer, kept)
    second = windows(layer, [not keep for keep in kept])
    return [
        (ENCODER, ops.Conv(part.encoder, None, *first, group=part.split.groups)),
        (DECODER, ops.Conv(part.decoder, part.bias, *second)),
    ]


def _products(layer: Layer, part: Factors) -> list[tuple[str, ops.Op]]:
    """A linear layer as two; with groups, the first is a convolution of width one, which has them."""
    if len(layer.input) > 1:
        added = [] if part.bias is None else [("shift", ops.AddConstant(part.bias))]
        return [
            (ENCODER, ops.MatMul(np.ascontiguousarray(part.encoder.T))),
            (DECODER, ops.MatMul(np.ascontiguousarray(part.decoder.T))),
            *added,
        ]
    last = (DECODER, ops.Gemm(part.decoder, part.bias, transposed=True))
    if part.split.groups == 1:
        return [(ENCODER, ops.Gemm(part.encoder, None, transposed=True)), last]
    grouped = ops.Conv(part.encoder[..., None], None, (1,), (0, 0), (1,), group=part.split.groups)
    return [
        ("columns", ops.Reshape((*layer.input, 1))),
        (ENCODER, grouped),
        ("row", ops.Reshape((len(part.encoder),))),
        last,
    ]


def recomposed(
    original: Network,
    compressed: Network,
    layers: Mapping[str, Layer],
    splits: Mapping[str, Split | None],
) -> Network:
    """The compressed network in the nodes of the original: the two layers of each split multiplied out."""
    now = {node.output: node for node in compressed.nodes}
    nodes = list[Node]()
    for node in original.nodes:
        split = splits.get(node.output)
        if split is None:
            nodes.append(now[node.output])
            continue
        found = _of_nodes(compressed, layers[node.output], split)
        nodes.append(replace(node, op=dense(layers[node.output], found)))
    return shaped(original, nodes)


def _of_nodes(compressed: Network, layer: Layer, split: Split) -> Factors:
    """The factors that the nodes of a split hold."""
    named = {node.name: node.op for node in compressed.nodes}
    encoder, decoder = named[f"{layer.name}.{ENCODER}"], named[f"{layer.name}.{DECODER}"]
    assert isinstance(encoder, ops.Conv | ops.Gemm | ops.MatMul)
    assert isinstance(decoder, ops.Conv | ops.Gemm | ops.MatMul)
    bias = None if isinstance(decoder, ops.MatMul) else decoder.bias
    many = split.groups * split.rank
    first, second = (op.weight.T if isinstance(op, ops.MatMul) else op.weight for op in (encoder, decoder))
    if not layer.kernel:
        first, second = first.reshape(many, -1), second.reshape(-1, many)
    return Factors(split, first, second, bias)


def dense(layer: Layer, part: Factors) -> ops.Op:
    """The layer's operator with the weight that both factors have together."""
    weight = part.weight(layer).astype(np.float32)
    match layer.node.op:
        case ops.Conv() as op:
            return replace(op, weight=weight, bias=part.bias)
        case ops.MatMul():
            return ops.MatMul(np.ascontiguousarray(weight.T))
        case _:
            return ops.Gemm(weight, part.bias, transposed=True)


ENCODER, DECODER = "encoder", "decoder"
