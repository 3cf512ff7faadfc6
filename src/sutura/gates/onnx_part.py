"""Pieces of an ONNX graph that can be put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The initializers of a graph and of the branches in it."""
    yield from graph.initializer
    for part in graph.node:
        for attribute in part.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from constants(attribute.g)


def choice(condition: str, output: str, yes: Part, no: Part) -> onnx.NodeProto:
    """If: `output` is what the last node of a branch defines; branches read any value defined before.

    Constants stand in the branch that reads them: what a branch takes from outside is handed over in each
    run, whichever branch is taken.
    """
    branches = {
        key: helper.make_graph(
            branch.nodes,
            f"{output}.{key}",
            [],
            [helper.make_tensor_value_info(branch.nodes[-1].output[0], TensorProto.FLOAT, None)],
            branch.tensors,
        )
        for key, branch in (("then_branch", yes), ("else_branch", no))
    }
    return node("If", [condition], output, **branches)
