"""Packed weights in PyTorch: an operator that exports and compiles like any, and the layer around it."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from sutura.errors import ShiftError
from sutura.network.torch_write import layer_names, to_module
from sutura.shift.convert import Shifted
from sutura.shift.kernel import FAILURES, KERNEL_BATCH, Activations, Kernels, fitting, kernels, linear, panels
from sutura.shift.layout import PLACE, Layout, laid_out
from sutura.shift.native import Matrix
from sutura.shift.pack import Packed

Parts = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

PARTS = ("fields", "signs", "tables", "scale", "bias")
"""What the tensors of Parts are called in a layer."""


@torch.library.custom_op("sutura::packed_linear", mutates_args=(), device_types="cpu")
def packed_linear(  # noqa: PLR0913, an operator takes tensors one by one
    x: Tensor,
    fields: Tensor,
    signs: Tensor,
    tables: Tensor,
    scale: Tensor,
    bias: Tensor,
    columns: int,
    unit: float,
    whole: bool,
) -> Tensor:
    """x W^T + bias for the weights of a Layout (`signs` and `bias` may be empty); inference only.

    `whole` rounds activations to int8. See sutura.shift.kernel for what is exact and what raises.
    """
    return _product(x.detach(), (fields, signs, tables, scale, bias), columns, unit, whole)


def _product(x: Tensor, parts: Parts, columns: int, unit: float, whole: bool) -> Tensor:
    if x.dim() == 2 and x.size(1) == columns and x.is_contiguous():
        return _rows_product(x, parts, columns, unit, whole)
    flat = x.reshape(-1, columns).contiguous()
    return _rows_product(flat, parts, columns, unit, whole).reshape(*x.shape[:-1], parts[0].size(0))


def _rows_product(x: Tensor, parts: Parts, columns: int, unit: float, whole: bool) -> Tensor:
    """For x [batch, columns] in order in memory. In a small layer most of the time is Python's, so the calls
    are few."""
    batch, rows, using = x.size(0), parts[0].size(0), kernels()
    if batch > KERNEL_BATCH or x.dtype is not torch.float32 or not isinstance(using, Kernels):
        return _by_vendor(x, _layout(parts, columns, unit), parts[-1], whole)
    y = torch.empty(batch, rows)
    fields, signs, tables, scale, bias = parts
    places = fields.data_ptr(), signs.data_ptr(), tables.data_ptr(), scale.data_ptr(), bias.data_ptr()
    matrix = _matrix(places, rows, columns, unit)
    run = using.library.sutura_whole if whole else using.library.sutura_floats
    code = run(matrix, x.data_ptr(), batch, y.data_ptr(), using.level)
    if code:
        raise ShiftError(FAILURES[code])
    return y


@lru_cache(maxsize=4096)
def _matrix(places: tuple[int, ...], rows: int, columns: int, unit: float) -> Matrix:
    """What stands at these addresses; 0 is for nothing. What it points to is not remembered."""
    return Matrix(*[place or None for place in places], rows, columns, unit)


def _on_gpu(  # noqa: PLR0913, the operator's arguments
    x: Tensor,
    fields: Tensor,
    signs: Tensor,
    tables: Tensor,
    scale: Tensor,
    bias: Tensor,
    columns: int,
    unit: float,
    whole: bool,
) -> Tensor:
    """The Triton kernel for small batches where Triton is installed, decoding for others."""
    flat, step = x.detach().reshape(-1, columns).float().contiguous(), None
    if whole:
        step = flat.abs().amax(dim=1, keepdim=True) / 127
        flat = torch.round(flat / torch.where(step > 0, step, 1))
    if len(flat) <= KERNEL_BATCH and flat.is_cuda and find_spec("triton") is not None:
        from sutura.shift.triton_kernel import product

        made = product(flat, fields, signs, tables, scale, columns)
    else:
        made = functional.linear(flat, decoded_weight(fields, signs, tables, scale, columns))
    made = made if step is None else made * step
    return (made + bias if bias.numel() else made).reshape(*x.shape[:-1], len(fields))


packed_linear.register_kernel("cuda", _on_gpu)


def decoded_weight(fields: Tensor, signs: Tensor, tables: Tensor, scale: Tensor, columns: int) -> Tensor:
    """The weights as float32, exact, in PyTorch on whatever device they are."""
    rows, place = len(fields), torch.from_numpy(PLACE).to(fields.device)
    groups = fields.reshape(rows, -1, 1, 32)
    field = torch.cat([groups & 15, groups >> 4], dim=2)[..., place].reshape(rows, -1)[:, :columns].long()
    upper = tables[0].int()[field] | tables[1].int()[field] << 8
    if signs.numel():
        part = torch.arange(7, -1, -1, device=fields.device, dtype=torch.uint8).reshape(8, 1)
        sign = (signs.reshape(rows, -1, 1, 32) >> part & 1)[..., place].reshape(rows, -1)[:, :columns]
        upper |= sign.int() << 15
    return (upper << 16).view(torch.float32) * scale[:, None]


@packed_linear.register_fake
def _shapes(x: Tensor, fields: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], fields.shape[0])


def _layout(parts: Parts, columns: int, unit: float) -> Layout:
    fields, signs, tables, scale, _ = parts
    held = signs.numpy() if signs.numel() else None
    return Layout(columns, fields.numpy(), held, tables.numpy(), scale.numpy(), unit)


def _by_vendor(x: Tensor, layout: Layout, bias: Tensor, whole: bool) -> Tensor:
    """A large batch, or a machine without kernels: decoded panels and PyTorch's own product."""
    if whole:
        return torch.from_numpy(
            linear(layout, x.numpy(), bias.numpy() if bias.numel() else None, activations="int8")
        )
    x = torch.from_numpy(fitting(layout, x.numpy(), "float32"))
    parts = [functional.linear(x, torch.from_numpy(panel)) for panel in panels(layout, kernels())]
    made = torch.cat(parts, dim=1)
    return made + bias if bias.numel() else made


@final
class PackedLinear(nn.Module):
    """A linear layer whose weights stay packed; its state is what the kernels read, exact.

    Inference only: it has no gradient. `activations` is "float32", or "int8" to round each sample first.
    """

    def __init__(
        self,
        part: Packed,
        bias: Float32[np.ndarray, " rows"] | None = None,
        activations: Activations = "float32",
    ) -> None:
        super().__init__()
        if activations not in ("float32", "int8"):
            raise ShiftError(f"no activations are called {activations!r}; known: float32, int8")
        layout = laid_out(part)
        one = np.ones(layout.rows, np.float32)
        self.columns, self.unit, self.activations = layout.columns, layout.unit, activations
        self.fields = _buffer(self, "fields", layout.fields)
        self.signs = _buffer(self, "signs", np.empty(0, np.uint8) if layout.signs is None else layout.signs)
        self.tables = _buffer(self, "tables", layout.tables)
        self.scale = _buffer(self, "scale", one if layout.scale is None else layout.scale)
        self.bias = _buffer(self, "bias", np.empty(0, np.float32) if bias is None else bias)

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + bias over the last axis."""
        held = self._buffers  # a lookup, where an attribute of a module is a search
        parts: Any = tuple([held[name] for name in PARTS])
        whole = self.activations == "int8"
        if type(x) is Tensor and x.is_cpu and not x.requires_grad and not torch.compiler.is_compiling():
            # As the operator does, without the cost of its dispatch.
            return _product(x, parts, self.columns, self.unit, whole)
        return packed_linear(x, *parts, self.columns, self.unit, whole)

    def extra_repr(self) -> str:
        """What is shown."""
        return f"{self.columns}, {len(self.fields)}, activations={self.activations}"


def packed_module(made: Shifted, activations: Activations = "float32") -> nn.Module:
    """The shifted network as a PyTorch module in eval mode, its linear layers packed; others stay float32."""
    module: Any = to_module(made.network)
    shifted = {layer.name: layer for layer in made.layers}
    for name, node in zip(layer_names(made.network), made.network.nodes, strict=True):
        layer, held = shifted.get(node.name or node.output), getattr(module, name, None)
        if layer is None or not isinstance(held, nn.Linear):
            continue
        part = Packed.of(layer.name, layer.shape, layer.grid, layer.values, layer.scale)
        bias = dict(held.named_parameters()).get("bias")
        module.add_module(
            name, PackedLinear(part, None if bias is None else bias.detach().numpy(), activations)
        )
    return module.eval()


def _buffer(module: nn.Module, name: str, array: np.ndarray) -> Tensor:
    held = torch.from_numpy(np.ascontiguousarray(array).copy())
    module.register_buffer(name, held)
    return held
