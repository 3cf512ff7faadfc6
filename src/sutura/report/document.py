"""Results as plain JSON values, one schema a document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sutura import __version__
from sutura.certificate.claim import Claim, claim
from sutura.certificate.schema import loads
from sutura.verdict.outcome import Outcome, Proved, Unknown, Violated

if TYPE_CHECKING:  # a verdict needs none of these rooms, and loading them takes seconds
    from sutura.gates.deliver import Repair
    from sutura.gates.evaluate import Inside, Outside
    from sutura.gates.table import GateTable
    from sutura.network.inspect import Inspection


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
        said |= claimed(result.verdict.claim)
        if result.verdict.claim.level == "HOLDS-REAL":
            said["verdict"] = "holds-real"  # real arithmetic alone is never called proved
    return said


def claimed(what: Claim) -> dict[str, Any]:
    """A claim, and in words what it rests on."""
    return {"level": what.level, "meaning": what.meaning, "assumptions": list(what.assumptions)}


def _rests_on(certificate: bytes) -> dict[str, Any]:
    assumes = loads(certificate).assumes
    return claimed(Claim("PROVED" if assumes == claim().assumes else "PROVED@runtime", assumes))


def repair(result: Repair, before: Sequence[dict[str, Any]], files: dict[str, str]) -> dict[str, Any]:
    """What a repair did: verdicts before, regions, seconds and the files written."""
    return {
        "before": list(before),
        "method": result.method,
        "after": "certified" if result.certified else "unproved",
        **(_rests_on(result.certificate) if result.certified else {}),
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
