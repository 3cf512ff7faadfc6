"""Networks to PyTorch: an `nn.Module` of ordinary layers, to train on, change and export again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from sutura.errors import NetworkError
from sutura.network import ops
from sutura.network.budget import shown
from sutura.network.graph import Network, Node


def to_module(network: Network) -> fx.GraphModule:
    """A PyTorch module, in eval mode and float32, that computes `network` but for float32 rounding.

    Its layers are `nn.Linear`, `nn.Conv*d`, `nn.BatchNorm*d` and the like, under the names of the nodes with
    all but letters and digits made underscores; every weight is a parameter, and a copy. A product followed
    by nothing but the sum with a vector is one `nn.Linear`. The module exports again (`from_torch`). Raises
    NetworkError for an operator without a PyTorch form.
    """
    graph, layers = fx.Graph(), nn.Module()
    values = {network.input: graph.placeholder("x")}
    sums = added_vectors(network)
    skipped = {added.output for added in sums.values()}
    for name, node in zip(layer_names(network), network.nodes, strict=True):
        if node.output in skipped:
            continue
        added = sums.get(node.output)
        layers.add_module(name, _layer(node, added))
        made = graph.call_module(name, tuple(values[value] for value in node.inputs))
        values[added.output if added else node.output] = made
    graph.output(values[network.output])
    return fx.GraphModule(layers, graph, class_name="Network").eval()


def layer_names(network: Network) -> list[str]:
    """The name of each node's layer in the module: distinct, and good in Python."""
    taken, names = set(dir(nn.Module())), list[str]()
    for node in network.nodes:
        stem = re.sub(r"\W+", "_", node.name or type(node.op).__name__, flags=re.ASCII).strip("_") or "node"
        stem = f"n{stem}" if stem[0].isdigit() else stem
        name, count = stem, 2
        while name in taken:
            name, count = f"{stem}_{count}", count + 1
        taken.add(name)
        names.append(name)
    return names


def added_vectors(network: Network) -> Mapping[str, Node]:
    """Value of a product -> the node that adds a vector to it, where nothing else reads it."""
    readers: dict[str, list[Node]] = {}
    for node in network.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    found: dict[str, Node] = {}
    for node in network.nodes:
        match (node.op, readers.get(node.output, [])):
            case (ops.MatMul(weight), [Node(op=ops.AddConstant(value)) as added]) if (
                node.output != network.output and value.shape == weight.shape[1:]
            ):
                found[node.output] = added
            case _:
                pass
    return found


def _layer(node: Node, added: Node | None) -> nn.Module:
    if isinstance(node.op, ops.MatMul):
        bias = added.op.value if added and isinstance(added.op, ops.AddConstant) else None
        return _linear(node.op.weight.T, bias)
    if type(node.op) not in LAYERS:
        raise NetworkError(
            f"node {shown(node.name)} ({type(node.op).__name__}) has no PyTorch form; those with one: "
            f"{', '.join(sorted(kind.__name__ for kind in LAYERS))}"
        )
    return LAYERS[type(node.op)](node.op)


@final
class Applied(nn.Module):
    """A function of one activation, without weights; `title` tells what it does."""

    def __init__(self, title: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.title, self.function = title, function

    def forward(self, x: Tensor) -> Tensor:
        """The function of `x`."""
        return self.function(x)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return self.title


@final
class Joined(nn.Module):
    """A function of several activations; `title` tells what it does."""

    def __init__(self, title: str, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.title, self.function = title, function

    def forward(self, *values: Tensor) -> Tensor:
        """The function of the values, in order."""
        return self.function(*values)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return self.title


@final
class WithConstant(nn.Module):
    """A function of an activation and a constant, which is a parameter."""

    def __init__(self, title: str, function: Callable[[Tensor, Tensor], Tensor], value: np.ndarray) -> None:
        super().__init__()
        self.title, self.function = title, function
        self.value = _parameter(value)

    def forward(self, x: Tensor) -> Tensor:
        """The function of `x` and the constant."""
        return self.function(x, self.value)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return self.title


def _parameter(value: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.tensor(np.ascontiguousarray(value)))


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = _parameter(weight)
    if bias is not None:
        layer.bias = _parameter(bias.reshape(-1))
    return layer


def _gemm(op: ops.Gemm) -> nn.Module:
    weight = np.float32(op.alpha) * (op.weight if op.transposed else op.weight.T)
    if op.bias is None:
        return _linear(weight, None)
    return _linear(weight, np.broadcast_to(np.float32(op.beta) * op.bias, weight.shape[:1]))


def _conv(op: ops.Conv) -> nn.Module:
    rank, out = op.weight.ndim - 2, op.weight.shape[0]
    layer = CONVOLUTIONS[rank](
        op.weight.shape[1] * op.group,
        out,
        op.weight.shape[2:],
        stride=op.strides,
        padding=op.pads[:rank] if _even(op.pads) else 0,
        dilation=op.dilations,
        groups=op.group,
        bias=op.bias is not None,
    )
    layer.weight = _parameter(op.weight)
    if op.bias is not None:
        layer.bias = _parameter(op.bias)
    return layer if _even(op.pads) else nn.Sequential(_padding(op.pads, 0.0), layer)


def _even(pads: tuple[int, ...]) -> bool:
    return pads[: len(pads) // 2] == pads[len(pads) // 2 :]


def _padding(pads: tuple[int, ...], value: float) -> nn.Module:
    """Padding of the trailing axes; torch counts them from the last."""
    if not any(pads):
        return nn.Identity()
    rank = len(pads) // 2
    widths = [w for axis in reversed(range(rank)) for w in (pads[axis], pads[axis + rank])]
    return Applied(f"pad {widths} with {value}", lambda x: functional.pad(x, widths, value=value))


def _normalization(op: ops.BatchNormalization) -> nn.Module:
    layer = Normalization(len(op.scale), eps=op.epsilon)
    layer.weight, layer.bias = _parameter(op.scale), _parameter(op.bias)
    layer.running_mean = torch.tensor(op.mean)
    layer.running_var = torch.tensor(op.variance)
    return layer


@final
class Normalization(nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
    """Batch normalisation over inputs of any rank."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected a batch of channels, got {input.dim()} axes")


def _average_pool(op: ops.AveragePool) -> nn.Module:
    """Window sums divided by the window's size, or by how much of it lies on the input."""
    rank, size = len(op.kernel), math.prod(op.kernel)
    pad, pool = _padding(op.pads, 0.0), AVERAGES[rank]

    def mean(x: Tensor) -> Tensor:
        return pool(pad(x), op.kernel, op.strides)

    def mean_inside(x: Tensor) -> Tensor:
        return mean(x) / mean(torch.ones_like(x[:1, :1]))

    padded = any(op.pads) and not op.count_include_pad
    return Applied(f"mean of windows {op.kernel} of {size}", mean_inside if padded else mean)


def _max_pool(op: ops.MaxPool) -> nn.Module:
    pad, pool = _padding(op.pads, -math.inf), MAXIMA[len(op.kernel)]
    return Applied(
        f"maximum of windows {op.kernel}",
        lambda x: pool(pad(x), op.kernel, op.strides, dilation=op.dilations),
    )


def _global_pool(_: ops.GlobalAveragePool) -> nn.Module:
    return Applied("mean of all", lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True))


def _reshape(op: ops.Reshape) -> nn.Module:
    return Applied(f"reshape to {op.shape}", lambda x: x.reshape(x.shape[0], *op.shape))


def _transpose(op: ops.Transpose) -> nn.Module:
    order = (0, *(axis + 1 for axis in op.permutation))
    return Applied(f"axes {order}", lambda x: x.permute(order))


def _pad(op: ops.Pad) -> nn.Module:
    return _padding(op.pads, op.value)


def _concat(op: ops.Concat) -> nn.Module:
    def join(*values: Tensor) -> Tensor:
        return torch.cat(values, dim=op.axis + 1)

    return Joined(f"join axis {op.axis + 1}", join)


def _take(op: ops.Take) -> nn.Module:
    indices = torch.tensor(op.indices)
    return Applied(f"take from axis {op.axis + 1}", lambda x: x.index_select(op.axis + 1, indices))


def _subtract_constant(op: ops.SubtractConstant) -> nn.Module:
    if op.reversed:
        return WithConstant("value - x", lambda x, value: value - x, op.value)
    return WithConstant("x - value", torch.sub, op.value)


CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
AVERAGES: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
MAXIMA: dict[int, Any] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}

LAYERS: dict[type[Any], Callable[[Any], nn.Module]] = {
    ops.Gemm: _gemm,
    ops.AddConstant: lambda op: WithConstant("x + value", torch.add, op.value),
    ops.SubtractConstant: _subtract_constant,
    ops.MultiplyConstant: lambda op: WithConstant("x * value", torch.mul, op.value),
    ops.DivideConstant: lambda op: WithConstant("x / value", torch.div, op.value),
    ops.Add: lambda _: Joined("sum", torch.add),
    ops.Subtract: lambda _: Joined("difference", torch.sub),
    ops.Multiply: lambda _: Joined("product", torch.mul),
    ops.Divide: lambda _: Joined("quotient", torch.div),
    ops.Conv: _conv,
    ops.BatchNormalization: _normalization,
    ops.AveragePool: _average_pool,
    ops.GlobalAveragePool: _global_pool,
    ops.MaxPool: _max_pool,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Take: _take,
    ops.Relu: lambda _: nn.ReLU(),
    ops.LeakyRelu: lambda op: nn.LeakyReLU(op.slope),
    ops.Clip: lambda op: Applied(f"clip to {op.low}..{op.high}", lambda x: torch.clamp(x, op.low, op.high)),
    ops.Sigmoid: lambda _: nn.Sigmoid(),
    ops.Tanh: lambda _: nn.Tanh(),
    ops.Square: lambda _: Applied("square", torch.square),
    ops.Reciprocal: lambda _: Applied("reciprocal", torch.reciprocal),
    ops.Exp: lambda _: Applied("exp", torch.exp),
    ops.Softmax: lambda _: nn.Softmax(dim=-1),
}
"""Operator -> layer; MatMul is apart, since it may take the sum that follows it."""
