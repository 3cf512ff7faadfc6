"""A repaired file as a PyTorch module: the network as ordinary layers, the gates as the file has them.

The seal holds here as it does in ONNX Runtime: what is delivered in a gated region passed a comparison of
float32 numbers, or is a constant, whatever the arithmetic in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from sutura.errors import NetworkError
from sutura.gates.onnx_part import constants
from sutura.gates.table import is_gated
from sutura.network.onnx_read import parse_onnx
from sutura.network.onnx_write import RESERVED
from sutura.network.torch_write import layer_names, to_module

RAW = f"{RESERVED}raw"
PRE = f"{RESERVED}pre."

Attributes = Mapping[str, Any]
Operator = Callable[[Attributes, Sequence[Tensor]], Tensor]


def repaired_module(repaired: bytes) -> RepairedModule:
    """The module, in eval mode and float32, that computes what the repaired file computes but for rounding.

    Its weights are copies; `onnx` keeps the bytes, so that writing them gives the same file again. Raises
    NetworkError where the file has no gates of sutura's (read it with `load` then).
    """
    if not is_gated(repaired):
        raise NetworkError("the file has no gates; load it as a network and use to_module")
    return RepairedModule(repaired).eval()


@final
class RepairedModule(nn.Module):
    """See `repaired_module`."""

    def __init__(self, repaired: bytes) -> None:
        super().__init__()
        self.onnx = repaired
        graph = onnx.load_from_string(repaired).graph
        held = [name.removeprefix(PRE) for node in graph.node for name in node.output if name.startswith(PRE)]
        self.network = _network(repaired, held)
        for tensor in constants(graph):
            if tensor.name.startswith(RESERVED):
                self.register_buffer(_buffer(tensor.name), _tensor(tensor))
        every = [_Step(node) for node in graph.node if node.name.startswith(RESERVED)]
        gates = {f"{RESERVED}gate.{value}" for value in held}
        tables = {step.inputs[0] for step in every if step.name in gates} | {
            step.inputs[1] for step in every if step.name in gates
        }
        self._before = [s for s in every if s.output in BEFORE]
        self._after = [s for s in every if s.output not in BEFORE | tables and s.name not in gates]
        self._input, self._output = graph.input[0].name, graph.output[0].name

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of a batch of inputs."""
        values = {self._input: x}
        self._run(self._before, values)
        row = values.get(f"{RESERVED}row")
        raw = self.network(x) if row is None else self.network(x, row)
        if not self._after:
            return raw
        values[RAW] = raw
        self._run(self._after, values)
        return values[self._output]

    def _run(self, steps: Sequence[_Step], values: dict[str, Tensor]) -> None:
        for step in steps:
            if step.branches is not None:
                taken = step.branches[0 if bool(self._value(step.inputs[0], values)) else 1]
                self._run(taken, values)
                values[step.output] = values[taken[-1].output]
                continue
            given = [self._value(name, values) for name in step.inputs]
            values[step.output] = OPERATORS[step.operator](step.attributes, given)

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        return values[name] if name in values else getattr(self, _buffer(name))


@final
class _Step:
    """One node of the gates; `branches` are those of an If."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self.operator, self.name, self.inputs, self.output = (
            node.op_type,
            node.name,
            tuple(node.input),
            node.output[0],
        )
        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self.branches: tuple[list[_Step], list[_Step]] | None = None
        if node.op_type == "If":
            then, other = ([_Step(n) for n in found[key].node] for key in ("then_branch", "else_branch"))
            self.branches, found = (then, other), {}
        elif node.op_type == "TreeEnsembleRegressor":
            found = _trees(found)
        self.attributes: Attributes = found


def _network(repaired: bytes, held: Sequence[str]) -> nn.Module:
    """The network without its gates, with the held values taken from tables by row."""
    model = onnx.load_from_string(repaired)
    output = model.graph.output[0].name
    own = [node for node in model.graph.node if not node.name.startswith(RESERVED)]
    for node in own:
        names = [output if n == RAW else n.removeprefix(PRE) for n in node.output]
        del node.output[:]
        node.output.extend(names)
    tables = {t.name: _tensor(t) for t in model.graph.initializer if t.name.startswith(RESERVED)}
    weights = [t for t in model.graph.initializer if not t.name.startswith(RESERVED)]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(own)
    model.graph.initializer.extend(weights)
    network = parse_onnx(model.SerializeToString(), "repaired network")
    module = to_module(network)
    names = dict(zip((node.output for node in network.nodes), layer_names(network), strict=True))
    for value in held:
        gate = _Hold(tables[f"{RESERVED}mask.{value}"], tables[f"{RESERVED}value.{value}"])
        module.add_module(f"hold_{names[value]}", gate)
    if held:
        _insert(module, [names[value] for value in held])
    return module


def _insert(module: fx.GraphModule, layers: Sequence[str]) -> None:
    """Put `hold_` gates behind some layers, which read the rows as a second input of the module."""
    graph = module.graph
    with graph.inserting_after(next(n for n in graph.nodes if n.op == "placeholder")):
        row = graph.placeholder("row")
    for name in layers:
        node = next(n for n in graph.nodes if n.target == name)
        readers = list(node.users)
        with graph.inserting_after(node):
            held = graph.call_module(f"hold_{name}", (node, row))
        for reader in readers:
            reader.replace_input_with(node, held)
    module.recompile()


@final
class _Hold(nn.Module):
    """A neuron gate: entries held at the constants of each sample's row."""

    mask: Tensor
    value: Tensor

    def __init__(self, mask: Tensor, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("value", value)

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        """The values with those of the rows in place."""
        return torch.where(self.mask[row], self.value[row], x)


def _buffer(name: str) -> str:
    return "gate_" + name.replace(".", "__")


def _tensor(proto: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(np.array(numpy_helper.to_array(proto)))


def _trees(found: Attributes) -> Attributes:
    """The ensemble as one table: children are places in it, leaves lead to themselves."""
    ids, at = np.array(found["nodes_treeids"]), np.array(found["nodes_nodeids"])
    start = {tree: int(np.flatnonzero(ids == tree)[0]) for tree in np.unique(ids).tolist()}
    offset = np.array([start[tree] for tree in ids.tolist()])
    leaf = np.array([mode == b"LEAF" for mode in found["nodes_modes"]])
    here = offset + at
    weight = np.zeros(len(ids), np.float32)
    targets = (found[f"target_{name}"] for name in ("treeids", "nodeids", "weights"))
    for tree, place, value in zip(*targets, strict=True):
        weight[start[tree] + place] = value
    table = {
        "feature": np.array(found["nodes_featureids"]),
        "threshold": np.array(found["nodes_values"], np.float32),
        "yes": np.where(leaf, here, offset + np.array(found["nodes_truenodeids"])),
        "no": np.where(leaf, here, offset + np.array(found["nodes_falsenodeids"])),
        "weight": weight,
        "leaf": leaf,
    }
    return {**{k: torch.from_numpy(v) for k, v in table.items()}, "starts": tuple(start.values())}


def _ensemble(a: Attributes, given: Sequence[Tensor]) -> Tensor:
    (x,) = given
    total = torch.zeros(len(x), dtype=torch.float32)
    for start in a["starts"]:
        at = torch.full((len(x),), start)
        while not bool(a["leaf"][at].all()):
            feature = x.gather(1, a["feature"][at][:, None])[:, 0]
            at = torch.where(feature <= a["threshold"][at], a["yes"][at], a["no"][at])
        total = total + a["weight"][at]
    return total[:, None]


def _gemm(a: Attributes, given: Sequence[Tensor]) -> Tensor:
    left = given[0].T if a.get("transA", 0) else given[0]
    return left @ given[1]


def _gather(a: Attributes, given: Sequence[Tensor]) -> Tensor:
    x, index = given
    axis = a.get("axis", 0)
    if index.ndim == 0:
        return x.select(axis, int(index))
    taken = x.index_select(axis, index.flatten())
    return taken.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _gather_each(_: Attributes, given: Sequence[Tensor]) -> Tensor:
    """GatherND with one batch axis: of each sample, the entry that its index names."""
    x, index = given
    return x[torch.arange(len(x)), index[:, 0]]


def _scatter(_: Attributes, given: Sequence[Tensor]) -> Tensor:
    x, index, rows = given
    changed = x.clone()
    changed[index[:, 0]] = rows
    return changed


def _reduce(function: Callable[..., Any]) -> Operator:
    def reduced(a: Attributes, given: Sequence[Tensor]) -> Tensor:
        axes = tuple(a.get("axes", range(given[0].ndim)))
        return function(given[0], dim=axes, keepdim=bool(a.get("keepdims", 1)))

    return reduced


def _sum_square(x: Tensor, dim: tuple[int, ...], *, keepdim: bool) -> Tensor:
    return (x * x).sum(dim=dim, keepdim=keepdim)


def _top(_: Attributes, given: Sequence[Tensor]) -> Tensor:
    return torch.topk(given[0], int(given[1]), dim=1).values


def _reshape(_: Attributes, given: Sequence[Tensor]) -> Tensor:
    return given[0].reshape([int(size) for size in given[1]])


CASTS = {1: torch.float32, 7: torch.int64, 9: torch.bool}

BEFORE = {f"{RESERVED}{name}" for name in ("flat", "leaf", "row_float", "row")}
"""What is worked out before the network runs."""

OPERATORS: dict[str, Operator] = {
    "Abs": lambda _, g: g[0].abs(),
    "Add": lambda _, g: g[0] + g[1],
    "And": lambda _, g: g[0] & g[1],
    "ArgMin": lambda a, g: g[0].argmin(dim=a["axis"], keepdim=bool(a["keepdims"])),
    "Cast": lambda a, g: g[0].to(CASTS[a["to"]]),
    "Concat": lambda a, g: torch.cat(list(g), dim=a["axis"]),
    "CumSum": lambda _, g: g[0].cumsum(dim=int(g[1])),
    "Flatten": lambda _, g: g[0].flatten(1),
    "Gather": _gather,
    "GatherND": _gather_each,
    "Gemm": _gemm,
    "Greater": lambda _, g: g[0] > g[1],
    "GreaterOrEqual": lambda _, g: g[0] >= g[1],
    "Identity": lambda _, g: g[0],
    "Less": lambda _, g: g[0] < g[1],
    "LessOrEqual": lambda _, g: g[0] <= g[1],
    "MatMul": lambda _, g: g[0] @ g[1],
    "Min": lambda _, g: torch.minimum(g[0], g[1]),
    "Mul": lambda _, g: g[0] * g[1],
    "Neg": lambda _, g: -g[0],
    "NonZero": lambda _, g: g[0].nonzero().T,
    "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSumSquare": _reduce(_sum_square),
    "Reshape": _reshape,
    "ScatterND": _scatter,
    "Shape": lambda _, g: torch.tensor(g[0].shape),
    "Sub": lambda _, g: g[0] - g[1],
    "TopK": _top,
    "TreeEnsembleRegressor": _ensemble,
    "Unsqueeze": lambda _, g: g[0].unsqueeze(int(g[1])),
    "Where": lambda _, g: torch.where(g[0], g[1], g[2]),
}
"""Operators of the gates, for the attributes that sutura writes."""
