"""The bytes of a property file, plain or gzip, within a budget."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from sutura.errors import PropertyError

LARGEST_TEXT = 64 * 2**20  # bytes, inflated
LARGEST_RATIO = 200  # of inflated to stored bytes; real property files stay below 30
FREE_OF_RATIO = 2**20  # inflated bytes that are cheap enough to need no ratio
_CHUNK = 2**16
_GZIP_MAGIC = b"\x1f\x8b"


def read_source(path: Path) -> bytes:
    """The text of a property file, inflated where the file is gzip (recognised by its first bytes).

    Raises PropertyError where the file cannot be read, is damaged, or is larger than 64 MiB inflated.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_GZIP_MAGIC))
            file.seek(0)
            if head == _GZIP_MAGIC:
                return _inflate(file, path)
            text = file.read(LARGEST_TEXT + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PropertyError(f"{path}: cannot read the property file: {reason}; check the path") from error
    except ValueError as error:  # a path with a NUL character
        raise PropertyError(f"{str(path)!r}: not a file name") from error
    if len(text) > LARGEST_TEXT:
        raise PropertyError(
            f"{path}: larger than {LARGEST_TEXT:,} bytes; split the property into several files"
        )
    return text


def stem(path: Path) -> str:
    """The file's name without `.gz` and `.vnnlib`."""
    name = path.name.removesuffix(".gz")
    return name.removesuffix(".vnnlib") or path.name


def _inflate(file: BinaryIO, path: Path) -> bytes:
    engine = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    stored = inflated = 0
    pending = b""
    while chunk := pending or file.read(_CHUNK):
        stored += 0 if pending else len(chunk)
        if engine.eof:  # gzip allows several members, one after the other
            engine = zlib.decompressobj(wbits=31)
        try:
            part = engine.decompress(chunk, 2**20)
        except zlib.error as error:
            raise PropertyError(f"{path}: damaged gzip data ({error}); fetch the file again") from error
        parts.append(part)
        inflated += len(part)
        pending = engine.unused_data if engine.eof else engine.unconsumed_tail
        _check_growth(stored, inflated, path)
    if not engine.eof:
        raise PropertyError(f"{path}: the gzip data end too early; the file is truncated, fetch it again")
    return b"".join(parts)


def _check_growth(stored: int, inflated: int, path: Path) -> None:
    if inflated > LARGEST_TEXT:
        raise PropertyError(
            f"{path}: inflates beyond {LARGEST_TEXT:,} bytes; split the property into several files"
        )
    if inflated > FREE_OF_RATIO and inflated > LARGEST_RATIO * stored:
        raise PropertyError(
            f"{path}: inflates more than {LARGEST_RATIO} times, as a bomb does; store it uncompressed"
        )
