"""Tensors of an ONNX file as arrays: the stated dims must agree with the stored bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sutura.errors import NetworkError
from sutura.network.budget import MAX_RANK, shown, shown_shape

if TYPE_CHECKING:
    import onnx

EXTERNAL = 1


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something in the file that no supported operator can use, and why."""

    reason: str


def read_tensor(tensor: onnx.TensorProto, name: str) -> np.ndarray | Unreadable:
    """The read-only array of `tensor` (float32, int64, int32, int8, uint8, bool); Unreadable for other types.

    Raises NetworkError, naming the tensor, for data kept outside the file and where dims and data disagree.
    """
    if tensor.data_location == EXTERNAL or len(tensor.external_data):
        raise NetworkError(
            f"tensor {shown(name)} keeps its data outside the file; save the network as one file, or allow "
            "it with --external-data"
        )
    if tensor.data_type not in TYPES:
        kind = _type_name(tensor.data_type)
        return Unreadable(
            f"tensor {shown(name)} has type {kind}, only float32 is supported: convert the network"
        )
    dims = tuple(int(n) for n in tensor.dims)
    if len(dims) > MAX_RANK or any(n < 0 for n in dims) or tensor.HasField("segment"):
        raise NetworkError(
            f"tensor {shown(name)} has impossible dims {shown_shape(dims)}; export the network again"
        )
    dtype, field = TYPES[tensor.data_type]
    array = _stored(tensor, name, dtype, field)
    if array.size != math.prod(dims):
        raise NetworkError(
            f"tensor {shown(name)} says {shown_shape(dims)} and stores {array.size} numbers; export it again"
        )
    array = array.reshape(dims)
    array.flags.writeable = False
    return array


def _stored(tensor: onnx.TensorProto, name: str, dtype: np.dtype[Any], field: str) -> np.ndarray:
    filled = [f for f in FIELDS if len(getattr(tensor, f))]
    if len(filled) > 1 or (filled and filled[0] not in ("raw_data", field)):
        raise NetworkError(
            f"tensor {shown(name)} stores its numbers in {', '.join(filled)}; export the network again"
        )
    if filled == ["raw_data"]:
        raw = tensor.raw_data
        if len(raw) % dtype.itemsize:
            raise NetworkError(
                f"tensor {shown(name)} ends inside a number ({len(raw)} bytes); export it again"
            )
        array = np.frombuffer(raw, dtype=dtype)
        return array.astype(dtype.newbyteorder("="), copy=False)
    values = getattr(tensor, field)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        wide, ends = np.fromiter(values, dtype=np.int32, count=len(values)), np.iinfo(dtype)
        if (wide < ends.min).any() or (wide > ends.max).any():
            raise NetworkError(f"tensor {shown(name)} stores numbers that are no {dtype}; export it again")
        return wide.astype(dtype)
    return np.fromiter(values, dtype=dtype.newbyteorder("="), count=len(values))


def _type_name(number: int) -> str:
    import onnx

    try:
        return onnx.TensorProto.DataType.Name(number).lower()
    except ValueError:
        return f"number {number}"


FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "string_data",
    "double_data",
    "uint64_data",
)

TYPES: dict[int, tuple[np.dtype[Any], str]] = {
    1: (np.dtype("<f4"), "float_data"),
    2: (np.dtype("u1"), "int32_data"),
    3: (np.dtype("i1"), "int32_data"),
    6: (np.dtype("<i4"), "int32_data"),
    7: (np.dtype("<i8"), "int64_data"),
    9: (np.dtype("bool"), "int32_data"),
}
