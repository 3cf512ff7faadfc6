"""The proof tree: a partition of float32 input space into cells, written as a preorder string of varints.

The root cell is the whole of R^d. A node is a leaf, or splits its cell along one dimension at a float32
threshold t: the left child keeps x <= t, the right child x > t, that is x >= the next float32 above t. So
cells are closed boxes of float32 numbers, and together they hold every float32 input exactly once.

Bytes: 0 is a leaf; 2k + 1 splits dimension k at the midpoint of the cell; 2k + 2 splits dimension k at the
float32 that follows in four little-endian bytes. Varints are LEB128 in their shortest form, so that a tree
has one encoding only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from sutura.certificate.errors import CertificateError, brief


@dataclass(frozen=True, slots=True)
class Leaf:
    """A cell that is not split further."""


@dataclass(frozen=True, slots=True)
class Split:
    """A cell split along `dim`, at `threshold` (a float32 value), or at its midpoint where that is None."""

    dim: int
    threshold: float | None = None


LEAF = Leaf()
Node = Split | Leaf


def encode(nodes: Iterable[Node]) -> bytes:
    """The bytes of a tree given in preorder (node, left subtree, right subtree).

    Raises CertificateError where the nodes are no whole tree, a dimension is negative or too large, a
    threshold is not a finite float32 value, or the tree exceeds the budgets that `decode` grants.
    """
    out = bytearray()
    shape = _Shape()
    for node in nodes:
        shape.add(isinstance(node, Split))
        if isinstance(node, Leaf):
            out.append(0)
        elif node.threshold is None:
            out += _varint(2 * _dimension(node.dim) + 1)
        else:
            out += _varint(2 * _dimension(node.dim) + 2) + _float32_bytes(node.threshold)
    shape.finish()
    return bytes(out)


def decode(data: bytes) -> tuple[Node, ...]:
    """The nodes of an encoded tree, in preorder; `encode(decode(data)) == data` for all that is accepted.

    Raises CertificateError for anything that is not exactly one tree in its one encoding, and beyond the
    budgets (nodes, depth, dimensions). Thresholds are finite; whether they lie in their cell is for the walk.
    """
    if len(data) > MAX_BYTES:
        raise CertificateError(f"the proof tree has {len(data)} bytes; at most {MAX_BYTES} are read")
    nodes: list[Node] = []
    halved: dict[int, Split] = {}
    shape = _Shape()
    at = 0
    while at < len(data):
        code = data[at]
        at += 1
        if code >= 128:
            code, at = _long_varint(data, at - 1)
        if code > 2 * MAX_DIMENSION + 2:
            raise CertificateError(
                f"the proof tree splits dimension {(code - 1) // 2}, beyond {MAX_DIMENSION}"
            )
        shape.add(code != 0)
        if code == 0:
            nodes.append(LEAF)
        elif code % 2:
            nodes.append(halved.setdefault(code, Split((code - 1) // 2)))
        else:
            nodes.append(Split(code // 2 - 1, _threshold(data, at)))
            at += 4
    shape.finish()
    return tuple(nodes)


def midpoint(low: float, high: float) -> float:
    """The float32 threshold that halves the cell side [low, high]: it satisfies low <= t < high.

    Both ends are float32 values; raises CertificateError unless they are finite and low < high.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise CertificateError(f"a cell side [{low}, {high}] has no midpoint: give the split a threshold")
    middle = float(_round32((low + high) / 2))
    return low if middle >= high else middle


def next_above(value: float) -> float:
    """The smallest float32 value above a finite float32 value (infinity above the largest).

    -0.0 counts as 0.0, as it does in a comparison: above both comes the smallest subnormal.
    """
    if value == 0.0:
        return _SMALLEST
    (bits,) = _WORD.unpack(_FLOAT.pack(value))
    return float(_FLOAT.unpack(_WORD.pack(bits + 1 if value > 0 else bits - 1))[0])


@final
class _Shape:
    """Counts open subtrees, so that a preorder string ends exactly where its tree does."""

    __slots__ = ("nodes", "right_of")

    def __init__(self) -> None:
        self.nodes = 0
        self.right_of: list[bool] | None = [
            False
        ]  # one entry for each open ancestor: is its right side next?

    def add(self, split: bool) -> None:
        """Takes the next node in preorder."""
        if self.right_of is None:
            raise CertificateError(f"the proof tree is complete after {self.nodes} nodes, but more follow")
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise CertificateError(f"the proof tree has more than {MAX_NODES} nodes")
        if split:
            self.right_of.append(False)
            if len(self.right_of) > MAX_DEPTH + 1:
                raise CertificateError(f"the proof tree is deeper than {MAX_DEPTH} splits")
            return
        while self.right_of[-1]:
            self.right_of.pop()
        if len(self.right_of) == 1:
            self.right_of = None
        else:
            self.right_of[-1] = True

    def finish(self) -> None:
        """Refuses a tree some of whose cells are missing."""
        if self.right_of is not None:
            raise CertificateError(f"the proof tree ends after {self.nodes} nodes with cells missing")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _long_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(MAX_VARINT):
        if at + place >= len(data):
            raise CertificateError(f"the proof tree ends inside a number at byte {at}")
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            if byte == 0 and place:
                raise CertificateError(f"a number of the proof tree at byte {at} is not in its shortest form")
            return value, at + place + 1
    raise CertificateError(f"a number of the proof tree at byte {at} is longer than {MAX_VARINT} bytes")


def _threshold(data: bytes, at: int) -> float:
    if at + 4 > len(data):
        raise CertificateError(f"the proof tree ends inside a threshold at byte {at}")
    value = float(_FLOAT.unpack_from(data, at)[0])
    if not math.isfinite(value):
        raise CertificateError(f"a threshold of the proof tree at byte {at} is {value}; it must be finite")
    return value


def _dimension(dim: int) -> int:
    if not 0 <= dim <= MAX_DIMENSION:
        raise CertificateError(f"a split along dimension {dim} cannot be written: 0 to {MAX_DIMENSION} can")
    return dim


def _float32_bytes(value: float) -> bytes:
    if not math.isfinite(value) or abs(value) > _LARGEST or _round32(value) != value:
        raise CertificateError(f"a split threshold {brief(value)} is not a finite float32 number")
    return _FLOAT.pack(value)


def _round32(value: float) -> float:
    """A float64 value within the float32 range, rounded to the nearest float32 (ties to even)."""
    return float(_FLOAT.unpack(_FLOAT.pack(value))[0])


_FLOAT = struct.Struct("<f")
_WORD = struct.Struct("<I")
_LARGEST = float((2 - 2**-23) * 2.0**127)
_SMALLEST = 2.0**-149
MAX_BYTES = 1 << 25
MAX_NODES = 1 << 22
MAX_DEPTH = 1 << 15
MAX_DIMENSION = (1 << 24) - 1
MAX_VARINT = 5
