"""A shift as plain values: what was asked, and what became of every layer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sutura.shift.convert import Shifted, ShiftedLayer
from sutura.shift.qdq import Quantised


@dataclass(frozen=True, slots=True)
class Speed:
    """Which kernels ran; for each batch the seconds of all linear layers: float32, packed, packed with int8
    activations."""

    title: str
    seconds: Mapping[int, tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Figures:
    """The ONNX file; before and after: bytes as ONNX, accuracy (None without labels), and measured seconds
    by batch size of the float32 networks.

    `packed` is the size of the packed file and `speed` that of its kernels, None where none was asked for.
    """

    onnx: bytes
    bytes: tuple[int, int]
    packed: int | None
    accuracy: tuple[float, float] | None
    seconds: Mapping[int, tuple[float, float]]
    speed: Speed | None


def account(name: str, made: Shifted, figures: Figures, held: Quantised | None) -> dict[str, Any]:
    """The document of `sutura shift`."""
    count = sum(layer.values.size for layer in made.layers)
    nominal = sum(layer.nominal_bits for layer in made.layers)
    return {
        "network": name,
        "settings": asdict(made.config),
        "format": "float32" if held is None else "int8",
        "planes": None if held is None else _planes(held),
        "sha256": hashlib.sha256(figures.onnx).hexdigest(),
        "weights": count,
        "bits_per_weight": {"before": 32.0, "after": nominal / count},
        "bytes": {"onnx_before": figures.bytes[0], "onnx_after": figures.bytes[1], "packed": figures.packed},
        "accuracy": _pair(figures.accuracy),
        "runtime_seconds": {str(batch): _pair(both) for batch, both in figures.seconds.items()},
        "kernels": None if figures.speed is None else _speed(figures.speed),
        "layers": [_layer(layer) for layer in made.layers],
        "left_alone": [asdict(part) for part in made.left],
        "note": "accuracies and times are estimates by sampling; the ONNX file runs as fast as before, only "
        "the kernels of sutura.shift.packed_layer gain time from packed weights",
    }


def _pair(both: Sequence[float] | None) -> dict[str, float] | None:
    return None if both is None else {"before": both[0], "after": both[1]}


def _planes(held: Quantised) -> dict[str, list[str]]:
    """Names of layers by how many int8 numbers hold a weight; none: float32."""
    return {"one": list(held.one), "two": list(held.two), "float32": list(held.float32)}


def _speed(speed: Speed) -> dict[str, Any]:
    words = ("float32", "packed", "packed_int8")
    found = {str(batch): dict(zip(words, times, strict=True)) for batch, times in speed.seconds.items()}
    return {"title": speed.title, "linear_layers_seconds": found}


def _layer(layer: ShiftedLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "shape": list(layer.shape),
        "weights": layer.values.size,
        "bits": layer.grid.bits,
        "zero": layer.grid.zero,
        "zeros": int((layer.values == 0).sum()),
        "scales": 0 if layer.scale is None else layer.scale.size,
        "relative_error": layer.error,
    }
