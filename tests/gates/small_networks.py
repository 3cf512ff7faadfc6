"""Small random networks and properties for the tests of gates."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sutura.errors import SuturaError
from sutura.gates.cells import Cell, Tree, box32, cells, everything, explicit, graft, merged, partition
from sutura.gates.gate import OutputGate
from sutura.gates.gated_model import gated_model
from sutura.gates.safe_set import inner_point, safe_set
from sutura.network.onnx_read import parse_onnx
from sutura.network.read import Loaded
from sutura.network.run import open_session
from sutura.property.spec import Box, Case, Inequality, Property
from sutura.property.write import write
from sutura.verdict.replay import runner


def onnx_bytes(nodes, weights, source, target):
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s])
        for n, s in (("x", source), ("y", target))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def mlp(sizes, seed, *, scale=1.0):
    """ONNX bytes of Gemm, Relu, ..., Gemm with random weights."""
    draw = np.random.default_rng(seed)
    nodes, weights, value = [], {}, "x"
    for at, (n, m) in enumerate(pairwise(sizes)):
        weights[f"w{at}"] = (draw.standard_normal((n, m)) * scale).astype(np.float32)
        weights[f"b{at}"] = (draw.standard_normal(m) * 0.3).astype(np.float32)
        last = at == len(sizes) - 2
        out = "y" if last else f"a{at}"
        nodes.append(helper.make_node("Gemm", [value, f"w{at}", f"b{at}"], [out], name=f"gemm{at}"))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"h{at}"], name=f"relu{at}"))
            value = f"h{at}"
    return onnx_bytes(nodes, weights, [sizes[0]], [sizes[-1]])


def convolution(seed=3):
    """Inputs [N, 1, 2, 2], outputs [N, 1, 5]."""
    draw = np.random.default_rng(seed)
    weights = {
        "k": draw.standard_normal((2, 1, 2, 2)).astype(np.float32),
        "c": draw.standard_normal(2).astype(np.float32),
        "t": np.array([0, 1, 2], np.int64),
        "w": draw.standard_normal((2, 5)).astype(np.float32),
        "b": draw.standard_normal(5).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k", "c"], ["a"], name="conv"),
        helper.make_node("Relu", ["a"], ["h"], name="relu"),
        helper.make_node("Flatten", ["h"], ["f"], name="flat", axis=1),
        helper.make_node("Reshape", ["f", "t"], ["g"], name="shape"),
        helper.make_node("MatMul", ["g", "w"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "b"], ["y"], name="add"),
    ]
    return onnx_bytes(nodes, weights, [1, 2, 2], [1, 5])


def loaded(data):
    return Loaded(parse_onnx(data, "small.onnx"), data, 0.0)


def run_original(data):
    return runner(open_session(data))


def run_repaired(data):
    return runner(open_session(data, gated=True))


def cube(low, high):
    def exact(values):
        return tuple(Fraction(float(np.float32(v))) for v in values)

    return Box(exact(low), exact(high))


def less(i, j, *, strict=False):
    """The unsafe inequality Y_i <= Y_j (or <)."""
    return Inequality(tuple(sorted([(i, Fraction(1)), (j, Fraction(-1))])), Fraction(0), strict)


def at_most(terms, bound, *, strict=False):
    """The unsafe inequality sum of coefficient * Y_index <= bound (or <)."""
    exact = tuple(sorted((i, Fraction(c)) for i, c in terms.items()))
    return Inequality(exact, Fraction(bound), strict)


def prop(name, inputs, outputs, *cases):
    """A property of (box, unsafe conjunctions) pairs."""
    made = tuple(Case(box, tuple(tuple(c) for c in unsafe)) for box, unsafe in cases)
    return Property(name, inputs, outputs, made, write(inputs, outputs, made))


def gate_everything(network, properties):
    """The network with an output gate on every cell of the partition, without search or certificate."""
    cases = [case for p in properties for case in p.cases]
    layout = partition([box32(*case.box.float32_hull()) for case in cases], network.input_size)
    labels = list(dict.fromkeys(label for label in cells(layout) if label))
    gates = []
    for label in labels:
        safe = safe_set(c for i in sorted(label) for c in cases[i].unsafe)
        constant = inner_point(safe, np.zeros(network.output_size))
        if constant is None:
            raise SuturaError("contradiction")
        gates.append(OutputGate(safe, constant))
    tree: Tree[int] = graft(layout, lambda _, label: (Cell(labels.index(label) + 1 if label else 0),))
    tree = explicit(merged(tree, lambda a, b: a == b), everything(network.input_size))
    return gated_model(network, tree, gates)


def points(box, count, seed):
    """Random float32 points of a box's hull, a quarter of them corners or on faces."""
    low, high = box.float32_hull()
    draw = np.random.default_rng(seed)
    share = draw.random((count, len(low)))
    share[: count // 4] = np.round(share[: count // 4])
    share[count // 4 : count // 2] = np.clip(share[count // 4 : count // 2] * 1.5 - 0.25, 0, 1)
    return np.clip((low + share * (high.astype(np.float64) - low)).astype(np.float32), low, high)


def just_outside(box, count, seed):
    """Points of the hull with one coordinate moved to the float32 number beyond its face."""
    low, high = box.float32_hull()
    x = points(box, count, seed)
    draw = np.random.default_rng(seed + 1)
    for row in x:
        dim, up = draw.integers(len(low)), draw.integers(2)
        row[dim] = (
            np.nextafter(high[dim], np.float32(np.inf)) if up else np.nextafter(low[dim], np.float32(-np.inf))
        )
    return x


def pool(workers=1):
    return ThreadPoolExecutor(workers)


def quiet_session(data):
    """A session of ONNX Runtime that reports warnings."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
