"""A network: an immutable graph with one input and one output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sutura.network.ops import Op

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: the values it reads, in order, and the one it defines."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True)
class Network:
    """Nodes in topological order; `shapes` holds the sample shape (no batch axis) of every value.

    Every network takes batches: axis 0 of each value is the batch, of any length. `sha256` is the digest of
    the bytes it was read from, in hex, or that of the ONNX bytes written for it where it came from elsewhere.
    """

    name: str
    input: str
    output: str
    nodes: tuple[Node, ...]
    shapes: Mapping[str, Shape]
    sha256: str

    @property
    def input_shape(self) -> Shape:
        """Sample shape of the input."""
        return self.shapes[self.input]

    @property
    def output_shape(self) -> Shape:
        """Sample shape of the output."""
        return self.shapes[self.output]

    @property
    def input_size(self) -> int:
        """How many numbers one input sample holds (X_0, X_1, ... of a property, in row-major order)."""
        return math.prod(self.input_shape)

    @property
    def output_size(self) -> int:
        """How many numbers one output sample holds (Y_0, Y_1, ... of a property)."""
        return math.prod(self.output_shape)
