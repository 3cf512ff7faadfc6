"""Pieces of an ONNX graph that can be put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes in order and the initializers they read."""

    nodes: tuple[onnx.NodeProto, ...] = ()
    tensors: tuple[onnx.TensorProto, ...] = ()

    def __add__(self, other: Part) -> Part:
        return Part(self.nodes + other.nodes, self.tensors + other.tensors)


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """A node named after the one value it defines."""
    name = output if output.startswith("sutura.") else f"sutura.gate.{output}"
    return helper.make_node(op, list(inputs), [output], name=name, **attributes)


def tensor(name: str, value: np.ndarray) -> onnx.TensorProto:
    """An initializer."""
    return numpy_helper.from_array(np.asarray(value, order="C"), name)


def choice(
    condition: str, output: str, yes: Sequence[onnx.NodeProto], no: Sequence[onnx.NodeProto]
) -> onnx.NodeProto:
    """If: `output` is what the last node of a branch defines; branches read any value defined before."""
    branches = {
        key: helper.make_graph(
            list(nodes),
            f"{output}.{key}",
            [],
            [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        )
        for key, nodes in (("then_branch", yes), ("else_branch", no))
    }
    return node("If", [condition], output, **branches)
