"""Which gates are at work for an input: the row that the dispatcher of a repaired network picks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from jaxtyping import Float32, Int64
from onnx import TensorProto, helper, numpy_helper

from sutura.gates.onnx_part import constants
from sutura.network.onnx_file import open_file
from sutura.network.run import load_runtime

Rows = Callable[[Float32[np.ndarray, "batch n"]], Int64[np.ndarray, " batch"]]


ENDS = "sutura.lower", "sutura.upper"


def rows_of(repaired: bytes) -> Rows:
    """A function from flat inputs to rows of the gate tables; 0 means that no gate is at work."""
    model = onnx.load_from_string(repaired)
    if not any("sutura.leaf" in node.output for node in model.graph.node):
        return lambda x: np.zeros(len(x), dtype=np.int64)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(helper.make_tensor_value_info("sutura.leaf", TensorProto.FLOAT, ["N", 1]))
    file = open_file(repaired, gated=True)
    runtime = load_runtime(shown.SerializeToString())
    tables = {t.name: numpy_helper.to_array(t) for t in constants(model.graph) if t.name in ENDS}
    ends = [tables[name] for name in ENDS if name in tables]

    def rows(x: Float32[np.ndarray, "batch n"]) -> Int64[np.ndarray, " batch"]:
        leaf = runtime.run(["sutura.leaf"], {file.input: x.reshape(len(x), *file.sample)})[0]
        row = leaf[:, 0].astype(np.int64)
        met = np.flatnonzero(row) if ends else []
        for at in met:
            low, high = (end[row[at]] for end in ends)
            row[at] *= bool(((low <= x[at]) & (x[at] <= high)).all())
        return row

    return rows
