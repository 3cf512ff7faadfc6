"""Network and gates to one ONNX file of standard operators: a tree picks the row of the gate tables.

The network's own nodes stay as they are, but that a Flatten near the input moves to the start. The output
gate is sealed: what leaves it either passed a comparison of float32 numbers that implies the property, or is
a constant of which the property was checked; so the guarantee rests on no arithmetic. Names that start with
"sutura." are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from sutura.gates.cells import Tree
from sutura.gates.dispatch import dispatch, flat_input, row
from sutura.gates.flat_first import flat_first
from sutura.gates.gate import Gate, NeuronGate, OutputGate
from sutura.gates.onnx_part import Part, node, tensor
from sutura.gates.output_gate import output_gate
from sutura.gates.projection import projection
from sutura.network.graph import Network
from sutura.network.onnx_write import BATCH_AXIS, IR_VERSION, OPSET, network_nodes, value_names

ML_OPSET = 3


@dataclass(frozen=True, slots=True)
class Gated:
    """The bytes of the repaired network, and whether its projection always holds the nearest safe output."""

    onnx: bytes
    exact: bool


def gated_model(network: Network, tree: Tree[int], gates: Sequence[Gate]) -> Gated:
    """The network with `gates[r - 1]` at work in the cells of `tree` labelled r; 0 is for none."""
    network = flat_first(network) if gates else network
    names = value_names(network)
    nodes, tensors = network_nodes(network)
    if not gates:
        return Gated(_serialized(network, Part(tuple(nodes), tuple(tensors))), True)
    held = [name for name in names if any(name in g.holds for g in gates if isinstance(g, NeuronGate))]
    renamed = {names[name]: f"sutura.pre.{names[name]}" for name in held}
    sealed = [g for g in gates if isinstance(g, OutputGate)]
    raw = {names[network.output]: "sutura.raw"} if sealed else {}
    flow = dispatch(network, names[network.input], tree)
    after: Mapping[str, Part] = {
        names[name]: _neuron_table(network, name, names[name], gates) for name in held
    }
    body = (row() if held else Part()) + Part((), tuple(tensors))
    for own in nodes:
        body += Part((_rewired(own, renamed, raw),)) + after.get(own.output[0], Part())
    exact = True
    if sealed:
        asked = [g.safe if isinstance(g, OutputGate) else None for g in gates]
        way = projection(asked, network.output_size)
        exact = way.exact
        ends = flat_input(network, names[network.input]), names[network.output]
        body += output_gate(network, ends, gates, way)
    return Gated(_serialized(network, flow + body), exact)


def _rewired(
    node: onnx.NodeProto, produced: Mapping[str, str], everywhere: Mapping[str, str]
) -> onnx.NodeProto:
    """The node with its output under another name, for gates to stand between."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    inputs = [everywhere.get(name, name) for name in node.input]
    outputs = [produced.get(name, everywhere.get(name, name)) for name in node.output]
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.extend(outputs)
    return copy


def _serialized(network: Network, part: Part) -> bytes:
    names = value_names(network)
    ends = [
        helper.make_tensor_value_info(names[v], TensorProto.FLOAT, [BATCH_AXIS, *network.shapes[v]])
        for v in (network.input, network.output)
    ]
    graph = helper.make_graph(part.nodes, network.name or "network", ends[:1], ends[1:], part.tensors)
    opsets = [helper.make_opsetid("", OPSET)]
    if any(node.domain for node in part.nodes):
        opsets.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    model.producer_name = "sutura"
    return model.SerializeToString(deterministic=True)


def _neuron_table(network: Network, value: str, name: str, gates: Sequence[Gate]) -> Part:
    shape = network.shapes[value]
    masks, values = np.zeros((len(gates) + 1, *shape), bool), np.zeros((len(gates) + 1, *shape), np.float32)
    for at, gate in enumerate(gates, start=1):
        if isinstance(gate, NeuronGate) and value in gate.holds:
            hold = gate.holds[value]
            masks[at] = hold.mask.reshape(shape)
            values[at] = np.where(hold.mask, hold.value, 0.0).reshape(shape)
    mask, held = f"sutura.mask.{name}", f"sutura.value.{name}"
    taken = [f"sutura.taken.mask.{name}", f"sutura.taken.value.{name}"]
    nodes = (
        node("Gather", [mask, "sutura.row"], taken[0], axis=0),
        node("Gather", [held, "sutura.row"], taken[1], axis=0),
        node("Where", [*taken, f"sutura.pre.{name}"], name),
    )
    return Part(nodes, (tensor(mask, masks), tensor(held, values)))
