"""The test whether an input lies in the box of its gate, for boxes of many inputs.

There the dispatcher compares some inputs only. What it lets by is compared in full, number by number, but
only where an output fails the guard: a batch without such an output pays nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from sutura.gates.gate import Gate, OutputGate
from sutura.gates.onnx_part import Part, node, tensor

LARGEST = np.finfo(np.float32).max


def in_box(x: str, gates: Sequence[Gate], inputs: int) -> Part:
    """`sutura.kept`: what is sealed where an input of `x` lies in the box of its row, else what the network
    gave. Nothing where no gate has a box."""
    low = np.full((len(gates) + 1, inputs), -LARGEST, np.float32)
    high = -low
    for row, gate in enumerate(gates, start=1):
        if isinstance(gate, OutputGate) and gate.box is not None:
            low[row], high[row] = gate.box.low, gate.box.high
    if not any(isinstance(gate, OutputGate) and gate.box is not None for gate in gates):
        return Part()
    return Part(
        (
            node("Gather", [x, "sutura.place"], "sutura.bad_input", axis=0),
            node("Gather", ["sutura.lower", "sutura.mended_row"], "sutura.lower.row", axis=0),
            node("Gather", ["sutura.upper", "sutura.mended_row"], "sutura.upper.row", axis=0),
            node("GreaterOrEqual", ["sutura.bad_input", "sutura.lower.row"], "sutura.box.above"),
            node("LessOrEqual", ["sutura.bad_input", "sutura.upper.row"], "sutura.box.below"),
            node("And", ["sutura.box.above", "sutura.box.below"], "sutura.box.sides"),
            node("Cast", ["sutura.box.sides"], "sutura.box.float", to=TensorProto.FLOAT),
            node("ReduceMin", ["sutura.box.float"], "sutura.box.least", axes=[1], keepdims=1),
            node("Greater", ["sutura.box.least", "sutura.half"], "sutura.box.ok"),
            node("Where", ["sutura.box.ok", "sutura.sealed", "sutura.bad"], "sutura.kept"),
        ),
        (tensor("sutura.lower", low), tensor("sutura.upper", high)),
    )
