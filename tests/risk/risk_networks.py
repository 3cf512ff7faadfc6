"""Small dense networks, loaded as files are: written, read back and checked against ONNX Runtime."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load
from sutura.network.shapes import output_shape


def chain(shape, *operators):
    """A network of operators one after the other."""
    shapes, nodes = {"x": shape}, []
    for i, op in enumerate(operators):
        before, name = (nodes[-1].output if nodes else "x"), f"v{i}"
        shapes[name] = output_shape(op, (shapes[before],))
        nodes.append(Node(f"node {i}", op, (before,), name))
    return load(write_onnx(Network("small", "x", nodes[-1].output, tuple(nodes), shapes, "")))


def linear(weight, bias=None):
    """y = weight @ x + bias."""
    weight = np.asarray(weight, np.float32)
    bias = np.zeros(len(weight)) if bias is None else bias
    return chain((weight.shape[1],), ops.Gemm(weight, np.asarray(bias, np.float32), 1.0, 1.0, True))


def dense(sizes, seed=0, activation=ops.Relu, last=()):
    """A random network with an activation between its layers; `last` operators follow."""
    random = np.random.default_rng(seed)
    steps = []
    for i, (n, m) in enumerate(pairwise(sizes)):
        weight = (random.normal(size=(m, n)) * np.sqrt(2.0 / n)).astype(np.float32)
        bias = (0.2 * random.normal(size=m)).astype(np.float32)
        steps += [activation()] * (i > 0) + [ops.Gemm(weight, bias, 1.0, 1.0, True)]
    return chain((sizes[0],), *steps, *last)


def points(count, size, seed=0):
    """Float32 points of [0, 1]."""
    return np.random.default_rng(seed).random((count, size)).astype(np.float32)
