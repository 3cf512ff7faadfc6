"""Small networks and properties on disk, quick ones and one that nothing decides within seconds."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sutura.property.build import box, output_bound

HARD = "hard"
"""Name of the pairs that only a limit ends: the network is LARGE, the bound out of reach of both sides."""

LARGE = (10, 60, 60, 60, 1)


def mlp(sizes, seed):
    """ONNX bytes of a random Gemm, Relu, ..., Gemm network."""
    draw = np.random.default_rng(seed)
    nodes, tensors, value = [], [], "x"
    for at, (before, after) in enumerate(pairwise(sizes)):
        weights = draw.normal(size=(before, after)).astype(np.float32) / np.float32(np.sqrt(before))
        tensors.append(numpy_helper.from_array(weights, f"w{at}"))
        tensors.append(numpy_helper.from_array(draw.normal(size=after).astype(np.float32), f"b{at}"))
        last = at == len(sizes) - 2
        nodes.append(helper.make_node("Gemm", [value, f"w{at}", f"b{at}"], ["y" if last else f"h{at}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{at}"], [f"r{at}"]))
            value = f"r{at}"
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s])
        for n, s in (("x", sizes[0]), ("y", sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def most(data, inputs, scale=1.0, samples=20_000):
    """The largest first output seen on random points of the box [-scale, scale]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).uniform(-scale, scale, (samples, inputs)).astype(np.float32)
    return float(session.run(None, {"x": x})[0][:, 0].max())


def at_most(bound, inputs, name, scale=1.0):
    """Output 0 stays below the bound on the box."""
    region = box([-scale] * inputs, [scale] * inputs)
    return output_bound(region, 0, outputs=1, upper=str(bound), name=name)


def write_campaign(folder: Path, easy: int = 10, hard: int = 0, hard_limit: float = 1.5) -> Path:
    """A list of `easy` pairs, every second one violated, and `hard` ones amid them; the path of the list."""
    small, large = mlp((2, 8, 1), 1), mlp(LARGE, 2)
    (folder / "small.onnx").write_bytes(small)
    (folder / f"{HARD}.onnx").write_bytes(large)
    top, high = most(small, 2), most(large, 10)
    rows = []
    for at in range(easy):
        name = f"easy{at}.vnnlib"
        bound = top + 0.5 + at if at % 2 == 0 else top - 0.1 - 0.01 * at
        (folder / name).write_bytes(at_most(round(bound, 6), 2, name).text)
        rows.append(("small.onnx", name, 20.0))
    for at in range(hard):
        name = f"{HARD}{at}.vnnlib"
        (folder / name).write_bytes(at_most(round(high + 0.8 + 0.05 * at, 6), 10, name).text)
        rows.insert(2 + 3 * at, (f"{HARD}.onnx", name, hard_limit))
    place = folder / "instances.csv"
    with place.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return place
