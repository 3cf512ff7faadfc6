"""The bytes of an ONNX file, walked before protobuf builds anything from them.

A protobuf message of two bytes becomes an object of hundreds, so fields are counted first: what passes here
costs memory in proportion to its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sutura.errors import NetworkError
from sutura.network.budget import MAX_FIELDS, MAX_FILE_BYTES, MAX_NESTING, MAX_PACKED_BYTES

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
VARINT_TYPES = frozenset(
    {3, 4, 5, 8, 13, 14, 17, 18}
)  # FieldDescriptor.TYPE_* stored as variable-length integers


@dataclass(frozen=True, slots=True)
class Message:
    """What the walk must know of a message type: fields that hold messages, and those that may be packed."""

    children: Mapping[int, str]
    packed: frozenset[int]


def check_wire(data: bytes, most: int = MAX_FIELDS) -> None:
    """Raise NetworkError unless `data` is well-formed protobuf within the budgets of an ONNX model."""
    if len(data) > MAX_FILE_BYTES:
        raise NetworkError(f"the file has {len(data)} bytes; at most {MAX_FILE_BYTES} are supported")
    if not data:
        raise NetworkError("the file is empty; export the network again")
    schema = _schema()
    pending = [(0, len(data), "onnx.ModelProto", 1)]
    fields = packed = 0
    while pending:
        at, end, kind, depth = pending.pop()
        if depth > MAX_NESTING:
            raise NetworkError(
                f"messages are nested deeper than {MAX_NESTING}; this is no ordinary ONNX file"
            )
        message = schema[kind]
        while at < end:
            fields += 1
            if fields > most:
                raise NetworkError(f"the file has more than {most} fields; this is no ordinary ONNX file")
            number, wire, at, after = _field(data, at, end)
            if wire == BYTES and number in message.children:
                pending.append((at, after, message.children[number], depth + 1))
            elif wire == BYTES and number in message.packed:
                packed += after - at
            at = after
    if packed > MAX_PACKED_BYTES:
        raise NetworkError(
            f"{packed} bytes of packed integers; at most {MAX_PACKED_BYTES}: store them as raw_data"
        )


def _field(data: bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """Number, wire type, start and end of the content of the field at `at`."""
    tag, at = _varint(data, at, end)
    number, wire = tag >> 3, tag & 7
    if wire == BYTES:
        length, at = _varint(data, at, end)
        after = at + length
    elif wire == VARINT:
        _, after = _varint(data, at, end)
    elif wire in (FIXED64, FIXED32):
        after = at + (8 if wire == FIXED64 else 4)
    else:
        raise NetworkError(f"not an ONNX file: wire type {wire} at byte {at}; export the network again")
    if after > end or number == 0:
        raise NetworkError(
            f"not an ONNX file, or cut short: bad field at byte {at}; export the network again"
        )
    return number, wire, at, after


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise NetworkError(f"not an ONNX file, or cut short: bad number at byte {at}; export the network again")


@cache
def _schema() -> Mapping[str, Message]:
    """The message types reachable from ModelProto, as the installed onnx package declares them."""
    import onnx

    found: dict[str, Message] = {}
    pending: list[Any] = [onnx.ModelProto.DESCRIPTOR]
    while pending:
        kind = pending.pop()
        if kind.full_name in found:
            continue
        children = {f.number: f.message_type for f in kind.fields if f.message_type is not None}
        packed = frozenset(f.number for f in kind.fields if f.type in VARINT_TYPES)
        found[kind.full_name] = Message({k: v.full_name for k, v in children.items()}, packed)
        pending.extend(children.values())
    return found
