"""Cuts refute what linear bounds of the whole box leave open, and never what an input violates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sutura.bounds.crown import crown, lower_planes, no_checkpoint
from sutura.bounds.lower import lower
from sutura.bounds.program import run
from sutura.bounds.region import Region
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.shapes import output_shape
from sutura.verdict.cutting import cut_off
from sutura.verdict.goal import Goal

SIDE = 0.1


def program(seed, activation):
    random, nodes, shapes, sizes = np.random.default_rng(seed), [], {"x": (12,)}, (12, 20, 20, 2)
    for i in range(3):
        weight = (random.normal(size=(sizes[i + 1], sizes[i])) * np.sqrt(2.0 / sizes[i])).astype(np.float32)
        bias = (0.2 * random.normal(size=sizes[i + 1])).astype(np.float32)
        for op in [activation()] * (i > 0) + [ops.Gemm(weight, bias, 1.0, 1.0, True)]:
            before, name = (nodes[-1].output if nodes else "x"), f"v{len(nodes)}"
            shapes[name] = output_shape(op, (shapes[before],))
            nodes.append(Node(name, op, (before,), name))
    return lower(Network("small", "x", nodes[-1].output, tuple(nodes), shapes, ""))


def below(limit):
    """Output 0 minus output 1 at most the limit."""
    one = np.ones((1, 1), dtype=np.bool_)
    return Goal(np.array([[1.0, -1.0]]), np.array([limit]), np.zeros(1, np.bool_), one)


@pytest.mark.parametrize("activation", [ops.Relu, ops.Tanh])
@pytest.mark.parametrize("seed", range(4))
def test_cuts_hold_wherever_the_conjunction_does(seed, activation):
    net, random = program(seed, activation), np.random.default_rng(seed)
    region = Region(np.full((1, 12), -SIDE), np.full((1, 12), SIDE))
    bounds = crown(net, region)
    row = below(0.0).rows
    corners = np.array(list(itertools.product((-SIDE, SIDE), repeat=12)))
    x = np.concatenate([corners, random.uniform(-SIDE, SIDE, (10000, 12))])
    values = run(net, x)
    gap = values[-1] @ row[0]
    planes = lower_planes(net, region, bounds, row)
    bound = float(planes.value[0, 0])
    assert bound < gap.min()
    refuted = 0
    for share in np.linspace(0.02, 0.98, 13):
        limit = bound + share * (gap.min() - bound)
        refuted += cut_off(net, below(limit), (region, bounds), (0, np.ones(1)), no_checkpoint) is None
    # Linear bounds alone show none of these: the limits lie above what they reach.
    assert refuted >= 2
    for limit in np.quantile(gap, [0.0, 0.001, 0.1]):
        left = cut_off(net, below(limit), (region, bounds), (0, np.ones(1)), no_checkpoint)
        assert left is not None
        there = gap <= limit
        for at in range(1, len(values)):
            slack = 1e-5 * (1.0 + abs(values[at]).max())
            assert (values[at][there] >= left.low[at][0] - slack).all()
            assert (values[at][there] <= left.high[at][0] + slack).all()
