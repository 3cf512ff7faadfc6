"""Network to program: every linear operator becomes a matrix over flat vectors, with its count of roundings.

Operators that only move numbers (Reshape, Transpose, Take, Pad, Concat) are read off by moving an array of
positions through them; convolutions and pools are read off the windows of such an array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy.lib.stride_tricks import sliding_window_view
from scipy.sparse import csr_array, diags_array, eye_array, issparse

from sutura.bounds.program import Affine, Elementwise, Layer, Matrix, MaxOf, Program, sources
from sutura.bounds.rounding import underflow
from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.graph import Network, Node, Shape

DENSE_LIMIT = 1 << 26
"""Entries of the largest dense weight that is still unrolled to a matrix (512 MB in float64)."""

SPARSE_LIMIT = 1 << 24
"""Entries of the largest sparse weight (windows of convolutions and pools); each takes some 60 bytes."""

LARGEST32 = float(np.finfo(np.float32).max)

FUSED = 5
"""Roundings of a term of a matrix product beyond one a summand: its bias, and constants before or after it
that a runtime may fold into the weights."""

NORMALIZATION_ROUNDINGS = 8
"""Covers BatchNormalization as written (5) and folded into the weights before it by the runtime."""


SOFTMAX_ROUNDINGS, SOFTMAX_CAP, SOFTMAX_TAIL = 256, 80.0, 2048.0
"""Beyond one a summand: x - max errs by 2^-24 of at most 104, past which exp is zero, above and below; the
rest covers an exp that errs by 16 units, and the division. Differences above the cap count as it, which
errs by e^-80: the tail, in smallest normal float32 numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """A neuron gate seen by the bounds: where `mask` is set, the value is the constant `value`."""

    mask: Bool[np.ndarray, " n"]
    value: Float32[np.ndarray, " n"]


def lower(network: Network, holds: Mapping[str, Hold] | None = None) -> Program:
    """The program that computes the same function, with `holds` applied to the named values.

    Raises NetworkError for a network whose unrolled matrices would not fit in memory.
    """
    return merge(lower_traced(network, holds)[0])


def lower_traced(
    network: Network, holds: Mapping[str, Hold] | None = None
) -> tuple[Program, Mapping[str, int]]:
    """The program with a layer for every operator and hold, and where each value of the network is."""
    layers: list[Layer] = []
    index = {network.input: 0}
    for node in network.nodes:
        _check_size(network, node)
        for layer in RULES[type(node.op)](
            node, network, tuple(index[name] for name in node.inputs), len(layers)
        ):
            layers.append(layer)
        index[node.output] = len(layers)
        if holds and node.output in holds:
            layers.append(_held(holds[node.output], len(layers)))
            index[node.output] = len(layers)
    if index[network.output] != len(layers):
        layers.append(_exact(csr_array(eye_array(network.output_size)), index[network.output]))
    return Program(network.input_size, tuple(layers)), index


def _check_size(network: Network, node: Node) -> None:
    outputs, op = math.prod(network.shapes[node.output]), node.op
    entries, most = 0, SPARSE_LIMIT
    if isinstance(op, ops.MatMul | ops.Gemm):
        entries, most = outputs * math.prod(network.shapes[node.inputs[0]]), DENSE_LIMIT
    elif isinstance(op, ops.Conv):
        entries = outputs * math.prod(op.weight.shape[1:])
    elif isinstance(op, ops.Softmax):
        entries = 2 * outputs * network.shapes[node.output][-1]
    elif isinstance(op, ops.AveragePool | ops.MaxPool):
        entries = outputs * math.prod(op.kernel)
    if entries > most:
        raise NetworkError(
            f"node '{node.name}' ({type(op).__name__}) is too large to bound: {entries:,} weights once "
            f"unrolled, at most {most:,}; verify a smaller network"
        )


def _exact(weight: csr_array, source: int) -> Affine:
    """Moves numbers without rounding."""
    zero = np.zeros(len(weight.indptr) - 1)
    return Affine((source,), (weight,), zero, (abs(weight),), zero, 0)


def _affine(weight: Matrix, bias: np.ndarray | None, source: int, roundings: int) -> Affine:
    size: Any = abs(weight)
    offset = np.zeros(size.shape[0]) if bias is None else np.asarray(bias, np.float64)
    flush = underflow(roundings, float(size.max()) if math.prod(size.shape) else 0.0)
    return Affine((source,), (weight,), offset, (size,), abs(offset), roundings, flush=flush)


def _held(hold: Hold, source: int) -> Affine:
    kept = np.flatnonzero(~hold.mask)
    keep = csr_array((np.ones(len(kept)), (kept, kept)), shape=(len(hold.mask), len(hold.mask)))
    value = np.where(hold.mask, hold.value, 0.0).astype(np.float64)
    return Affine((source,), (keep,), value, (keep,), abs(value), 0)


def _positions(shape: Shape) -> Int64[np.ndarray, "*shape"]:
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def _selection(positions: np.ndarray, inputs: int) -> csr_array:
    """Row i reads entry positions[i]; a negative position reads zero."""
    flat = positions.reshape(-1)
    rows = np.flatnonzero(flat >= 0)
    return csr_array((np.ones(len(rows)), (rows, flat[rows])), shape=(len(flat), inputs))


def _windows(
    positions: np.ndarray, op: ops.Conv | ops.AveragePool | ops.MaxPool, kernel: Shape
) -> np.ndarray:
    """[channels, *out, *kernel] positions under each window; -1 where the window covers padding."""
    half = len(kernel)
    pads = [(0, 0), *zip(op.pads[:half], op.pads[half:], strict=True)]
    padded = np.pad(positions, pads, constant_values=-1)
    dilations = getattr(op, "dilations", (1,) * half)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    view = sliding_window_view(padded, reach, axis=tuple(range(1, half + 1)))
    steps = [slice(None), *(slice(None, None, s) for s in op.strides)]
    return view[(*steps, *(slice(None, None, d) for d in dilations))]


def _matmul(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op = node.op
    assert isinstance(op, ops.MatMul)
    rows = math.prod(network.shapes[node.inputs[0]][:-1])
    return [
        _affine(_repeat(op.weight.T.astype(np.float64), rows), None, inputs[0], op.weight.shape[0] + FUSED)
    ]


def _repeat(weight: np.ndarray, rows: int) -> Matrix:
    """The matrix that applies `weight` to each of `rows` consecutive slices."""
    if rows == 1:
        return weight
    size = weight.shape[0] * weight.shape[1]
    row, column = np.divmod(np.arange(size), weight.shape[1])
    shift = np.arange(rows)[:, None]
    entries = np.broadcast_to(weight.reshape(-1), (rows, size)).reshape(-1)
    at = ((row + shift * weight.shape[0]).reshape(-1), (column + shift * weight.shape[1]).reshape(-1))
    return csr_array((entries, at), shape=(rows * weight.shape[0], rows * weight.shape[1]))


def _gemm(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op = node.op
    assert isinstance(op, ops.Gemm)
    weight = (op.weight if op.transposed else op.weight.T).astype(np.float64) * float(np.float32(op.alpha))
    bias = None
    if op.bias is not None:
        bias = np.broadcast_to(op.bias.astype(np.float64), (weight.shape[0],)) * float(np.float32(op.beta))
    scaled = 2 * int(op.alpha != 1.0 or op.beta != 1.0)
    return [_affine(weight, bias, inputs[0], weight.shape[1] + FUSED + scaled)]


def _elementwise_constant(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op: Any = node.op
    shape = network.shapes[node.output]
    value = np.broadcast_to(op.value.astype(np.float64), (1, *shape)).reshape(-1)
    spread = _selection(
        np.broadcast_to(_positions(network.shapes[node.inputs[0]]), shape), _inputs(network, node)
    )
    if isinstance(op, ops.MultiplyConstant | ops.DivideConstant):
        factor = value if isinstance(op, ops.MultiplyConstant) else 1.0 / value
        # Zeros stay stored: what they multiply may have overflowed.
        scaled = csr_array((factor, spread.indices, spread.indptr), shape=spread.shape)
        return [_affine(scaled, None, inputs[0], 2)]
    sign = -1.0 if isinstance(op, ops.SubtractConstant) and op.reversed else 1.0
    offset = -value if isinstance(op, ops.SubtractConstant) and not op.reversed else value
    return [_affine(csr_array(sign * spread), offset, inputs[0], int(np.any(offset != 0.0)))]


def _inputs(network: Network, node: Node) -> int:
    return math.prod(network.shapes[node.inputs[0]])


def _two_sources(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    shape = network.shapes[node.output]
    sign = -1.0 if isinstance(node.op, ops.Subtract) else 1.0
    spread = [
        _selection(np.broadcast_to(_positions(network.shapes[v]), shape), math.prod(network.shapes[v]))
        for v in node.inputs
    ]
    zero = np.zeros(math.prod(shape))
    weights = (spread[0], csr_array(sign * spread[1]))
    return [Affine(inputs, weights, zero, (spread[0], spread[1]), zero, 1, flush=underflow(1, 1.0))]


def _product(node: Node, network: Network, inputs: tuple[int, ...], count: int) -> list[Layer]:
    """a * b = ((a + b)^2 - (a - b)^2) / 4, exact over the reals: the sums are charged no rounding."""
    size = _inputs(network, node)
    eye, zero = csr_array(eye_array(size)), np.zeros(size)
    sums = [Affine(inputs, (eye, csr_array(sign * eye)), zero, (eye, eye), zero, 0) for sign in (1.0, -1.0)]
    squares = [Elementwise(count + 1, ops.Square(), size), Elementwise(count + 2, ops.Square(), size)]
    part, terms = csr_array(0.25 * eye), (count + 3, count + 4)
    last = Affine(terms, (part, csr_array(-part)), zero, (part, part), zero, 1, flush=underflow(1, 1.0))
    return [*sums, *squares, last]


def _quotient(node: Node, network: Network, inputs: tuple[int, ...], count: int) -> list[Layer]:
    """a / b = a * (1 / b)."""
    inverse = Elementwise(inputs[1], ops.Reciprocal(), _inputs(network, node))
    return [inverse, *_product(node, network, (inputs[0], count + 1), count + 1)]


def _softmax(node: Node, network: Network, inputs: tuple[int, ...], count: int) -> list[Layer]:
    """y_i = 1 / (1 + sum over j of exp(min(x_j - x_i, cap))); of two numbers, the sigmoid of x_i - x_j."""
    shape = network.shapes[node.output]
    size, n = math.prod(shape), shape[-1]
    pairs = size * (n - 1)
    i, rows = np.repeat(np.arange(size), n - 1), np.arange(pairs)
    order = np.arange(n)[None, :].repeat(n, 0)[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    j = (np.arange(0, size, n)[:, None, None] + order[None]).reshape(-1)
    at = (np.tile(rows, 2), np.concatenate([i, j]))
    ends = csr_array((np.repeat([1.0, -1.0], pairs), at), shape=(pairs, size))
    whole, back = abs(ends), csr_array(-eye_array(pairs))
    full, zero = np.full(pairs, SOFTMAX_CAP), np.zeros(pairs)
    total = csr_array((np.ones(pairs), (i, rows)), shape=(size, pairs))
    last = _affine(csr_array(eye_array(size)), None, count + (2 if n == 2 else 6), SOFTMAX_ROUNDINGS + n)
    if n == 2:
        apart = Affine(inputs, (ends,), zero, (whole,), zero, 0)
        return [apart, Elementwise(count + 1, ops.Sigmoid(), size), last]
    return [
        Affine(inputs, (ends,), full, (whole,), full, 0),
        Elementwise(count + 1, ops.Relu(), pairs),
        Affine((count + 2,), (back,), full, (abs(back),), full, 0),
        Elementwise(count + 3, ops.Exp(), pairs),
        _affine(total, np.ones(size), count + 4, 0),
        Elementwise(count + 5, ops.Reciprocal(), size),
        replace(last, flush=last.flush + SOFTMAX_TAIL),
    ]


def _conv(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op = node.op
    assert isinstance(op, ops.Conv)
    shape = network.shapes[node.inputs[0]]
    kernel = op.weight.shape[2:]
    half = len(kernel)
    windows = _windows(_positions(shape), op, kernel)
    area = windows.shape[1 : 1 + half]
    per_group = op.weight.shape[1]
    channel = (np.arange(op.weight.shape[0]) // (op.weight.shape[0] // op.group))[:, None] * per_group
    taken = windows[channel + np.arange(per_group)]
    taken = np.moveaxis(taken, 1, 1 + half).reshape(op.weight.shape[0], math.prod(area), -1)
    flat = np.broadcast_to(op.weight.reshape(op.weight.shape[0], 1, -1), taken.shape).astype(np.float64)
    weight = _from_windows(
        taken.reshape(-1, taken.shape[2]), flat.reshape(-1, taken.shape[2]), math.prod(shape)
    )
    bias = None if op.bias is None else np.repeat(op.bias.astype(np.float64), math.prod(area))
    return [_affine(weight, bias, inputs[0], taken.shape[2] + FUSED)]


def _from_windows(positions: np.ndarray, weights: np.ndarray, inputs: int) -> csr_array:
    rows, columns = np.nonzero(positions >= 0)
    entries = (weights[rows, columns], (rows, positions[rows, columns]))
    return csr_array(entries, shape=(len(positions), inputs))


def _batch_normalization(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op = node.op
    assert isinstance(op, ops.BatchNormalization)
    area = math.prod(network.shapes[node.output][1:])
    wide = [v.astype(np.float64) for v in (op.scale, op.bias, op.mean, op.variance)]
    scale, bias, mean, variance = (np.repeat(v, area) for v in wide)
    inverse = 1.0 / np.sqrt(variance + float(np.float32(op.epsilon)))
    factor = inverse * scale
    layer = _affine(csr_array(diags_array(factor)), bias - factor * mean, inputs[0], NORMALIZATION_ROUNDINGS)
    # As written, (x - mean) * inverse comes before the scale, which may be small or zero.
    size = np.maximum(abs(factor), 2.0**-80 * inverse)
    return [
        replace(
            layer,
            absolute=(csr_array(diags_array(size)),),
            absolute_bias=size * abs(mean) + abs(bias),
            peak=max(1.0, float(np.max(inverse / size, initial=1.0))),
            flush=underflow(NORMALIZATION_ROUNDINGS, float(np.max(abs(factor) + abs(scale), initial=0.0))),
        )
    ]


def _average(positions: np.ndarray, source: int, inputs: int, divisor: int | None) -> Affine:
    covered = positions >= 0
    counts = covered.sum(axis=1) if divisor is None else np.full(len(positions), divisor)
    weights = np.broadcast_to((1.0 / np.maximum(counts, 1))[:, None], positions.shape)
    return _affine(_from_windows(positions, weights, inputs), None, source, positions.shape[1] + 2)


def _average_pool(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op = node.op
    assert isinstance(op, ops.AveragePool)
    windows = _windows(_positions(network.shapes[node.inputs[0]]), op, op.kernel)
    size = math.prod(op.kernel)
    divisor = size if op.count_include_pad else None
    return [_average(windows.reshape(-1, size), inputs[0], _inputs(network, node), divisor)]


def _global_average(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    shape = network.shapes[node.inputs[0]]
    return [_average(_positions(shape).reshape(shape[0], -1), inputs[0], math.prod(shape), None)]


def _max_pool(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op = node.op
    assert isinstance(op, ops.MaxPool)
    windows = _windows(_positions(network.shapes[node.inputs[0]]), op, op.kernel)
    flat = windows.reshape(-1, math.prod(op.kernel))
    return [MaxOf(inputs[0], np.where(flat >= 0, flat, flat.max(axis=1, keepdims=True)))]


def _moved(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    positions = _positions(network.shapes[node.inputs[0]])
    return [_exact(_selection(MOVES[type(node.op)](positions, node.op), _inputs(network, node)), inputs[0])]


def _pad(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op = node.op
    assert isinstance(op, ops.Pad)
    half = len(op.pads) // 2
    pads = list(zip(op.pads[:half], op.pads[half:], strict=True))
    moved = np.pad(_positions(network.shapes[node.inputs[0]]), pads, constant_values=-1)
    layer = _exact(_selection(moved, _inputs(network, node)), inputs[0])
    value = np.where(moved.reshape(-1) < 0, float(np.float32(op.value)), 0.0)
    return [replace(layer, bias=value, absolute_bias=abs(value))]


def _concat(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op = node.op
    assert isinstance(op, ops.Concat)
    shapes = [network.shapes[v] for v in node.inputs]
    sizes = [math.prod(s) for s in shapes]
    starts = np.cumsum([0, *sizes])
    joined = np.concatenate(
        [_positions(s) + o for s, o in zip(shapes, starts, strict=False)], axis=op.axis
    ).reshape(-1)
    weights = tuple(
        _selection(np.where((joined >= start) & (joined < start + size), joined - start, -1), size)
        for start, size in zip(starts, sizes, strict=False)
    )
    zero = np.zeros(len(joined))
    return [Affine(inputs, weights, zero, weights, zero, 0)]


def _activation(node: Node, network: Network, inputs: tuple[int, ...], _: int) -> list[Layer]:
    op: Any = node.op
    return [Elementwise(inputs[0], op, _inputs(network, node))]


def _clip(node: Node, network: Network, inputs: tuple[int, ...], count: int) -> list[Layer]:
    """min(max(x, low), high) = high - relu(high - (low + relu(x - low))): exact over the reals, as Clip is.

    An end at or beyond the largest float32 number cuts nothing off.
    """
    op = node.op
    assert isinstance(op, ops.Clip)
    size = _inputs(network, node)
    layers: list[Layer] = []
    source = inputs[0]

    def shifted(sign: float, offset: float) -> None:
        nonlocal source
        layers.append(_affine(csr_array(sign * eye_array(size)), np.full(size, offset), source, 0))
        source = count + len(layers)

    def rectified() -> None:
        nonlocal source
        layers.append(Elementwise(source, ops.Relu(), size))
        source = count + len(layers)

    if op.low > -LARGEST32:
        shifted(1.0, -op.low)
        rectified()
        shifted(1.0, op.low)
    if op.high < LARGEST32:
        shifted(-1.0, op.high)
        rectified()
        shifted(-1.0, op.high)
    return layers or [_exact(csr_array(eye_array(size)), source)]


def merge(program: Program) -> Program:
    """Join an affine layer with the affine layer it alone reads, where one only moves or scales entries."""
    readers = np.zeros(len(program.layers) + 1, dtype=int)
    for layer in program.layers:
        for s in sources(layer):
            readers[s] += 1
    kept: list[Layer] = []
    index = {0: 0}
    for at, layer in enumerate(program.layers, start=1):
        moved = _renumber(layer, index)
        reads = sources(moved)
        first = kept[reads[0] - 1] if reads[0] > 0 else None
        only = reads == (len(kept),) and readers[sources(layer)[0]] == 1
        if isinstance(moved, Affine) and isinstance(first, Affine) and only and _mergeable(first, moved):
            kept[-1] = _joined(first, moved)
        else:
            kept.append(moved)
        index[at] = len(kept)
    return Program(program.inputs, tuple(kept))


def _renumber(layer: Layer, index: Mapping[int, int]) -> Layer:
    if isinstance(layer, Affine):
        return replace(layer, sources=tuple(index[s] for s in layer.sources))
    return replace(layer, source=index[layer.source])


def _mergeable(first: Affine, second: Affine) -> bool:
    """A factor of zero stays alone: it gives not-a-number where what it multiplies overflowed."""
    return _moves(first) or (_one_entry_a_row(second) and bool(np.all(csr_array(second.weights[0]).data)))


def _moves(layer: Affine) -> bool:
    return layer.roundings == 0 and _one_entry_a_row(layer) and not layer.bias.any() and _zero_one(layer)


def _one_entry_a_row(layer: Affine) -> bool:
    (*rest, weight) = layer.weights
    return not rest and issparse(weight) and bool(np.all(np.diff(csr_array(weight).indptr) <= 1))


def _zero_one(layer: Affine) -> bool:
    return bool(np.all(csr_array(layer.weights[0]).data == 1.0))


def _joined(first: Affine, second: Affine) -> Affine:
    outer, outer_absolute = second.weights[0], second.absolute[0]
    factors = csr_array(outer_absolute).data if not _moves(first) else np.ones(0)
    return Affine(
        first.sources,
        tuple(outer @ w for w in first.weights),
        outer @ first.bias + second.bias,
        tuple(outer_absolute @ w for w in first.absolute),
        outer_absolute @ first.absolute_bias + second.absolute_bias,
        first.roundings + second.roundings,
        max(second.peak, first.peak / float(np.min(factors, initial=1.0))),
        second.flush + first.flush * float(np.max(factors, initial=0.0)),
    )


MOVES: Mapping[type, Callable[[np.ndarray, Any], np.ndarray]] = {
    ops.Reshape: lambda positions, op: positions,
    ops.Transpose: lambda positions, op: positions.transpose(op.permutation),
    ops.Take: lambda positions, op: positions.take(op.indices, axis=op.axis),
}

RULES: Mapping[type, Callable[[Node, Network, tuple[int, ...], int], list[Layer]]] = {
    ops.MatMul: _matmul,
    ops.Gemm: _gemm,
    ops.AddConstant: _elementwise_constant,
    ops.SubtractConstant: _elementwise_constant,
    ops.MultiplyConstant: _elementwise_constant,
    ops.DivideConstant: _elementwise_constant,
    ops.Add: _two_sources,
    ops.Subtract: _two_sources,
    ops.Multiply: _product,
    ops.Divide: _quotient,
    ops.Conv: _conv,
    ops.BatchNormalization: _batch_normalization,
    ops.AveragePool: _average_pool,
    ops.GlobalAveragePool: _global_average,
    ops.MaxPool: _max_pool,
    ops.Reshape: _moved,
    ops.Transpose: _moved,
    ops.Take: _moved,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Relu: _activation,
    ops.LeakyRelu: _activation,
    ops.Sigmoid: _activation,
    ops.Tanh: _activation,
    ops.Square: _activation,
    ops.Reciprocal: _activation,
    ops.Exp: _activation,
    ops.Softmax: _softmax,
    ops.Clip: _clip,
}
