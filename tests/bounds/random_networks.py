"""Hypothesis strategies: networks of every operator, boxes around them, and points inside."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from ir_networks import graph, single

from sutura.bounds.region import Region
from sutura.network import ops

WEIGHT_SIZES = (1.0, 1.0, 1e-3, 300.0)
WIDTHS = (0.0, 1e-6, 0.05, 1.0, 30.0)


@st.composite
def networks(draw):
    """One to six random steps from a flat or an image input."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = draw(st.booleans())
    shape = (draw(st.integers(1, 3)), 4, draw(st.integers(3, 4))) if image else (draw(st.integers(1, 4)),)
    steps, shapes = [], {"x": shape}
    for at in range(draw(st.integers(1, 6))):
        newest = steps[-1][2] if steps else "x"
        kind = draw(st.sampled_from(KINDS[len(shapes[newest])]))
        inputs, op = kind(random, newest, shapes)
        steps.append((op, inputs, f"v{at}"))
        shapes = dict(graph(shape, *steps).shapes)
    return graph(shape, *steps)


@st.composite
def boxes(draw, size):
    """Two boxes of float32 ends, some sides single points."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centre = random.normal(size=(2, size)) * draw(st.sampled_from((0.0, 1.0, 20.0)))
    width = random.choice(WIDTHS, size=(2, size)) * random.random((2, size))
    low, high = single(centre - width), single(centre + width)
    return Region(low.astype(np.float64), high.astype(np.float64))


def points(region, count, seed=0):
    """[boxes, count, n] float32 points: corners, the middle and others."""
    random = np.random.default_rng(seed)
    share = random.random((len(region), count, region.low.shape[1]))
    share[:, : count // 2] = np.round(share[:, : count // 2])
    low, high = region.low[:, None], region.high[:, None]
    return np.clip(single(low + share * (high - low)), single(low), single(high))


def _normal(random, *shape):
    weight = random.normal(size=shape) * random.choice(WEIGHT_SIZES)
    if random.random() < 0.2:  # large numbers that cancel: the sum depends on its order
        flat = weight.reshape(-1)
        flat[0], flat[-1] = 2.0**18, -(2.0**18)
    return single(weight)


def _spatial(random):
    return tuple(int(v) for v in random.integers(0, 2, 4))


def _matmul(random, newest, shapes):
    return (newest,), ops.MatMul(_normal(random, shapes[newest][-1], int(random.integers(1, 5))))


def _gemm(random, newest, shapes):
    n, m = shapes[newest][0], int(random.integers(1, 6))
    turned = bool(random.random() < 0.5)
    weight = _normal(random, m, n) if turned else _normal(random, n, m)
    bias = None if random.random() < 0.3 else _normal(random, m)
    alpha, beta = (1.0, 1.0) if random.random() < 0.7 else (0.75, -1.5)
    return (newest,), ops.Gemm(weight, bias, alpha, beta, turned)


def _constant(kind):
    def made(random, newest, shapes):
        value = single(
            np.where(random.random(shapes[newest]) < 0.5, -1, 1) * (0.3 + random.random(shapes[newest]))
        )
        return (newest,), kind(value)

    return made


def _reversed(random, newest, shapes):
    return (newest,), ops.SubtractConstant(single(random.normal(size=shapes[newest])), reversed=True)


def _two(kind):
    def made(random, newest, shapes):
        fitting = [name for name in shapes if shapes[name] == shapes[newest]]
        return (newest, fitting[int(random.integers(len(fitting)))]), kind()

    return made


def _conv(random, newest, shapes):
    channels = shapes[newest][0]
    group = channels if random.random() < 0.3 else 1
    out = group * int(random.integers(1, 3))
    kernel = tuple(min(2, n) for n in shapes[newest][1:])
    weight = _normal(random, out, channels // group, *kernel)
    bias = None if random.random() < 0.3 else _normal(random, out)
    dilations = (1, 2) if shapes[newest][2] >= 3 and random.random() < 0.4 else (1, 1)
    strides = (int(random.integers(1, 3)), 1)
    return (newest,), ops.Conv(weight, bias, strides, (1, *_spatial(random)[1:]), dilations, group)


def _normalization(random, newest, shapes):
    n = shapes[newest][0]
    scale, bias, mean = (single(random.normal(size=n)) for _ in range(3))
    return (newest,), ops.BatchNormalization(scale, bias, mean, single(random.random(n)), 1e-5)


def _average(random, newest, shapes):
    kernel = tuple(min(2, n) for n in shapes[newest][1:])
    pads = tuple(p if k > 1 else 0 for p, k in zip(_spatial(random), kernel * 2, strict=True))
    return (newest,), ops.AveragePool(kernel, (1, 1), pads, bool(random.random() < 0.5))


def _max(random, newest, shapes):
    kernel = tuple(min(2, n) for n in shapes[newest][1:])
    pads = tuple(p if k > 1 else 0 for p, k in zip(_spatial(random), kernel * 2, strict=True))
    return (newest,), ops.MaxPool(kernel, (1, 1), pads, (1, 1))


def _global(random, newest, shapes):
    return (newest,), ops.GlobalAveragePool()


def _flat(random, newest, shapes):
    return (newest,), ops.Reshape((int(np.prod(shapes[newest])),))


def _image(random, newest, shapes):
    return (newest,), ops.Reshape((1, 1, shapes[newest][0]))


def _transpose(random, newest, shapes):
    return (newest,), ops.Transpose(tuple(int(v) for v in random.permutation(len(shapes[newest]))))


def _pad(random, newest, shapes):
    pads = tuple(int(v) for v in random.integers(0, 2, 2 * len(shapes[newest])))
    return (newest,), ops.Pad(pads, float(np.float32(random.normal())))


def _concat(random, newest, shapes):
    fitting = [
        n for n in shapes if len(shapes[n]) == len(shapes[newest]) and shapes[n][1:] == shapes[newest][1:]
    ]
    return (newest, fitting[int(random.integers(len(fitting)))]), ops.Concat(0)


def _take(random, newest, shapes):
    axis = int(random.integers(len(shapes[newest])))
    return (newest,), ops.Take(axis, random.integers(0, shapes[newest][axis], 2))


def _bend(random, newest, shapes):
    slope = float(np.float32(random.choice([0.1, 0.0, 1.7, -0.4])))
    low = float(np.float32(random.normal()))
    high = float(np.float32(low + random.random()))
    kinds = [ops.Relu(), ops.Relu(), ops.LeakyRelu(slope), ops.Sigmoid(), ops.Tanh()]
    kinds += [ops.Square(), ops.Exp()] if random.random() < 0.3 else []
    kinds += [ops.Clip(low, high), ops.Clip(low, np.inf), ops.Clip(-np.inf, high)]
    return (newest,), kinds[int(random.integers(len(kinds)))]


ANY = (
    _bend, _bend, _bend, _constant(ops.AddConstant), _constant(ops.SubtractConstant), _reversed,
    _constant(ops.MultiplyConstant), _constant(ops.DivideConstant), _two(ops.Add), _two(ops.Subtract),
    _two(ops.Multiply),
    _pad, _concat, _take, _matmul,
)  # fmt: skip
KINDS = {
    1: (*ANY, _gemm, _gemm, _gemm, _image, _normalization),
    3: (*ANY, _conv, _conv, _normalization, _average, _max, _global, _flat, _transpose),
}
