"""Networks whose truth is known by construction, and ways to ask about them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from sutura.network import ops
from sutura.network.graph import Network, Node
from sutura.network.read import Loaded
from sutura.network.shapes import output_shape
from sutura.property.build import box
from sutura.property.spec import Case, Inequality, Property
from sutura.verdict.search import VerifyConfig
from sutura.verdict.verify import verify


def single(values):
    return np.asarray(values, dtype=np.float32)


def loaded(inputs, *operators):
    shapes, nodes, name = {"x": (inputs,)}, [], "x"
    for at, op in enumerate(operators):
        shapes[f"v{at}"] = output_shape(op, (shapes[name],))
        nodes.append(Node(f"n{at}", op, (name,), f"v{at}"))
        name = f"v{at}"
    return Loaded(Network("planted", "x", name, tuple(nodes), shapes, ""), None, 0.0)


def dense(weight, bias):
    return ops.Gemm(single(weight), single(bias), transposed=True)


def hat(peak, height=1.0, steepness=64.0):
    """relu(height - steepness |x - peak|_1): zero nearly everywhere, `height` at the peak."""
    n = len(peak)
    signs = np.repeat(np.eye(n), 2, axis=0) * np.tile([1.0, -1.0], n)[:, None]
    first = dense(signs, -signs @ np.asarray(peak))
    return loaded(n, first, ops.Relu(), dense([[-steepness] * 2 * n], [height]), ops.Relu())


def rugged():
    """A random network of four inputs on [-1, 1]^4: at most 0.62 there, at least 0.59 somewhere."""
    random = np.random.default_rng(0)
    operators = []
    for n, m in ((4, 16), (16, 16), (16, 1)):
        weight, bias = random.normal(size=(m, n)) * np.sqrt(2 / n), random.normal(size=m) / 4
        operators += [dense(weight, bias), ops.Relu()]
    return loaded(4, *operators[:-1])


def at_least(index, bound, strict=False):
    """Y_index >= bound, as an inequality of the unsafe set."""
    return Inequality(((index, Fraction(-1)),), -Fraction(bound), strict)


def at_most(index, bound, strict=False):
    return Inequality(((index, Fraction(1)),), Fraction(bound), strict)


def case(low, high, *conjunctions):
    return Case(box(low, high), tuple(conjunctions))


def prop(inputs, outputs, *cases):
    return Property("planted", inputs, outputs, tuple(cases), b"")


def ask(network, *cases, timeout=20.0, workers=1, seed=0, listen=None):
    wanted = prop(network.network.input_size, network.network.output_size, *cases)
    config = VerifyConfig(timeout=timeout, workers=workers, seed=seed)
    return verify(network, wanted, config, **({} if listen is None else {"listen": listen}))
