"""Products of packed weights and float32 activations on GPUs, in Triton; reads the bytes that packed.c reads.

Tested in Triton's interpreter only; it has not been timed on a GPU.
"""

# Triton has no types, and is not installed where types are checked.
# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false
# pyright: reportUnknownParameterType=false, reportIndexIssue=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sutura.shift.layout import PLACE

ROWS = 16
"""Outputs that a program computes."""


@triton.jit
def _halves(fields: Any, tables: Any, sign: Any, signed: tl.constexpr) -> Any:
    """Fields to float32: two table look-ups for the upper half of the number, and the sign above."""
    upper = tl.load(tables + fields).to(tl.int32) | tl.load(tables + 16 + fields).to(tl.int32) << 8
    if signed:
        upper = upper | sign << 15
    return (upper << 16).to(tl.float32, bitcast=True)


@triton.jit
def _product(  # noqa: PLR0913, a kernel takes addresses and sizes one by one
    x: Any,
    y: Any,
    fields: Any,
    signs: Any,
    tables: Any,
    scale: Any,
    column: Any,
    rows: Any,
    columns: Any,
    groups: Any,
    blocks: Any,
    signed: tl.constexpr,
    step: tl.constexpr,
) -> None:
    """`step` outputs of one sample; column[b] is the column of 32 at byte b."""
    row = tl.program_id(0) * step + tl.arange(0, step)
    inside = row < rows
    place = tl.arange(0, 32)
    own = tl.load(column + place)
    total = tl.zeros((step, 32), tl.float32)
    sample = x + tl.program_id(1) * columns
    for group in range(groups):
        at = (row[:, None] * groups + group) * 32 + place[None, :]
        word = tl.load(fields + at, mask=inside[:, None], other=0).to(tl.int32)
        low, high = word * 0, word * 0
        if signed:
            at = (row[:, None] * blocks + group // 4) * 32 + place[None, :]
            word_signs = tl.load(signs + at, mask=inside[:, None], other=0).to(tl.int32)
            low = word_signs >> 7 - group % 4 * 2 & 1
            high = word_signs >> 6 - group % 4 * 2 & 1
        first = group * 64 + own
        near = tl.load(sample + first, mask=first < columns, other=0.0)
        far = tl.load(sample + first + 32, mask=first + 32 < columns, other=0.0)
        total += _halves(word & 15, tables, low, signed) * near[None, :]
        total += _halves(word >> 4, tables, high, signed) * far[None, :]
    done = tl.sum(total, axis=1) * tl.load(scale + row, mask=inside, other=0.0)
    tl.store(y + tl.program_id(1) * rows + row, done, mask=inside)


def product(x: Tensor, fields: Tensor, signs: Tensor, tables: Tensor, scale: Tensor, columns: int) -> Tensor:
    """x W^T for float32 samples (batch, columns) in order in memory, all tensors on one device."""
    rows, groups = len(fields), fields.shape[1] // 32
    y = torch.empty(len(x), rows, dtype=torch.float32, device=x.device)
    column = torch.from_numpy(PLACE.argsort()).to(device=x.device, dtype=torch.int32)
    signed = signs.numel() > 0
    grid = (triton.cdiv(rows, ROWS), len(x))
    blocks = signs.shape[1] // 32 if signed else 0
    parts = (fields, signs if signed else fields, tables, scale, column)
    _product[grid](x, y, *parts, rows, columns, groups, blocks, signed=signed, step=ROWS)
    return y
