"""A network as layers: linear ones in whole numbers, and monotone bends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .gates import Gates
from .graph import FLOAT, Graph, Node, Shape, Tensor
from .ticks import ONE, Ints, want

Rows = Sequence[tuple[Shape | None, Ints]]


class Linear(NamedTuple):
    """y = 2^-q W x + bias (ticks) over the sources joined, each term rounded `roundings` times at most.

    A row is (the inputs that count, or None for all; their weights). With 0 roundings a runtime may fold the
    layer into the sums before it. `packed` holds each whole row as one number, `limb` bytes a weight.
    """

    sources: Shape
    rows: Rows
    q: int
    bias: Ints
    roundings: int
    packed: Ints
    limb: int


class Bend(NamedTuple):
    """y = f(x), elementwise or of the largest x in each of the `windows`; f is monotone.

    It is linear between `kinks`; where they are None, only its ends are known, within `stray`. `leak`: f
    rounds. By row of the gates, `pins` hold entries at a value where that is not None.
    """

    sources: Shape
    f: Callable[[int], int]
    kinks: Ints | None
    leak: bool = False
    stray: int = 0
    windows: Sequence[Ints] = ()
    pins: Sequence[Sequence[int | None]] = ()


class Draft(NamedTuple):
    """A network under construction: values 0 (the input) and on; `values` maps names to (number, shape)."""

    g: Graph
    gates: Gates
    reads: Sequence[str]
    values: dict[str, tuple[int, Shape]]
    layers: list[Linear | Bend]

    def define(self, node: Node, layer: Linear | Bend, shape: Shape) -> None:
        """Appends a layer whose result is what the node makes."""
        self.layers.append(layer)
        self.values[node.outputs[0]] = len(self.layers), shape

    def operand(self, node: Node, at: int) -> Tensor:
        """A float32 constant that a node reads."""
        found = self.g.constants.get(node.inputs[at], Tensor(0, (), ()))
        want(found.kind == FLOAT, f"operand {at} of {node.op} is no float32 constant")
        return found

    def bias(self, node: Node, size: int) -> Ints:
        """The bias of a linear operator."""
        return spread(self.operand(node, 2), (size,)) if len(node.inputs) > 2 else [0] * size


def linear_layer(sources: Shape, rows: Rows, bias: Ints, roundings: int) -> Linear:
    """A linear layer of weights in ticks, brought to their smallest common scale."""
    joined = largest = 0
    for weight in (weight for _, weights in rows for weight in weights):
        joined, largest = joined | weight, max(largest, abs(weight))
    q = min(149, max(0, (joined & -joined).bit_length() - 1))
    found = [(index, tuple(v >> q for v in weights)) for index, weights in rows]
    limb = (COEFFICIENT + (largest >> q).bit_length() + len(rows).bit_length() + 9) // 8
    whole = all(index is None for index, _ in rows)
    packed = [sum(v << 8 * limb * at for at, v in enumerate(weights)) for _, weights in found if whole]
    return Linear(sources, found, 149 - q, bias, roundings, packed, limb)


def settings(node: Node, defaults: Mapping[str, tuple[str, Any]]) -> list[Any]:
    """The attributes of a node in the order of the defaults; any other is refused."""
    found = {**defaults, **node.attributes}
    same = len(found) == len(defaults) and all(found[key][0] == kind for key, (kind, _) in defaults.items())
    want(same, f"{node.op} has an attribute that has no rule here")
    return [found[key][1] for key in defaults]


def spread(value: Tensor, shape: Shape) -> Ints:
    """A constant stretched to a sample shape."""
    full, sizes = (1, *shape), (1,) * (len(shape) + 1 - len(value.shape)) + value.shape
    fits = len(sizes) == len(full) and all(a in {1, b} for a, b in zip(sizes, full, strict=True))
    want(fits, f"a constant of shape {value.shape} does not fit a value of shape {shape}")
    places = [0]
    for size, many in zip(sizes, full, strict=True):
        places = [at * size + (i if size > 1 else 0) for at in places for i in range(many)]
    return [value.values[at] for at in places]


def clamp(low: int, high: int) -> Callable[[int], int]:
    """min(max(x, low), high)."""
    return lambda x: min(max(x, low), high)


def leaky(slope: int) -> Callable[[int], int]:
    """x, or slope x (rounded down) where x is negative."""
    return lambda x: x if x > 0 else x * slope >> 149


def logistic(x: int) -> int:
    """1 / (1 + e^-x) in ticks, within 2^-90: a series for |x| / 2^8, squared eight times."""
    one = 1 << 128
    if abs(x) >= 128 * ONE:
        return ONE if x > 0 else 0
    term = total = one
    for k in range(1, 30):
        term = -term * (abs(x) >> 29) // (k * one)
        total += term
    for _ in range(8):
        total = total * total >> 128
    return ((one if x > 0 else total) << 149) // (one + total)


def tanh(x: int) -> int:
    """2 logistic(2 x) - 1."""
    return 2 * logistic(2 * x) - ONE


COEFFICIENT = 57  # bits of a coefficient before it is multiplied by weights
