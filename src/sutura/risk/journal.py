"""Finished inputs of a survey, one JSON line each, so that an interrupted one goes on where it stopped.

The first line binds the file to what was asked. A line that was cut off is computed again.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from sutura.certificate.claim import LEVELS
from sutura.errors import DataError, OutputError
from sutura.risk.quantify import ESTIMATED, WITNESSED, RiskResult, RiskWitness

SCHEMA = "sutura/risk-journal"


@dataclass(frozen=True, slots=True, eq=False)
class Journal:
    """Where results go (None: nowhere), and those that were there."""

    path: Path | None
    results: Mapping[int, RiskResult]

    def keep(self, index: int, result: RiskResult) -> None:
        """Add one line and see it on the disk. Raises OutputError where it cannot be written."""
        if self.path is not None:
            _append(self.path, json.dumps({"input": index, **_plain(result)}))


def open_journal(path: Path, fingerprint: str) -> Journal:
    """The journal at `path`, begun where there is none.

    Raises DataError where it is no journal or belongs to another question, OutputError where it cannot be
    written.
    """
    if not path.exists() or path.stat().st_size == 0:
        _append(path, json.dumps({"schema": SCHEMA, "version": 1, "asked": fingerprint}))
        return Journal(path, {})
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.splitlines()
    head = _read(lines[0]) if lines else None
    if head is None or head.get("schema") != SCHEMA:
        raise DataError(f"{path.name} is no journal of sutura risk; name a new file")
    if head.get("asked") != fingerprint:
        raise DataError(
            f"{path.name} was begun for another network, data set or configuration; name a new file"
        )
    if len(whole) != len(data):
        os.truncate(path, len(whole))
    found: dict[int, RiskResult] = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = _read(line)
        try:
            assert entry is not None
            found[int(entry["input"])] = _result(entry)
        except (AssertionError, KeyError, TypeError, ValueError):
            raise DataError(
                f"{path.name}, line {number}, is damaged; delete the line to compute it again"
            ) from None
    return Journal(path, found)


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _plain(result: RiskResult) -> dict[str, Any]:
    witness = result.witness
    return {
        "lower": result.lower,
        "upper": result.upper,
        "estimate": result.estimate,
        "witness": None if witness is None else [_packed(witness.input), _packed(witness.output)],
        "level": result.level,
        "label": result.label,
        "safety": result.safety,
        "reason": result.reason,
        "seconds": result.seconds,
        "figures": dict(result.figures),
    }


def _result(entry: Mapping[str, Any]) -> RiskResult:
    packed = entry["witness"]
    witness = None if packed is None else RiskWitness(_unpacked(packed[0]), _unpacked(packed[1]))
    figures = {str(k): float(v) for k, v in entry["figures"].items()}
    if entry["level"] not in (*LEVELS, WITNESSED, ESTIMATED):
        raise ValueError(entry["level"])
    return RiskResult(
        float(entry["lower"]),
        float(entry["upper"]),
        None if entry["estimate"] is None else float(entry["estimate"]),
        witness,
        entry["level"],
        int(entry["label"]),
        float(entry["safety"]),
        str(entry["reason"]),
        float(entry["seconds"]),
        figures,
    )


def _packed(values: Float32[np.ndarray, " n"]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> Float32[np.ndarray, " n"]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
