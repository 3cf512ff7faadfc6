"""One door for property files: the version is told by the text, not by the name."""

from __future__ import annotations

import re
from pathlib import Path

from sutura.property import vnnlib1, vnnlib2
from sutura.property.source import read_source, stem
from sutura.property.spec import Property

_VERSION_2 = re.compile(rb"\A(?:\s|;[^\r\n]*)*\(\s*vnnlib-version\b")


def read_property(path: Path | str) -> Property:
    """The property in a VNN-LIB file, 1.0 or 2.0, plain or gzip, named by the file's stem.

    Raises PropertyError where the file cannot be read or is not a supported property, and MissingExtraError
    where a 2.0 file needs the package `vnnlib` and it is not installed.
    """
    path = Path(path)
    return parse_property(read_source(path), stem(path), source=str(path))


def parse_property(text: bytes, name: str, *, source: str) -> Property:
    """The property that a VNN-LIB text states, 1.0 or 2.0; `source` stands for it in errors.

    Raises as `read_property` does.
    """
    reader = vnnlib2.parse if is_version_2(text) else vnnlib1.parse
    return reader(text, name, source=source)


def is_version_2(text: bytes) -> bool:
    """Whether a VNN-LIB text says that it is of version 2."""
    return _VERSION_2.match(text) is not None
