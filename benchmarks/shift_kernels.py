"""One sample through a linear layer of packed power-of-two weights, beside float32, bfloat16, int8 and int4.

    python benchmarks/shift_kernels.py [--quick] [--sizes NxM,...] [--rounds N] [--batch N] [--json FILE]

One thread. Each round runs every kernel once, on the next of enough copies of its weights that none is left
in a cache (at least `--rotate` MB each); the least time counts, because whatever else the machine does only
adds. Every kernel is first checked against W x with the weights it holds. The rivals are PyTorch's own:
F.linear in float32 and bfloat16, and the weight-only int8 and int4 (groups of 32) products that quantised
models compile to, which take bfloat16 activations. Ours is sutura.shift.packed_layer.PackedLinear, called
as a user would.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from sutura.shift.grid import ps_grid
from sutura.shift.kernel import kernels, rounded
from sutura.shift.pack import Packed
from sutura.shift.packed_layer import PackedLinear

SIZES = ((1024, 1024), (4096, 4096), (11008, 4096))
"""Outputs and inputs."""

INT4_GROUP = 32


@dataclass(frozen=True, slots=True)
class Cell:
    """The least time of one kernel."""

    kernel: str
    rows: int
    columns: int
    batch: int
    microseconds: float
    megabytes: float
    speedup: float


@dataclass(frozen=True, slots=True, eq=False)
class Contestant:
    """A call, copies of its weights, and the product that it should give, to a relative `tolerance`."""

    call: Callable[..., Tensor]
    copies: list[tuple]
    size: int
    want: Tensor
    tolerance: float


def copies(parts: tuple[Tensor, ...], rotate: int) -> list[tuple[Tensor, ...]]:
    size = sum(part.numel() * part.element_size() for part in parts)
    count = -(-rotate * 10**6 // size)
    return [tuple(part.clone() for part in parts) for _ in range(max(2, count))]


def size_of(parts: tuple[Tensor, ...]) -> int:
    return sum(part.numel() * part.element_size() for part in parts)


def plain(x: Tensor, weight: Tensor, kind: torch.dtype, rotate: int) -> Contestant:
    x, parts = x.to(kind), (weight.to(kind),)
    want = x.double() @ parts[0].double().T
    tolerance = 1e-4 if kind == torch.float32 else 2e-2
    return Contestant(
        lambda w: functional.linear(x, w), copies(parts, rotate), size_of(parts), want, tolerance
    )


def int8(x: Tensor, weight: Tensor, rotate: int) -> Contestant:
    scale = weight.abs().amax(1, keepdim=True) / 127
    whole, x = torch.round(weight / scale).to(torch.int8), x.bfloat16()
    parts = (whole, scale[:, 0].bfloat16())
    want = x.double() @ (whole.double() * parts[1].double()[:, None]).T
    return Contestant(
        lambda w, s: torch.ops.aten._weight_int8pack_mm(x, w, s),
        copies(parts, rotate),
        size_of(parts),
        want,
        2e-2,
    )


def int4(x: Tensor, weight: Tensor, rotate: int) -> Contestant:
    groups = weight.reshape(len(weight), -1, INT4_GROUP)
    scale = (groups.abs().amax(2, keepdim=True) / 7).bfloat16().float()
    whole = torch.clamp(torch.round(groups / scale), -8, 7)
    want = x.bfloat16().double() @ (whole.double() * scale.double()).reshape(weight.shape).T
    held = torch.ops.aten._convert_weight_to_int4pack_for_cpu((whole + 8).int().reshape(weight.shape), 1)
    steps = torch.stack([scale[..., 0].T, torch.zeros_like(scale[..., 0].T)], dim=2).bfloat16().contiguous()
    parts, x = (held, steps), x.bfloat16()
    return Contestant(
        lambda w, s: torch.ops.aten._weight_int4pack_mm_for_cpu(x, w, INT4_GROUP, s),
        copies(parts, rotate), size_of(parts), want, 2e-2,
    )  # fmt: skip


def ours(x: Tensor, shape: tuple[int, int], bits: int, activations: str, rotate: int) -> Contestant:
    random = np.random.default_rng(0)
    codes = random.integers(0, 1 << bits, shape).astype(np.uint8)
    part = Packed(shape, ps_grid(bits), codes, random.uniform(0.5, 2, shape[0]).astype(np.float32))
    layer = PackedLinear(part, None, activations)
    weight, taken = part.rows().astype(np.float64), x.numpy().astype(np.float64)
    if activations == "int8":
        whole, step = rounded(x.numpy())
        taken = whole * step[:, None]
    size = size_of((layer.fields, layer.signs, layer.scale))
    count = -(-rotate * 10**6 // size)
    layers = [(PackedLinear(part, None, activations),) for _ in range(max(2, count))]
    return Contestant(lambda layer: layer(x), layers, size, torch.from_numpy(taken @ weight.T), 1e-4)


def check(name: str, contestant: Contestant) -> None:
    got = contestant.call(*contestant.copies[0]).double()
    error = ((got - contestant.want).abs().max() / contestant.want.abs().max()).item()
    if not error <= contestant.tolerance:
        raise SystemExit(f"{name}: relative error {error:.2g}, allowed {contestant.tolerance:.0e}")


def measured(shape: tuple[int, int], said: argparse.Namespace) -> list[Cell]:
    torch.manual_seed(0)
    x, weight = torch.randn(said.batch, shape[1]), torch.randn(shape) / shape[1] ** 0.5
    field = {
        "float32 F.linear": plain(x, weight, torch.float32, said.rotate),
        "bfloat16 F.linear": plain(x, weight, torch.bfloat16, said.rotate),
        "int8 weight-only": int8(x, weight, said.rotate),
        "int4 weight-only": int4(x, weight, said.rotate),
        "ours, 5 bits, float32": ours(x, shape, 5, "float32", said.rotate),
        "ours, 4 bits, float32": ours(x, shape, 4, "float32", said.rotate),
        "ours, 5 bits, int8": ours(x, shape, 5, "int8", said.rotate),
        "ours, 4 bits, int8": ours(x, shape, 4, "int8", said.rotate),
    }
    best = dict.fromkeys(field, float("inf"))
    with torch.inference_mode():
        for name, contestant in field.items():
            check(name, contestant)
        for turn in range(said.rounds):
            for name, one in field.items():
                weights = one.copies[turn % len(one.copies)]
                started = time.perf_counter()
                one.call(*weights)
                best[name] = min(best[name], time.perf_counter() - started)
    whole = best["float32 F.linear"]
    return [
        Cell(name, *shape, said.batch, 1e6 * best[name], field[name].size / 1e6, whole / best[name])
        for name in field
    ]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="the two smaller sizes, 40 rounds")
    asked.add_argument("--sizes", help="such as 4096x4096,1024x1024: outputs x inputs")
    asked.add_argument("--rounds", type=int, default=300)
    asked.add_argument("--batch", type=int, default=1)
    asked.add_argument("--rotate", type=int, default=100, help="MB of copies of each kernel's weights")
    asked.add_argument("--json", type=Path)
    said = asked.parse_args()
    sizes = SIZES
    if said.sizes:
        sizes = [tuple(int(n) for n in part.split("x")) for part in said.sizes.split(",")]
    if said.quick:
        sizes, said.rounds = SIZES[:2], 40
    torch.set_num_threads(1)
    cells = [cell for shape in sizes for cell in measured(shape, said)]
    title = f"µs at batch {said.batch}, one thread, and times faster than float32; kernels: {kernels().title}"
    table = Table("kernel", *(f"{rows} x {columns}" for rows, columns in sizes), "MB", title=title)
    for name in dict.fromkeys(cell.kernel for cell in cells):
        mine = [cell for cell in cells if cell.kernel == name]
        shown = [f"{cell.microseconds:.0f} ({cell.speedup:.1f}x)" for cell in mine]
        table.add_row(name, *shown, f"{mine[-1].megabytes:.1f}")
    Console(width=120).print(table)
    if said.json:
        said.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=2) + "\n")


if __name__ == "__main__":
    main()
