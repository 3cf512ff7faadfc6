"""Shifted weights in a .safetensors file: exactly `bits` bits a weight, one scale a channel, exact both ways.

Codes (sutura.shift.grid) lie in row-major order, output channel first, in planes of whole fields: 5 bits as
nibbles of exponents and single sign bits, 4 bits as nibbles with the sign on top, 3 bits as pairs and sign
bits, 2 bits as pairs. The first field of a byte is its lowest bits; unused bits at the end are zero. With 5
bits and zero on the grid, sign and nibble are sign and exponent of a half-precision number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from sutura.errors import ShiftError
from sutura.extras import require
from sutura.network.budget import shown, shown_shape
from sutura.network.graph import Network
from sutura.network.onnx_write import digest_of
from sutura.shift.grid import Grid, decoded, encoded
from sutura.shift.layers import shiftable, with_rows

VERSION = 1

KEY = "sutura.shift"
"""The one key of the file's metadata: JSON with version, the digest of the ONNX file, and the layers."""


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The codes of a layer's weights, an output channel a row, and a scale for each (None: all are 1)."""

    shape: tuple[int, ...]
    grid: Grid
    codes: UInt8[np.ndarray, "out columns"]
    scale: Float32[np.ndarray, " out"] | None

    @classmethod
    def of(
        cls,
        name: str,
        shape: tuple[int, ...],
        grid: Grid,
        values: Float32[np.ndarray, "out columns"],
        scale: Float32[np.ndarray, " out"] | None,
    ) -> Packed:
        """Encode `values` of `grid`; raises ShiftError, with the layer's name, where one is not on it."""
        try:
            return cls(shape, grid, encoded(values, grid), scale)
        except ShiftError as error:
            raise ShiftError(f"layer {shown(name)} cannot be packed: {error}") from None

    def rows(self) -> Float32[np.ndarray, "out columns"]:
        """The weights."""
        values = decoded(self.codes, self.grid)
        return values if self.scale is None else values * self.scale[:, None]


def pack(parts: Mapping[str, Packed], *, onnx_sha256: str = "") -> bytes:
    """The bytes of the file; equal parts give equal bytes. Raises MissingExtraError without safetensors."""
    tensors, layers = dict[str, np.ndarray](), dict[str, Any]()
    for name, part in parts.items():
        layers[name] = [list(part.shape), part.grid.bits, int(part.grid.zero)]
        low = 0
        for at, width in enumerate(PLANES[part.grid.bits]):
            tensors[f"{name}.{at}"] = _plane(part.codes.reshape(-1) >> low & (1 << width) - 1, width)
            low += width
        if part.scale is not None:
            tensors[f"{name}.scale"] = np.ascontiguousarray(part.scale, dtype=np.float32)
    held = {"version": VERSION, "onnx": onnx_sha256, "layers": layers}
    save = require("safetensors.numpy", "shift").save
    return save(tensors, metadata={KEY: json.dumps(held, separators=(",", ":"))})


def unpacked(data: bytes, name: str = "packed.safetensors") -> Mapping[str, Packed]:
    """What `pack` was given, by layer name.

    Raises ShiftError, in one line, where the bytes are no such file: malformed, another format or version,
    planes or scales that do not fit the shapes, bits set behind the last weight, scales that are not finite
    and positive, or anything left over.
    """
    tensors, layers = _contents(data, name)
    parts = {layer: _part(f"{shown(name)}, layer {shown(layer)}", layer, said, tensors)
             for layer, said in layers.items()}  # fmt: skip
    if tensors:
        raise ShiftError(
            f"{shown(name)} holds {shown(min(tensors))}, which belongs to no layer of its metadata"
        )
    return parts


def restored(network: Network, parts: Mapping[str, Packed]) -> Network:
    """The network with the weights of a packed file in the layers of those names; the rest is its own.

    Raises ShiftError where a name is no layer, or a shape is another.
    """
    layers = {layer.name: layer for layer in shiftable(network)[0]}
    nodes = list(network.nodes)
    for name, part in parts.items():
        if name not in layers or layers[name].shape != part.shape:
            has = shown_shape(layers[name].shape) if name in layers else "no such layer"
            raise ShiftError(
                f"packed layer {shown(name)} is {shown_shape(part.shape)}; {shown(network.name)} has {has}"
            )
        nodes[layers[name].index] = with_rows(nodes[layers[name].index], part.rows())
    made = replace(network, nodes=tuple(nodes))
    return replace(made, sha256=digest_of(made))


def _plane(fields: UInt8[np.ndarray, " n"], width: int) -> UInt8[np.ndarray, " bytes"]:
    each = 8 // width
    padded = np.pad(fields, (0, -len(fields) % each)).reshape(-1, each)
    return np.bitwise_or.reduce(padded << (width * np.arange(each, dtype=np.uint8)), axis=1)


def _fields(plane: UInt8[np.ndarray, " bytes"], width: int) -> UInt8[np.ndarray, " fields"]:
    places = width * np.arange(8 // width, dtype=np.uint8)
    return (plane[:, None] >> places & np.uint8((1 << width) - 1)).reshape(-1)


def _contents(data: bytes, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and the layers' descriptions."""
    load = require("safetensors.numpy", "shift").load
    failure = require("safetensors", "shift").SafetensorError
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        held = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
        version, layers = held["version"], held["layers"]
    except (failure, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ShiftError(
            f"{shown(name)} is no file of shifted weights: {shown(' '.join(str(error).split())[:120])}"
        ) from None
    if version != VERSION or not isinstance(layers, dict):
        raise ShiftError(f"{shown(name)} is of version {shown(str(version))}; version {VERSION} is read")
    return dict(tensors), layers


def _part(where: str, name: str, said: Any, tensors: dict[str, np.ndarray]) -> Packed:
    """A layer, its tensors taken out of `tensors`."""
    shape, grid = _described(where, said)
    count = math.prod(shape)
    codes, low = np.zeros(0, np.uint8), 0
    for at, width in enumerate(PLANES[grid.bits]):
        plane = tensors.pop(f"{name}.{at}", None)
        size = -(-count * width // 8)
        if plane is None or plane.dtype != np.uint8 or plane.shape != (size,):
            raise ShiftError(f"{where}: plane {at} is not {size} bytes, as {shown_shape(shape)} takes")
        fields = _fields(plane, width)
        if fields[count:].any():
            raise ShiftError(f"{where}: plane {at} has bits set behind the last weight")
        codes = fields[:count] << low if at == 0 else codes | fields[:count] << low
        low += width
    return Packed(
        shape, grid, codes.reshape(shape[0], -1), _scale(where, shape, tensors.pop(f"{name}.scale", None))
    )


def _described(where: str, said: Any) -> tuple[tuple[int, ...], Grid]:
    match said:
        case [[int(), int(), *_] as shape, int(bits), 0 | 1 as zero] if (
            all(type(n) is int and n > 0 for n in shape) and bits in PLANES
        ):
            return tuple(shape), Grid(bits, bool(zero))
        case _:
            raise ShiftError(f"{where} is described as {shown(str(said)[:60])}, not as shape, bits and zero")


def _scale(where: str, shape: tuple[int, ...], scale: np.ndarray | None) -> np.ndarray | None:
    if scale is None:
        return None
    if scale.dtype != np.float32 or scale.shape != shape[:1] or not (np.isfinite(scale) & (scale > 0)).all():
        raise ShiftError(f"{where}: scales are not {shape[0]} finite positive float32 numbers")
    return scale


PLANES = {5: (4, 1), 4: (4,), 3: (2, 1), 2: (2,)}
"""Bits of a weight -> the widths of the planes, lowest bits of the code first."""
