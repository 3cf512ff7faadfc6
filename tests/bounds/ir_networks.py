"""Small networks built from operators, and float32 executions of them in several orders of summation."""

from __future__ import annotations

import itertools
import math

import numpy as np

from sutura.network import ops
from sutura.network.evaluate import apply
from sutura.network.graph import Network, Node
from sutura.network.shapes import output_shape

ORDERS = ("forward", "reversed", "ascending", "descending", "pairwise", "signs apart", "wide")


def graph(shape, *steps):
    """Each step is (operator, names of its inputs, name of its output); the last output is the network's."""
    shapes = {"x": shape}
    nodes = []
    for op, inputs, output in steps:
        shapes[output] = output_shape(op, tuple(shapes[name] for name in inputs))
        nodes.append(Node(f"node {output}", op, tuple(inputs), output))
    return Network("small", "x", nodes[-1].output, tuple(nodes), shapes, "")


def chain(shape, *operators):
    names = ["x", *(f"v{i}" for i in range(len(operators)))]
    return graph(shape, *((op, (a,), b) for op, a, b in zip(operators, names, names[1:], strict=False)))


def single(values):
    return np.asarray(values, dtype=np.float32)


def total(terms, order):
    """The float32 sum of float32 numbers in one order."""
    if order == "wide":
        return np.float32(math.fsum(float(t) for t in terms))
    if order == "pairwise":
        terms = list(terms)
        while len(terms) > 1:
            pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
            terms = pairs + ([terms[-1]] if len(terms) % 2 else [])
        return terms[0]
    result = np.float32(0)
    for term in _ordered(terms, order):
        result = result + term
    return result


def _ordered(terms, order):
    match order:
        case "reversed":
            return terms[::-1]
        case "ascending":
            return sorted(terms, key=abs)
        case "descending":
            return sorted(terms, key=abs, reverse=True)
        case "signs apart":
            return sorted(terms)
        case _:
            return terms


def execute(network, x, order):
    """Every value of the network for one float32 sample, in float32."""
    values = {network.input: x}
    with np.errstate(all="ignore"):
        for node in network.nodes:
            inputs = [values[name] for name in node.inputs]
            special = SUMS.get(type(node.op))
            if special is None:
                values[node.output] = apply(node.op, tuple(v[None] for v in inputs))[0]
            else:
                values[node.output] = special(node.op, inputs[0], network.shapes[node.output], order)
    assert all(v.dtype == np.float32 for v in values.values())
    return values


def _matmul(op, x, shape, order):
    y = np.zeros(shape, np.float32)
    for index in np.ndindex(*shape):
        y[index] = total(list(x[index[:-1]] * op.weight[:, index[-1]]), order)
    return y


def _gemm(op, x, shape, order):
    weight = op.weight.T if op.transposed else op.weight
    y = np.float32(op.alpha) * _matmul(ops.MatMul(weight), x, shape, order)
    return y if op.bias is None else y + np.float32(op.beta) * op.bias


def _conv(op, x, shape, order):
    y = np.zeros(shape, np.float32)
    per_group, kernel = op.weight.shape[1], op.weight.shape[2:]
    for index in np.ndindex(*shape):
        group = index[0] // (shape[0] // op.group)
        terms = []
        for channel, offset in itertools.product(range(per_group), np.ndindex(*kernel)):
            at = [
                i * s + o * d - p
                for i, s, o, d, p in zip(index[1:], op.strides, offset, op.dilations, op.pads, strict=False)
            ]
            if all(0 <= a < n for a, n in zip(at, x.shape[1:], strict=True)):
                terms.append(x[(group * per_group + channel, *at)] * op.weight[(index[0], channel, *offset)])
        bias = [] if op.bias is None else [op.bias[index[0]]]
        y[index] = total([*bias, *terms], order) if terms or bias else 0
    return y


def _average(op, x, shape, order):
    y = np.zeros(shape, np.float32)
    for index in np.ndindex(*shape):
        terms = []
        for offset in np.ndindex(*op.kernel):
            at = [i * s + o - p for i, s, o, p in zip(index[1:], op.strides, offset, op.pads, strict=False)]
            if all(0 <= a < n for a, n in zip(at, x.shape[1:], strict=True)):
                terms.append(x[(index[0], *at)])
        count = math.prod(op.kernel) if op.count_include_pad else len(terms)
        y[index] = total(terms, order) / np.float32(count)
    return y


def _global_average(op, x, shape, order):
    flat = x.reshape(x.shape[0], -1)
    return np.array(
        [total(list(row), order) / np.float32(flat.shape[1]) for row in flat], np.float32
    ).reshape(shape)


SUMS = {
    ops.MatMul: _matmul,
    ops.Gemm: _gemm,
    ops.Conv: _conv,
    ops.AveragePool: _average,
    ops.GlobalAveragePool: _global_average,
}
