"""Calibration as part of the graph: the calibrated network is a network again, and goes on into verify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
from jaxtyping import Float32, Float64

from sutura.calibration.class_distance import ByClass, tables
from sutura.calibration.distance import ByDistance
from sutura.calibration.scaling import Affine, Scaling
from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import shown, shown_shape
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import digest_of, write_onnx
from sutura.network.run import open_session, run
from sutura.network.shapes import output_shape

BATCH = 500

INPUT, FEATURES = -1, -2

Step = tuple[ops.Op, tuple[int, ...]]
"""An operator, and which values it reads: 0 is the scores, k what step k gave, or INPUT or FEATURES."""

Scorer = Callable[[Float32[np.ndarray, "batch *sample"]], Float64[np.ndarray, "batch classes"]]


def scores_part(network: Network) -> Network:
    """The network up to its scores: all but a closing softmax.

    Raises NetworkError where the outputs are not one row of scores that a layer computed.
    """
    if len(network.output_shape) != 1 or network.output_shape[0] < 2:
        raise NetworkError(
            f"network {shown(network.name)} gives {shown_shape(network.output_shape)} a sample; calibration "
            "needs one score for each of at least two classes"
        )
    body, closing = _parts(network)
    if not body:
        raise NetworkError(f"network {shown(network.name)} has no layer before its softmax")
    if closing is None:
        return network
    return _digested(replace(network, nodes=body, output=closing.inputs[0]))


def network_scores(network: Network) -> Scorer:
    """A function of samples: the scores, before a closing softmax, as ONNX Runtime computes them."""
    return _computed(scores_part(network))


def network_features(network: Network) -> Scorer:
    """A function of samples: what the last layer with weights reads, flattened.

    Raises NetworkError where no layer has weights.
    """
    value, part = _features(network), scores_part(network)
    if value == network.input:
        return lambda x: x.reshape(len(x), -1).astype(np.float64)
    made = [node.output for node in part.nodes].index(value)
    return _computed(_digested(replace(part, nodes=part.nodes[: made + 1], output=value)))


def _computed(network: Network) -> Scorer:
    session = open_session(write_onnx(network))

    def computed(x: Float32[np.ndarray, "batch *sample"]) -> Float64[np.ndarray, "batch numbers"]:
        parts = [run(session, np.ascontiguousarray(x[at : at + BATCH])) for at in range(0, len(x), BATCH)]
        return np.concatenate(parts).astype(np.float64).reshape(len(x), -1)

    return computed


def _features(network: Network) -> str:
    """The value that the last layer with weights reads."""
    for node in reversed(scores_part(network).nodes):
        if isinstance(node.op, ops.MatMul | ops.Gemm | ops.Conv):
            return node.inputs[0]
    raise NetworkError(f"network {shown(network.name)} has no layer with weights; name another method")


def folded(network: Network, scaling: Scaling) -> Network:
    """The network with its scores scaled: one product, and one sum where there are offsets.

    Where it ends in a softmax, that stays the end: probabilities stay probabilities. A temperature is one
    positive factor: in float32 it can make two scores equal, but never exchange them. Raises NetworkError for
    a scaling that is no affine map of the scores.
    """
    if not isinstance(scaling, Affine):
        raise NetworkError("isotonic calibration has no ONNX form here; write temperature or vector instead")
    steps: list[Step] = [(ops.MultiplyConstant(scaling.scale.astype(np.float32)), (0,))]
    if scaling.offset.any():
        steps.append((ops.AddConstant(scaling.offset.astype(np.float32)), (1,)))
    return _ended(network, steps)


def folded_by_distance(network: Network, scale: ByDistance) -> Network:
    """The network with its scores times a factor that its input's distance decides; decisions stay."""
    held, classes, span = scale.gaussian, network.output_shape[0], scale.end - scale.start
    narrow, mean = held.directions / np.sqrt(span), held.mean.astype(np.float32)
    ones = np.ones((narrow.shape[1], classes), np.float32)
    apart = np.full((len(mean), classes), held.rest / span, np.float32)
    steps: list[Step] = [
        (ops.Reshape((len(mean),)), (INPUT,)),
        (ops.SubtractConstant(mean), (1,)),
        (ops.Square(), (2,)),
        (ops.MatMul(apart), (3,)),
        (ops.MatMul(narrow.astype(np.float32)), (2,)),
        (ops.Square(), (5,)),
        (ops.MatMul(ones), (6,)),
        (ops.Subtract(), (7, 4)),
        (ops.AddConstant(np.full(classes, scale.end / span, np.float32)), (8,)),
        (ops.Clip(0.0, 1.0), (9,)),
        (ops.MultiplyConstant(np.full(classes, scale.near - scale.far, np.float32)), (10,)),
        (ops.AddConstant(np.full(classes, scale.far, np.float32)), (11,)),
        (ops.Multiply(), (0, 12)),
    ]
    return _ended(network, steps)


def folded_by_class(network: Network, scale: ByClass) -> Network:
    """The network with its scores times a factor that its features' distance decides; decisions stay.

    Raises NetworkError where no layer has weights, or the Gaussians are not of this network's features.
    """
    size, classes = int(np.prod(network.shapes[_features(network)])), network.output_shape[0]
    by, span = tables(scale), scale.end - scale.start
    if by.squares.shape != (size, classes):
        raise NetworkError(
            f"network {shown(network.name)} has {size} features and {classes} classes; the Gaussians have "
            f"{by.squares.shape[0]} and {by.squares.shape[1]}"
        )
    own = {name: value.astype(np.float32) for name, value in asdict(by).items()}
    one = np.ones(classes, np.float32)
    steps: list[Step] = [
        (ops.Reshape((size,)), (FEATURES,)),
        (ops.SubtractConstant(own["centre"]), (1,)),
        (ops.Square(), (2,)),
        (ops.MatMul(own["squares"]), (3,)),
        (ops.Gemm(own["lines"], own["constant"]), (2,)),
        (ops.Add(), (4, 5)),
        (ops.Gemm(own["directions"], -own["origin"]), (2,)),
        (ops.Square(), (7,)),
        (ops.MatMul(own["owner"]), (8,)),
        (ops.Subtract(), (6, 9)),
        (ops.Softmax(), (0,)),
        (ops.Multiply(), (10, 11)),
        (ops.Gemm(-np.ones((classes, classes), np.float32), np.float32(scale.end / span) * one), (12,)),
        (ops.Clip(0.0, 1.0), (13,)),
        (ops.MultiplyConstant(np.float32(scale.near - 1) * one), (14,)),
        (ops.AddConstant(one), (15,)),
        (ops.Multiply(), (0, 16)),
    ]
    return _ended(network, steps)


def evidence_head(network: Network) -> Network:
    """The network with evidential probabilities for its scores: alpha / sum of alpha, alpha = relu + 1.

    Raises NetworkError where it ends in a softmax.
    """
    if scores_part(network) is not network:
        raise NetworkError(f"network {shown(network.name)} ends in a softmax; evidence needs bare scores")
    ones = np.ones(network.output_shape, dtype=np.float32)
    total = ops.MatMul(np.ones((ones.size, ones.size), dtype=np.float32))
    return _ended(
        network, [(ops.Relu(), (0,)), (ops.AddConstant(ones), (1,)), (total, (2,)), (ops.Divide(), (2, 3))]
    )


def _parts(network: Network) -> tuple[tuple[Node, ...], Node | None]:
    """All nodes but a softmax that gives the output, and that softmax."""
    last = next(node for node in network.nodes if node.output == network.output)
    if not isinstance(last.op, ops.Softmax):
        return network.nodes, None
    return tuple(node for node in network.nodes if node is not last), last


def _ended(network: Network, steps: Sequence[Step]) -> Network:
    """The network with steps between its scores and all that follows; outputs keep their name."""
    scores = scores_part(network).output
    body, closing = _parts(network)
    names = _free(network, [f"{scores}.raw", *(f"calibrated.{k + 1}" for k in range(len(steps) - 1))])
    values = [*names, scores]
    known = dict(enumerate(values))
    if any(INPUT in reads for _, reads in steps):
        known[INPUT] = network.input
    if any(FEATURES in reads for _, reads in steps):
        known[FEATURES] = _features(network)
    added = [
        Node(f"calibration.{k}", op, tuple(known[i] for i in reads), values[k])
        for k, (op, reads) in enumerate(steps, 1)
    ]
    moved = [_reading(node, {scores: values[0]}) for node in body]
    nodes = (*moved, *added, *([closing] if closing else []))
    shapes = {**network.shapes, names[0]: network.output_shape}
    for node in added:
        shapes[node.output] = output_shape(node.op, tuple(shapes[value] for value in node.inputs))
    return _digested(replace(network, nodes=nodes, shapes=shapes))


def _reading(node: Node, names: dict[str, str]) -> Node:
    inputs = tuple(names.get(value, value) for value in node.inputs)
    return replace(node, inputs=inputs, output=names.get(node.output, node.output))


def _free(network: Network, wanted: Sequence[str]) -> list[str]:
    """The names wanted, with dashes behind those that are taken."""
    names: list[str] = []
    for name in wanted:
        while name in network.shapes or name in names:
            name = f"{name}-"
        names.append(name)
    return names


def _digested(network: Network) -> Network:
    return replace(network, sha256=digest_of(network))
