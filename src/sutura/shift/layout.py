"""How packed weights lie in memory for the kernels of packed.c: fields, signs and tables of their values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from sutura.shift.grid import Grid, decoded
from sutura.shift.pack import Packed

GROUP, BLOCK = 64, 256
"""Columns whose fields, and columns whose signs, lie in 32 bytes."""

_EIGHT = np.concatenate([np.arange(0, 8, 2), np.arange(16, 24, 2)])
PLACE = np.concatenate([_EIGHT + at for at in (0, 1, 8, 9)])
"""Column of 32 -> its byte; registers then widen fields into columns in order."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A matrix for the kernels: `fields` at 4 bits a weight and, at 5 bits, `signs` at 1.

    Rows are padded to 64 columns, those of signs to 256; 2 and 3 bits take fields of 4. `tables` has five
    rows, an entry each field: the low and high byte of its value as bfloat16 (with its sign where the field
    holds it); the low and high byte of its size in units of `unit`, the smallest power; 0x81 where it is
    negative, else 1.
    """

    columns: int
    fields: UInt8[np.ndarray, "rows field_bytes"]
    signs: UInt8[np.ndarray, "rows sign_bytes"] | None
    tables: UInt8[np.ndarray, "5 16"]
    scale: Float32[np.ndarray, " rows"] | None
    unit: float

    @property
    def rows(self) -> int:
        """Outputs."""
        return len(self.fields)

    @property
    def size(self) -> int:
        """Bytes of fields, signs and scales."""
        return sum(part.nbytes for part in (self.fields, self.signs, self.scale) if part is not None)


def laid_out(part: Packed) -> Layout:
    """The weights of a packed layer for the kernels; values are exact."""
    codes, grid = part.codes, part.grid
    return Layout(
        columns=codes.shape[1],
        fields=_fields(codes & 15),
        signs=_signs(codes >> 4) if grid.bits == 5 else None,
        tables=_tables(grid),
        scale=None if part.scale is None else np.ascontiguousarray(part.scale, np.float32),
        unit=2.0**grid.lowest,
    )


def sizes(tables: UInt8[np.ndarray, "5 16"]) -> Int64[np.ndarray, "16"]:
    """The size of each field in units of the smallest power."""
    return tables[2].astype(np.int64) | tables[3].astype(np.int64) << 8


def codes_of(layout: Layout) -> UInt8[np.ndarray, "rows columns"]:
    """Field, and sign above it where the layout has signs: what the bytes hold, column by column."""
    rows, columns = layout.rows, layout.columns
    groups = layout.fields.reshape(rows, -1, 1, 32)
    fields = np.concatenate([groups & 15, groups >> 4], axis=2)[..., PLACE].reshape(rows, -1)[:, :columns]
    if layout.signs is None:
        return fields
    signs = np.unpackbits(layout.signs.reshape(rows, -1, 1, 32), axis=2)[..., PLACE]
    return fields | signs.reshape(rows, -1)[:, :columns] << 4


def _tables(grid: Grid) -> UInt8[np.ndarray, "5 16"]:
    """Codes out of use repeat those in use."""
    value = decoded((np.arange(16) % (1 << min(grid.bits, 4))).astype(np.uint8), grid)
    bits = value.view(np.uint32) >> 16
    whole = np.abs(np.ldexp(value, -grid.lowest)).astype(np.int64)
    negative = np.where(np.signbit(value), 0x81, 1)
    parts = [bits & 255, bits >> 8, whole & 255, whole >> 8, negative]
    return np.stack([part.astype(np.uint8) for part in parts])


def _placed(codes: UInt8[np.ndarray, "rows columns"], span: int) -> UInt8[np.ndarray, "rows spans parts 32"]:
    """Columns padded to whole spans of `span`, each 32 of them in the order of their places."""
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % span)))
    return padded.reshape(len(codes), -1, span // 32, 32)[..., np.argsort(PLACE)]


def _fields(codes: UInt8[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "rows bytes"]:
    placed = _placed(codes, GROUP)
    return np.ascontiguousarray((placed[:, :, 0] | placed[:, :, 1] << 4).reshape(len(codes), -1))


def _signs(codes: UInt8[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "rows bytes"]:
    return np.ascontiguousarray(np.packbits(_placed(codes, BLOCK), axis=2).reshape(len(codes), -1))
