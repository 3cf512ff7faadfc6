"""A shift as plain values: what was asked, and what became of every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sutura.shift.convert import Shifted, ShiftedLayer


@dataclass(frozen=True, slots=True)
class Figures:
    """Before and after: bytes as ONNX, accuracy (None without labels), and measured seconds by batch size.

    `packed` is the size of the packed file, None where none was asked for.
    """

    bytes: tuple[int, int]
    packed: int | None
    accuracy: tuple[float, float] | None
    seconds: Mapping[int, tuple[float, float]]


def account(name: str, made: Shifted, figures: Figures) -> dict[str, Any]:
    """The document of `sutura shift`."""
    count = sum(layer.values.size for layer in made.layers)
    nominal = sum(layer.nominal_bits for layer in made.layers)
    return {
        "network": name,
        "settings": asdict(made.config),
        "sha256": made.network.sha256,
        "weights": count,
        "bits_per_weight": {"before": 32.0, "after": nominal / count},
        "bytes": {"onnx_before": figures.bytes[0], "onnx_after": figures.bytes[1], "packed": figures.packed},
        "accuracy": _pair(figures.accuracy),
        "runtime_seconds": {str(batch): _pair(both) for batch, both in figures.seconds.items()},
        "layers": [_layer(layer) for layer in made.layers],
        "left_alone": [asdict(part) for part in made.left],
        "note": "accuracies and times are estimates by sampling; the ONNX file holds the shifted weights as "
        "float32 numbers and runs as fast as before",
    }


def _pair(both: Sequence[float] | None) -> dict[str, float] | None:
    return None if both is None else {"before": both[0], "after": both[1]}


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
