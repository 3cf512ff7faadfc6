"""Results as plain JSON values, one schema a document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sutura import __version__
from sutura.gates.deliver import Repair
from sutura.gates.evaluate import Inside, Outside
from sutura.gates.table import GateTable
from sutura.network.inspect import Inspection
from sutura.verdict.difference import Difference, Seen
from sutura.verdict.outcome import Outcome, Proved, Unknown, Violated

ASSUMPTIONS = (
    "binary32 arithmetic rounded to nearest, summed in any order, fused or not",
    "no TF32, 16-bit or Winograd kernels",
    "Sigmoid and Tanh within 4e-7 of the exact function, where the network has them",
    "the network file as hashed, inputs as float32",
)


def document(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The envelope that every document shares."""
    return {"schema": f"sutura/{kind}", "version": 1, "sutura": __version__, **_finite(body)}


def _finite(value: Any) -> Any:
    """JSON has no NaN: what was not measured is null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def outcome(name: str, result: Outcome) -> dict[str, Any]:
    """A verdict with its witness or reason."""
    said: dict[str, Any] = {
        "property": name,
        "verdict": WORDS[type(result.verdict)],
        **asdict(result.account),
    }
    if isinstance(result.verdict, Violated):
        witness = result.verdict.witness
        said["witness"] = {
            "case": witness.case,
            "input": [float(v) for v in witness.input],
            "input_hex": [float(v).hex() for v in witness.input],
            "output": [float(v) for v in witness.output],
        }
    if isinstance(result.verdict, Unknown):
        said["reason"] = result.verdict.reason
    if isinstance(result.verdict, Proved):
        said["assumptions"] = list(ASSUMPTIONS)
    return said


def repair(result: Repair, before: Sequence[dict[str, Any]], files: dict[str, str]) -> dict[str, Any]:
    """What a repair did: verdicts before, regions, seconds and the files written."""
    return {
        "before": list(before),
        "method": result.method,
        "after": "certified" if result.certified else "unproved",
        "assumptions": list(ASSUMPTIONS),
        "regions": asdict(result.regions),
        "trials": None if result.trials is None else asdict(result.trials),
        "nearest_safe_output": result.exact,
        "note": result.note,
        "seconds": {"search": result.search_seconds, "check": result.check_seconds},
        "bytes": {"onnx": len(result.onnx), "certificate": len(result.certificate)},
        "files": files,
    }


def figures(inner: Sequence[Inside], outer: Outside) -> dict[str, Any]:
    """Estimates by sampling."""
    return {"inside": [asdict(i) for i in inner], "outside": asdict(outer)}


def difference(found: Difference) -> dict[str, Any]:
    """How far two networks differ, from both sides."""
    low, high = found.separate
    return {
        "largest": {"certified": found.largest, "seen": found.largest_seen},
        "outputs": [
            {
                "certified": [float(a), float(b)],
                "separate": [float(c), float(d)],
                "seen": [float(e), float(f)],
            }
            for a, b, c, d, e, f in zip(found.low, found.high, low, high, *found.attained, strict=True)
        ],
        "decides_alike": found.decides_alike,
        "same_share": found.same_share,
        "widest": _seen(found.widest),
        "changed": None if found.changed is None else _seen(found.changed),
        "boxes": found.boxes,
        "seconds": found.seconds,
        "assumptions": list(ASSUMPTIONS),
    }


def _seen(seen: Seen) -> dict[str, Any]:
    return {
        "input": [float(v) for v in seen.input],
        "input_hex": [float(v).hex() for v in seen.input],
        "first": [float(v) for v in seen.first],
        "second": [float(v) for v in seen.second],
    }


def gates(table: GateTable) -> dict[str, Any]:
    """The gates of a repaired file."""
    return {
        "gates": [asdict(row) for row in table.rows[1:]],
        "kinds": dict(table.kinds),
        "cells": (len(table.tree) + 1) // 2,
        "depth": table.depth,
    }


def inspection(found: Inspection) -> dict[str, Any]:
    """Every node of a network file."""
    totals = {"supported": found.supported, "parameters": found.parameters, "macs": found.macs}
    return {**asdict(found), **totals}


WORDS = {Proved: "proved", Violated: "violated", Unknown: "unknown"}
