"""An alarm: one sample that a guard did not hand on, and the log in which breaches stay."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from sutura.errors import OutputError


@dataclass(frozen=True, slots=True, eq=False)
class Alarm:
    """One sample that was not handed on: why (a key of CAUSES), the property where there is one, the flat
    input and output (None where there is none), the gate row of the input (-1: not asked), the Unix time.

    `breach`: the sample lies in a certified box, so something that the certificate assumes does not hold:
    the file in memory, the arithmetic, the runtime or the hardware.
    """

    cause: str
    property: str
    input: Float32[np.ndarray, " n"]
    output: Float32[np.ndarray, " m"] | None
    row: int
    time: float
    breach: bool

    def __str__(self) -> str:
        where = f" (property {self.property})" if self.property else ""
        return f"{CAUSES[self.cause]}{where}"

    def document(self) -> dict[str, Any]:
        """As JSON; numbers are the eight hex digits of their bits, so that nothing is lost."""
        return {
            "time": self.time,
            "cause": self.cause,
            "property": self.property,
            "row": self.row,
            "breach": self.breach,
            "input": _bits(self.input),
            "output": None if self.output is None else _bits(self.output),
        }


def _bits(values: Float32[np.ndarray, " n"]) -> list[str]:
    return [f"{v:08x}" for v in np.ascontiguousarray(values).view(np.uint32).tolist()]


def open_log(place: Path) -> int:
    """How many lines a breach log holds; makes the file where there is none, so that it can be written later.

    Raises OutputError where it cannot be opened.
    """
    try:
        with place.open("a+b") as file:
            file.seek(0)
            return sum(1 for _ in file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have this name"
        raise OutputError(f"cannot write the breach log {place}: {reason}; choose another place") from None


def write_log(place: Path, alarms: Sequence[Alarm]) -> bool:
    """Append one JSON line an alarm and force them to the disk; False where that failed."""
    lines = "".join(json.dumps(alarm.document()) + "\n" for alarm in alarms)
    try:
        with place.open("ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


CAUSES = {
    "input_not_finite": "the input holds a number that is not finite",
    "input_outside": "the input lies in no certified box",
    "output_unsafe": "the output breaks its property",
    "output_not_finite": "the output holds a number that is not finite",
    "inference_failed": "ONNX Runtime failed, or gave no float32 output of the right size",
    "stopped": "an earlier breach stopped the network",
}
"""Cause of an alarm -> what it says."""
