"""Networks of a few layers for the tests of this room."""

from __future__ import annotations

import numpy as np

from sutura.dataset import Dataset
from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.onnx_write import write_onnx
from sutura.network.read import load


def network(name, shapes, *steps):
    """A chain of operators; `shapes` those of the values from the input on."""
    values = ["x", *(f"v{i}" for i in range(1, len(steps) + 1))]
    nodes = tuple(Node(label, op, (values[i],), values[i + 1]) for i, (label, op) in enumerate(steps))
    raw = Network(name, "x", values[-1], nodes, dict(zip(values, shapes, strict=True)), "")
    return load(write_onnx(raw)).network


def classifier(seed=0):
    """A strided, padded convolution, a normalisation, a grouped, dilated convolution, linear layers."""
    rng = np.random.default_rng(seed)

    def some(*shape):
        return rng.normal(0, 0.4, shape).astype(np.float32)

    bn = ops.BatchNormalization(1 + some(6), some(6), some(6), np.abs(some(6)) + 0.5, 1e-5)
    return network(
        "classifier.onnx",
        [(2, 9, 9), (6, 5, 5), (6, 5, 5), (6, 5, 5), (4, 3, 3), (4, 3, 3), (36,),
         (10,), (10,), (10,), (7,), (5,)],
        ("conv1", ops.Conv(some(6, 2, 3, 3), None, (2, 2), (1, 1, 1, 1), (1, 1))),
        ("bn", bn),
        ("relu1", ops.Relu()),
        ("conv2", ops.Conv(some(4, 3, 2, 2), some(4), (1, 1), (0, 0, 0, 0), (2, 2), 2)),
        ("relu2", ops.Relu()),
        ("flat", ops.Reshape((36,))),
        ("fc1", ops.MatMul(some(36, 10))),
        ("add1", ops.AddConstant(some(10))),
        ("relu3", ops.Relu()),
        ("fc2", ops.Gemm(some(10, 7), some(7), 0.5, 2.0, False)),
        ("fc3", ops.Gemm(some(5, 7), None, 1.0, 1.0, True)),
    )  # fmt: skip


def samples(net, count=64, seed=1):
    x = np.random.default_rng(seed).normal(0, 1, (count, *net.input_shape)).astype(np.float32)
    return Dataset("calib.npz", x, None)
