"""The .nnet text format of the ACAS Xu family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32

from sutura.errors import NetworkError
from sutura.network.budget import MAX_ELEMENTS, shown
from sutura.network.graph import Network, Node, Shape
from sutura.network.onnx_write import digest_of
from sutura.network.ops import AddConstant, MatMul, Op, Relu

NUMERIC = frozenset("0123456789+-.eE, \t")
MAX_LAYERS = 1000
MAX_WIDTH = 2**16
MAX_BYTES = 2**28
MAX_LINE = 2**21


@dataclass(frozen=True, slots=True)
class Header:
    """Layer sizes, input size first; what stands in the other header lines is checked and not used."""

    sizes: tuple[int, ...]


def parse_nnet(data: bytes, name: str) -> Network:
    """The network of a .nnet file: fully connected layers, Relu between them.

    The convention is that of the ACAS Xu ONNX files: inputs are already normalised, (x - mean) / range, and
    outputs are raw, before they are scaled back by the last mean and range of the header. The header's
    bounds, means and ranges are checked for their number and not applied. Weights are rounded to float32.
    Raises NetworkError with the line number for anything malformed.
    """
    try:
        lines = _lines(data)
        layers = tuple(_layers(lines, _header(lines)))
        for number, text in lines:
            if text:
                raise NetworkError(f"line {number}: text after the last bias; remove it or correct the sizes")
    except NetworkError as error:
        raise NetworkError(f"{shown(name)}: {error}") from None
    return _network(name, layers)


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Number and text of every line after the comments at the top."""
    if len(data) > MAX_BYTES:
        raise NetworkError(f"the file has {len(data)} bytes; at most {MAX_BYTES} are supported")
    if not data.isascii():
        raise NetworkError("not a .nnet file: it holds bytes that are not ASCII text")
    started, number, at = False, 0, 0
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        number += 1
        if end - at > MAX_LINE:
            raise NetworkError(f"line {number}: longer than {MAX_LINE} characters")
        text = data[at:end].decode("ascii").strip()
        at = end + 1
        started = started or not text.startswith("//")
        if started:
            yield number, text


def _header(lines: Iterator[tuple[int, str]]) -> Header:
    start, counts = _integers(lines, "layer count, input, output and largest size")
    if len(counts) != 4 or not 1 <= counts[0] <= MAX_LAYERS:
        raise NetworkError(f"line {start}: expected four numbers, 1 to {MAX_LAYERS} layers first")
    at, sizes = _integers(lines, "layer sizes")
    if min(sizes) < 1 or max(sizes) > MAX_WIDTH:
        raise NetworkError(f"line {at}: layers must have 1 to {MAX_WIDTH} neurons")
    if len(sizes) != counts[0] + 1 or sizes[0] != counts[1] or sizes[-1] != counts[2]:
        raise NetworkError(f"line {at}: sizes do not fit line {start} ({counts[0]} layers)")
    if sum(a * b for a, b in pairwise(sizes)) > MAX_ELEMENTS:
        raise NetworkError(f"line {at}: more than {MAX_ELEMENTS} weights")
    _take(lines, "symmetry flag")
    for what, more in (("minima", 0), ("maxima", 0), ("means", 1), ("ranges", 1)):
        number, text = _take(lines, what)
        _numbers(number, text, sizes[0] + more, what)
    return Header(tuple(sizes))


def _layers(lines: Iterator[tuple[int, str]], header: Header) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for inputs, outputs in pairwise(header.sizes):
        rows = [_row(lines, inputs) for _ in range(outputs)]
        biases = [_row(lines, 1) for _ in range(outputs)]
        weight = np.ascontiguousarray(np.stack(rows).T)
        yield weight, np.concatenate(biases)


def _row(lines: Iterator[tuple[int, str]], count: int) -> Float32[np.ndarray, " n"]:
    number, text = _take(lines, "weights")
    return _numbers(number, text, count, "weights")


def _take(lines: Iterator[tuple[int, str]], what: str) -> tuple[int, str]:
    found = next(lines, None)
    if found is None:
        raise NetworkError(f"the file ends where {what} should stand; it was cut short")
    return found


def _integers(lines: Iterator[tuple[int, str]], what: str) -> tuple[int, list[int]]:
    number, text = _take(lines, what)
    words = _words(text)
    if any(not word.isdigit() or len(word) > 9 for word in words) or not words:
        raise NetworkError(f"line {number}: expected {what} as whole numbers, found {shown(text)}")
    return number, [int(word) for word in words]


def _numbers(number: int, text: str, count: int, what: str) -> Float32[np.ndarray, " n"]:
    words = _words(text)
    if len(words) != count:
        raise NetworkError(f"line {number}: expected {count} {what}, found {len(words)}")
    if not set(text) <= NUMERIC:
        raise NetworkError(f"line {number}: {shown(text)} is not a list of numbers")
    try:
        with np.errstate(over="ignore"):
            values = np.array([float(word) for word in words], dtype=np.float64).astype(np.float32)
    except ValueError:
        raise NetworkError(f"line {number}: {shown(text)} is not a list of numbers") from None
    if not np.isfinite(values).all():
        raise NetworkError(f"line {number}: a number is not finite in float32")
    return values


def _words(text: str) -> list[str]:
    """The comma-separated words of a line; a comma may end it."""
    return [word.strip() for word in text.removesuffix(",").split(",")] if text else []


def _network(name: str, layers: tuple[tuple[np.ndarray, np.ndarray], ...]) -> Network:
    nodes: list[Node] = []
    shapes: dict[str, Shape] = {"input": (layers[0][0].shape[0],)}
    value = "input"
    for index, (weight, bias) in enumerate(layers, 1):
        last = index == len(layers)
        steps: list[tuple[str, Op]] = [(f"matmul_{index}", MatMul(weight))]
        steps.append(("output" if last else f"add_{index}", AddConstant(bias)))
        steps += [] if last else [(f"relu_{index}", Relu())]
        for output, op in steps:
            nodes.append(Node(output, op, (value,), output))
            shapes[output] = bias.shape
            value = output
    network = Network(name, "input", value, tuple(nodes), MappingProxyType(shapes), "")
    return replace(network, sha256=digest_of(network))
