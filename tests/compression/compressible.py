"""Small networks with random weights, and calibration samples for them."""

from __future__ import annotations

import numpy as np

from sutura.compression.factors import shaped
from sutura.compression.layers import layer_at
from sutura.dataset import Dataset
from sutura.network import ops
from sutura.network.graph import Network, Node


def chain(shape, *operators, name="small"):
    """Operators one after another, named by place and kind."""
    nodes, value = [], "x"
    for at, op in enumerate(operators):
        nodes.append(Node(f"{type(op).__name__.lower()}{at}", op, (value,), f"v{at}"))
        value = f"v{at}"
    return shaped(Network(name, "x", value, (), {"x": shape}, ""), nodes)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def convolution(
    seed, out, channels, kernel=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), bias=True
):
    weight = normal(seed, out, channels, *kernel) / np.sqrt(channels * np.prod(kernel))
    return ops.Conv(
        weight.astype(np.float32), normal(seed + 1, out) if bias else None, strides, pads, dilations
    )


def normalisation(seed, channels):
    positive = np.abs(normal(seed, channels)) + 0.5
    return ops.BatchNormalization(
        positive, normal(seed + 1, channels), normal(seed + 2, channels), positive[::-1].copy(), 1e-5
    )


def gemm(seed, out, inputs):
    weight = normal(seed, out, inputs) / np.sqrt(inputs)
    return ops.Gemm(weight.astype(np.float32), normal(seed + 1, out), transposed=True)


def classifier(seed=0):
    """Two convolutions, one normalised, and two linear layers on 4x8x8 inputs, 5 outputs."""
    return chain(
        (4, 8, 8),
        convolution(seed, 8, 4),
        ops.Relu(),
        convolution(seed + 10, 12, 8, strides=(2, 2), bias=False),
        normalisation(seed + 20, 12),
        ops.Relu(),
        ops.Reshape((192,)),
        gemm(seed + 30, 20, 192),
        ops.Relu(),
        gemm(seed + 40, 5, 20),
        name="classifier",
    )


def samples(network, count=48, seed=3, classes=None):
    """Correlated inputs, as real ones are."""
    random = np.random.default_rng(seed)
    base = random.normal(size=(6, *network.input_shape))
    x = np.tensordot(random.normal(size=(count, 6)), base, axes=1) + 0.1 * random.normal(
        size=(count, *network.input_shape)
    )
    y = None if classes is None else random.integers(classes, size=count)
    return Dataset("samples.npz", x.astype(np.float32), y)


def only_layer(network):
    """The first layer of a network."""
    return next(found for at in range(len(network.nodes)) if (found := layer_at(network, at)))
