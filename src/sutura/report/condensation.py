"""Orientations and merges as plain JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sutura.condensation.carry import Carry
from sutura.condensation.condense import Condensed
from sutura.report.difference import difference
from sutura.report.document import WORDS


def condensed(found: Condensed) -> dict[str, Any]:
    """Orientations a layer, and what merging did where it was asked for."""
    layers = [
        {"node": layer.node, "neurons": layer.neurons, "counts": [asdict(c) for c in layer.counts]}
        for layer in found.layers
    ]
    if found.merged is None:
        return {"layers": layers, "merged": None}
    merged = {
        "layers": [asdict(layer) for layer in found.merged.layers],
        "bound": None if found.bound is None else [float(v) for v in found.bound],
        "difference": None if found.difference is None else difference(found.difference),
        "accuracy": None if found.accuracies is None else list(found.accuracies),
        "proofs": [proof(carry) for carry in found.carries],
    }
    return {"layers": layers, "merged": merged}


def proof(carry: Carry) -> dict[str, Any]:
    """A property: the verdict on the merged network, and what is known of the original through it."""
    return {
        "property": carry.name,
        "merged": WORDS[type(carry.merged.verdict)],
        "difference": None if carry.difference is None else carry.difference.largest,
        "original": "proved" if carry.over else "unknown",
    }
