"""Weights kept beside an ONNX file, taken into it: only where the user asks, only from the file's own folder.

A network file may name any file of the machine as its weights. So a location is the plain name of a regular
file in the network's folder, opened without following links, and its bytes are counted before they are read.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from sutura.errors import NetworkError
from sutura.network.budget import MAX_FILE_BYTES, shown
from sutura.network.onnx_file import parse_model
from sutura.network.onnx_tensor import EXTERNAL, TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

KEYS = frozenset({"location", "offset", "length", "checksum"})
LONGEST_NUMBER = 20
FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def with_external_data(data: bytes, folder: Path) -> bytes:
    """The same ONNX file with all weights in it; `data` itself where it has them already.

    Raises NetworkError, in one line, for locations that are not plain names in `folder`, for links, for what
    is not a regular file, for ranges beyond a file's end, and where dims and length disagree.
    """
    model = parse_model(data)
    tensors = [t for t in _tensors(model) if t.data_location == EXTERNAL or len(t.external_data)]
    if not tensors:
        return data
    left = MAX_FILE_BYTES - len(data)
    for tensor in tensors:
        name, offset, length = _range(tensor)
        left -= length
        if left < 0:
            raise NetworkError(
                f"the weights beside the file pass {MAX_FILE_BYTES} bytes; that is not supported"
            )
        raw = _read(folder, name, offset, length)
        del tensor.external_data[:]
        tensor.ClearField("data_location")
        tensor.raw_data = raw
    return model.SerializeToString(deterministic=True)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Those in places where weights are kept; elsewhere external data is refused later."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _range(tensor: onnx.TensorProto) -> tuple[str, int, int]:
    """File name, offset and length of a tensor's bytes; the length is what its dims ask for."""
    where = f"tensor {shown(tensor.name)}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not entries.keys() <= KEYS or not entries.get("location"):
        raise NetworkError(f"{where} says strangely where its data are; save the network as one file")
    numbers = [entries.get(key, "0") for key in ("offset", "length")]
    if not all(n.isascii() and n.isdigit() and len(n) <= LONGEST_NUMBER for n in numbers):
        raise NetworkError(f"{where} has an offset or length that is no number; save the network as one file")
    if tensor.data_type not in TYPES or any(n < 0 for n in tensor.dims):
        raise NetworkError(f"{where} has a type or dims that are not supported; save it as float32")
    needed = math.prod(tensor.dims) * TYPES[tensor.data_type][0].itemsize
    offset, length = (int(n) for n in numbers)
    if "length" in entries and length != needed:
        raise NetworkError(f"{where} keeps {length} bytes outside the file; its dims need {needed:.3g}")
    return entries["location"], offset, needed


def _read(folder: Path, name: str, offset: int, length: int) -> bytes:
    """So many bytes of a regular file of the folder; no link is followed."""
    place = shown(name)
    if name in (".", "..") or any(mark in name for mark in "/\\\0:"):
        raise NetworkError(f"weights at {place} are not in the network's own folder; put them beside it")
    try:
        if (folder / name).is_symlink():
            raise NetworkError(f"the weights {place} are a link, which is not followed; copy the file itself")
        handle = os.open(folder / name, FLAGS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise NetworkError(f"cannot open the weights {place} beside the network: {reason}") from None
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(handle)
        raise NetworkError(f"the weights {place} are not a plain file with one name; copy them")
    with os.fdopen(handle, "rb") as file:
        if offset + length > about.st_size:
            raise NetworkError(
                f"{place} has {about.st_size} bytes, and a tensor lies at {offset:.3g} with {length:.3g}; "
                "fetch the file again"
            )
        file.seek(offset)
        return file.read(length)
