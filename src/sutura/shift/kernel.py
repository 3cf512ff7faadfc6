"""Products of packed weights and activations on a CPU: one thread, weights read at 4 or 5 bits.

Measured, not promised (benchmarks/shift_kernels.py): at batch 1 the time goes with the bytes read, so packing
pays; products are multiplied, not shifted, because multiplying adders are as fast as adders. Large batches
decode a panel of rows and leave the product to the vendor's library; there packing saves memory, not time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int64

from sutura.errors import ShiftError
from sutura.shift.grid import ps_grid, q_grid
from sutura.shift.layout import Layout, codes_of, laid_out, sizes
from sutura.shift.native import Matrix, library
from sutura.shift.pack import Packed

Activations = Literal["float32", "int8"]

KERNEL_BATCH = 16
"""Larger batches are decoded and left to the vendor's library."""

PANEL = 2**20
"""Weights that are decoded at a time."""

MAX_COLUMNS = 2**20
"""Beyond, sums over int8 activations may outgrow 32 bits."""

LEVELS = ("portable C", "AVX2", "AVX-VNNI", "AVX-512 VNNI")


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """The compiled kernels, at one of LEVELS."""

    library: ctypes.CDLL
    level: int

    @property
    def title(self) -> str:
        """What runs, in words."""
        return LEVELS[self.level]


@dataclass(frozen=True, slots=True)
class Decoding:
    """No kernels: weights are decoded to float32 and multiplied in NumPy or PyTorch, which is slower."""

    reason: str

    @property
    def title(self) -> str:
        """What runs, in words."""
        return f"none, decoding instead: {self.reason}"


def kernels(cache_folder: Path | None = None) -> Kernels | Decoding:
    """The fastest kernels that this machine has and that agree with the portable ones on a sample.

    Builds them on the first call (seconds; see sutura.shift.native). The answer says why there are none.
    """
    return _kernels(cache_folder)


@cache
def _kernels(cache_folder: Path | None) -> Kernels | Decoding:
    try:
        found = library(cache_folder)
    except ShiftError as error:
        return Decoding(str(error))
    best = int(found.sutura_level())
    return next(k for level in range(best, -1, -1) if _agrees(k := Kernels(found, level)))


def linear(
    layout: Layout,
    x: Float32[np.ndarray, "batch columns"],
    bias: Float32[np.ndarray, " rows"] | None = None,
    *,
    activations: Activations = "float32",
    using: Kernels | Decoding | None = None,
) -> Float32[np.ndarray, "batch rows"]:
    """x W^T + bias. With "int8" each sample is rounded to 127 steps of its largest size first.

    The sums over int8 are exact; those over float32 are in an order of their own, so that they differ from
    another library's in the last bits. Raises ShiftError where shapes do not fit, or an activation to be
    rounded is not finite.
    """
    x, using = fitting(layout, x, activations), using or kernels()
    bias = None if bias is None else np.ascontiguousarray(bias, np.float32)
    if len(x) <= KERNEL_BATCH and isinstance(using, Kernels):
        return _native(using, layout, x, bias, activations)
    if activations == "int8":
        whole, step = rounded(x)
        y = (whole_sums(layout, whole, using=using) * (layout.unit * step)[:, None]).astype(np.float32)
        y = y if layout.scale is None else y * layout.scale
    else:
        y = np.concatenate([x @ panel.T for panel in panels(layout, using)], axis=1)
    return y if bias is None else y + bias


def fitting(layout: Layout, x: np.ndarray, activations: Activations) -> Float32[np.ndarray, "batch columns"]:
    """x in order in memory; raises ShiftError where it is not what the layout takes."""
    if x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != layout.columns:
        raise ShiftError(
            f"activations are {x.dtype} {x.shape}; the layer takes float32 (batch, {layout.columns})"
        )
    if activations == "int8" and layout.columns > MAX_COLUMNS:
        raise ShiftError(f"{layout.columns} columns; int8 activations are offered up to {MAX_COLUMNS}")
    return np.ascontiguousarray(x)


def rounded(
    x: Float32[np.ndarray, "batch columns"],
) -> tuple[Int8[np.ndarray, "batch columns"], Float64[np.ndarray, " batch"]]:
    """Each sample in whole steps of its largest size over 127, half to even, and its step.

    Zeros where the largest is zero, or so near (3.7e-37) that a step cannot be inverted.
    """
    if not np.isfinite(x).all():
        raise ShiftError("an activation is not finite, and cannot be rounded to int8")
    most = np.abs(x).max(axis=1, initial=0)
    with np.errstate(divide="ignore", over="ignore"):
        by = np.float32(127) / most
    by = np.where(np.isfinite(by), by, np.float32(0))
    return np.rint(x * by[:, None]).astype(np.int8), (most / np.float32(127)).astype(np.float64)


def whole_sums(
    layout: Layout, x: Int8[np.ndarray, "batch columns"], *, using: Kernels | Decoding | None = None
) -> Int64[np.ndarray, "batch rows"]:
    """Sums of shifted whole numbers, x W^T / unit without scales: exact, as sutura.shift.integer has them.

    |x| is at most 127.
    """
    using = using or kernels()
    if isinstance(using, Decoding):
        codes = codes_of(layout)
        weight = np.where(_negative(layout, codes), -1.0, 1.0) * sizes(layout.tables)[codes & 15]
        return (x.astype(np.float64) @ weight.T).astype(np.int64)  # below 2**53: exact
    x, y = np.ascontiguousarray(x), np.empty((len(x), layout.rows), np.int64)
    code = using.library.sutura_sums(_matrix(layout, None), x.ctypes.data, len(x), y.ctypes.data, using.level)
    return _done(code, y)


def panels(layout: Layout, using: Kernels | Decoding) -> Iterator[Float32[np.ndarray, "rows columns"]]:
    """The weights, scaled, a few rows at a time."""
    step = max(1, PANEL // layout.columns)
    matrix = _matrix(layout, None)
    for first in range(0, layout.rows, step):
        count = min(step, layout.rows - first)
        if isinstance(using, Decoding):
            yield _decoded(layout, slice(first, first + count))
            continue
        panel = np.empty((count, layout.columns), np.float32)
        using.library.sutura_decoded(matrix, first, count, panel.ctypes.data, using.level)
        yield panel


def _native(
    using: Kernels,
    layout: Layout,
    x: Float32[np.ndarray, "batch columns"],
    bias: Float32[np.ndarray, " rows"] | None,
    activations: Activations,
) -> Float32[np.ndarray, "batch rows"]:
    y = np.empty((len(x), layout.rows), np.float32)
    run = using.library.sutura_whole if activations == "int8" else using.library.sutura_floats
    return _done(run(_matrix(layout, bias), x.ctypes.data, len(x), y.ctypes.data, using.level), y)


def _matrix(layout: Layout, bias: np.ndarray | None) -> Matrix:
    parts = (layout.fields, layout.signs, layout.tables, layout.scale, bias)
    addresses = (None if part is None else part.ctypes.data for part in parts)
    return Matrix(*addresses, layout.rows, layout.columns, layout.unit)


def _done(code: int, y: np.ndarray) -> np.ndarray:
    if code:
        raise ShiftError(FAILURES[code])
    return y


def _decoded(layout: Layout, rows: slice) -> Float32[np.ndarray, "rows columns"]:
    codes = codes_of(Layout(
        layout.columns, layout.fields[rows], None if layout.signs is None else layout.signs[rows],
        layout.tables, None, layout.unit,
    ))  # fmt: skip
    size = sizes(layout.tables)[codes & 15].astype(np.float32) * np.float32(layout.unit)
    weight = np.where(_negative(layout, codes), -size, size)
    return weight if layout.scale is None else weight * layout.scale[rows, None]


def _negative(layout: Layout, codes: np.ndarray) -> np.ndarray:
    return codes >> 4 > 0 if layout.signs is not None else layout.tables[4][codes] > 1


def _agrees(kernels: Kernels) -> bool:
    """Whether sums and products of a sample are those of the portable kernels."""
    random, portable = np.random.default_rng(0), Kernels(kernels.library, 0)
    for grid in (q_grid(5), ps_grid(4)):
        codes = random.integers(0, 1 << grid.bits, (3, 300)).astype(np.uint8)
        layout = laid_out(Packed((3, 300), grid, codes, None))
        x = random.integers(-127, 128, (5, 300)).astype(np.int8)
        whole = [whole_sums(layout, x, using=k) for k in (kernels, portable)]
        near = [_native(k, layout, x.astype(np.float32), None, "float32") for k in (kernels, portable)]
        if not (whole[0] == whole[1]).all() or not np.allclose(near[0], near[1], rtol=1e-4, atol=1e-2):
            return False
    return True


FAILURES = {
    1: "there is no memory for the activations of a packed layer",
    2: "an activation is not finite, and cannot be rounded to int8",
}
