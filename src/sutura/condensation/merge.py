"""merge(): neurons on one line become one, weight for weight, with a bound on what that changes.

For an activation with s(r z) = r s(z) (ReLU) a group G of neurons with lengths r_j and orientations u_j
becomes
one neuron v, and what they passed on, sum_j a_j r_j s(v . x), exact where every u_j is v. For others (tanh,
sigmoid) the points are the input weights themselves. Opposite neurons share one where the activation allows
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from jaxtyping import Float64

from sutura.condensation.blocks import Block, Weights, blocks, replaced, weights
from sutura.condensation.groups import Cloud, Groups, Merges, cut, hierarchy
from sutura.errors import NetworkError
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import digest_of
from sutura.network.shapes import output_shape

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Layer:
    """What became of a layer: its activation's node, and how many neurons it had and has."""

    node: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One layer merged: the networks before and after it, and what tells the two apart.

    `gap[j]` bounds |s(w_j . x) - what stands for it| by gap[j] |(x, 1)| + rest[j], over the reals, with x
    what
    the layer's weights see (a patch, for a convolution).
    """

    before: Network
    after: Network
    block: Block
    gap: Float64[Array, " neurons"]
    rest: Float64[Array, " neurons"]


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """The smaller network, an account of its layers, and the steps that led there, first layer first."""

    network: Network
    layers: tuple[Layer, ...]
    steps: tuple[Step, ...]

    @property
    def kept(self) -> int:
        """Hidden neurons left, of all that could be merged."""
        return sum(layer.after for layer in self.layers)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The hierarchies of a network's blocks, made once; any size is then cut from them in a moment."""

    network: Network
    merges: tuple[Merges, ...]

    @property
    def neurons(self) -> int:
        """Hidden neurons that can be merged."""
        return sum(m.neurons for m in self.merges)

    @property
    def least(self) -> int:
        """Each layer keeps one."""
        return len(self.merges)


def plan(network: Network) -> Plan:
    """Ward's hierarchy of every block. Raises NetworkError where the network has none."""
    found = blocks(network)
    if not found:
        raise NetworkError(
            f"{network.name} has no layer whose neurons can be merged: weights (no groups), then ReLU, "
            "LeakyReLU, tanh or sigmoid, then weights, with nothing else that reads in between"
        )
    return Plan(network, tuple(hierarchy(_cloud(block, weights(block))) for block in found))


def merge(planned: Plan, keep: int) -> Merged:
    """Keep `keep` hidden neurons in all, as few as one a layer; those go first whose joining costs least.

    A layer's costs are compared with others' as shares of its whole: of sum_j c_j |u_j - mean|^2. Works front
    to back; the groups are those of the original's weights.
    """
    if not planned.least <= keep <= planned.neurons:
        raise NetworkError(
            f"{planned.network.name} cannot keep {keep} hidden neurons; possible are "
            f"{planned.least} (one a layer) to {planned.neurons}"
        )
    counts = _counts(planned.merges, keep)
    network, steps, layers = planned.network, list[Step](), list[Layer]()
    for at, (merges, count) in enumerate(zip(planned.merges, counts, strict=True)):
        block = blocks(network)[at]
        layers.append(Layer(block.activation.name, merges.neurons, count))
        if count < merges.neurons:
            steps.append(_step(network, block, cut(merges, count)))
            network = steps[-1].after
    return Merged(replace(network, sha256=digest_of(network)), tuple(layers), tuple(steps))


def _cloud(block: Block, held: Weights) -> Cloud:
    points = _points(held)
    passed = np.linalg.norm(held.outgoing, axis=1)
    if not block.kind.scales:
        return Cloud(points, passed, block.kind.reflection is not None)
    length = np.linalg.norm(points, axis=1)
    unit = points / np.where(length > 0, length, 1.0)[:, None]
    return Cloud(unit, passed * length, block.kind.reflection is not None)


def _points(held: Weights) -> Float64[Array, "neurons inputs"]:
    if held.bias is None:
        return held.incoming
    return np.concatenate([held.incoming, held.bias[:, None]], axis=1)


def _counts(merges: Sequence[Merges], keep: int) -> list[int]:
    """How many neurons each layer keeps: all joins in order of their share of the layer's total cost."""
    total = [max(float(m.cost.sum()), 1e-300) for m in merges]
    shares = np.concatenate([m.cost / t for m, t in zip(merges, total, strict=True)])
    layer = np.concatenate([np.full(len(m.cost), at) for at, m in enumerate(merges)])
    order = np.argsort(shares, kind="stable")[: len(shares) + len(merges) - keep]
    joined = np.bincount(layer[order], minlength=len(merges))
    return [m.neurons - int(j) for m, j in zip(merges, joined, strict=True)]


def _step(network: Network, block: Block, groups: Groups) -> Step:
    """Merge one block; what is stored is rounded to float32 before the gap is taken."""
    held = weights(block)
    points, kind = _points(held), block.kind
    length = np.linalg.norm(points, axis=1) if kind.scales else np.ones(len(points))
    safe = np.where(length > 0, length, 1.0)
    centres = _centres(points * (groups.sign / safe)[:, None], _cloud(block, held).weights, groups)
    moved, constant = (1.0, 0.0) if kind.reflection is None else kind.reflection
    factor = length * np.where(groups.sign < 0, moved, 1.0)
    outgoing = np.zeros((groups.count, held.outgoing.shape[1]))
    np.add.at(outgoing, groups.group, held.outgoing * factor[:, None])
    flipped = groups.sign < 0
    shift = constant * held.outgoing[flipped].sum(axis=0) if constant and flipped.any() else None
    bias = None if held.bias is None else centres[:, -1]
    new = Weights(centres if bias is None else centres[:, :-1], bias, outgoing)
    after = _swapped(network, replaced(block, new, shift))
    stands_for = centres[groups.group] * (groups.sign * length)[:, None]
    apart = np.linalg.norm(points - stands_for, axis=1)
    # The sums passed on are stored in float32: each neuron's part of them moves by a rounding of its size.
    size = np.linalg.norm(stands_for, axis=1) * ROUNDED
    rest = ROUNDED * (abs(constant) + (0.0 if kind.scales else 1.0)) * np.ones(len(points))
    return Step(network, after, block, kind.steepest * (apart + size), rest)


def _centres(points: Array, mass: Array, groups: Groups) -> Float64[Array, "groups inputs"]:
    """Weighted means, rounded to float32."""
    total = np.zeros(groups.count)
    sums = np.zeros((groups.count, points.shape[1]))
    weight = np.maximum(mass, 1e-300)
    np.add.at(total, groups.group, weight)
    np.add.at(sums, groups.group, points * weight[:, None])
    return (sums / total[:, None]).astype(np.float32).astype(np.float64)


def _swapped(network: Network, nodes: Sequence[Node]) -> Network:
    """The network with some nodes replaced, shapes worked out again."""
    new: Mapping[str, Node] = {node.output: node for node in nodes}
    kept = tuple(new.get(node.output, node) for node in network.nodes)
    shapes = {network.input: network.input_shape}
    for node in kept:
        shapes[node.output] = output_shape(node.op, tuple(shapes[value] for value in node.inputs))
    return replace(network, nodes=kept, shapes=MappingProxyType(shapes))


ROUNDED = 2.0**-22
"""Room for sums kept in float32, in units of their parts."""
