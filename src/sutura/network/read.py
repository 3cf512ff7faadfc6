"""The way in: a file, bytes or a PyTorch module to a network that was checked against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sutura.errors import NetworkError
from sutura.network.budget import shown
from sutura.network.external_data import with_external_data
from sutura.network.graph import Network
from sutura.network.nnet_read import parse_nnet
from sutura.network.onnx_read import file_bytes, parse_onnx
from sutura.network.selfcheck import against_runtime


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A network as read, the ONNX bytes it came from (None for other formats), and how well they agree.

    `difference` is the largest absolute difference that the self-check saw between float64 evaluation and
    ONNX Runtime.
    """

    network: Network
    original: bytes | None
    difference: float


def load(
    source: Path | str | bytes | Any,
    example: Any = None,
    *,
    name: str = "network.onnx",
    external_data: bool = False,
) -> Loaded:
    """Read a network and check the reading against ONNX Runtime on random points.

    `source` is a path (.onnx or .nnet), the bytes of such a file, or a PyTorch module with an `example`
    input. Bytes are called `name` in messages, and are ONNX unless its suffix says otherwise. With
    `external_data` weights in files beside an ONNX file are taken into it (see
    `sutura.network.external_data`). Raises NetworkError where it cannot be read or the check fails.
    """
    if isinstance(source, bytes):
        read = READERS.get(Path(name).suffix.lower(), parse_onnx)
        return _checked(read(source, name), source if read is parse_onnx else None)
    if isinstance(source, str | Path):
        path = Path(source)
        return load(network_bytes(path, external_data=external_data), name=path.name)
    from sutura.network.torch_read import from_torch

    return _checked(from_torch(source, example), None)


def network_bytes(path: Path, *, external_data: bool = False) -> bytes:
    """The bytes of a network file, its weights taken in where they lie beside it and that is allowed.

    With the file's name they are all that `load` needs. Raises NetworkError where the file cannot be read, or
    is none by its suffix.
    """
    read = _reader(path)
    data = file_bytes(path)
    return with_external_data(data, path.parent) if external_data and read is parse_onnx else data


def read_network(path: Path) -> Network:
    """Read a network file by its suffix, without the check against ONNX Runtime; see `load`."""
    read = _reader(path)
    return read(file_bytes(path), path.name)


def _checked(network: Network, original: bytes | None) -> Loaded:
    return Loaded(network, original, against_runtime(network, original))


def _reader(path: Path) -> Callable[[bytes, str], Network]:
    suffix = path.suffix.lower()
    if suffix in READERS:
        return READERS[suffix]
    where = shown(path.name)
    if suffix in PICKLED:
        raise NetworkError(
            f"{where} is a pickle, which can run any code and is never opened: export it with "
            "torch.onnx.export(model.eval(), example, 'network.onnx'), or pass the module to sutura in Python"
        )
    raise NetworkError(f"{where} is no network file by its suffix; {' and '.join(sorted(READERS))} are read")


PICKLED = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"})

READERS: dict[str, Callable[[bytes, str], Network]] = {".nnet": parse_nnet, ".onnx": parse_onnx}
"""Suffix -> reader."""
