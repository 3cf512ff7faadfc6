"""The figures of each command's JSON document that a reader looks for first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sutura.outward import at_least, at_most, share_at_least, share_at_most

Line = tuple[str, str]


def summary(run: str, document: Mapping[str, Any]) -> list[Line]:
    """(what, figure) lines of a document of the command `run`; none where it is not known."""
    return SUMMARIES[run](document) if run in SUMMARIES else []


def _verify(said: Mapping[str, Any]) -> list[Line]:
    return [
        (p["property"], f"{p['verdict']}, {share_at_least(p['proved_share'])} of the region proved")
        for p in said["properties"]
    ]


def _repair(said: Mapping[str, Any]) -> list[Line]:
    regions = said["regions"]
    lines = [
        ("after", f"{said['after']} {said.get('level', '')}".strip()),
        (
            "regions proved without a gate",
            f"{regions['proved']:,} ({share_at_least(regions['proved_share'])} of the boxes)",
        ),
        ("regions behind output gates", f"{regions['output_gated']:,}"),
        ("regions behind neuron gates", f"{regions['neuron_gated']:,}"),
    ]
    for inside in said.get("estimates", {}).get("inside", []):
        lines.append(
            (
                f"{inside['property']}, violating samples",
                f"{share_at_most(inside['violating_before'], 3)} before, "
                f"{share_at_most(inside['violating_after'], 3)} after",
            )
        )
        lines.append(
            (f"{inside['property']}, bit-identical where right", share_at_least(inside["identical"], 3))
        )
    return lines + [("note", said["note"])] * bool(said.get("note"))


def _evaluate(said: Mapping[str, Any]) -> list[Line]:
    lines = [
        ("certificate", "accepted" if said["certificate"]["accepted"] else said["certificate"]["reason"])
    ]
    for attacked in said["attack"]:
        told = f"{attacked['violating_before']:,} before, {attacked['violating_after']:,} after"
        lines.append((f"{attacked['property']}, violations of {attacked['points']:,} attacks", told))
    if said["outside"]:
        lines.append(("bit-identical outside the boxes", share_at_least(said["outside"]["identical"], 3)))
    for speed in said["speed"]:
        lines.append((f"run time at batch {speed['batch']}", f"{speed['ratio']:.2f} x the original"))
    lines.append(("size", f"{said['bytes']['before']:,} to {said['bytes']['after']:,} bytes"))
    return lines


def _diff(said: Mapping[str, Any]) -> list[Line]:
    alike = {True: "proved", False: "no: an input was found", None: "not known"}[said["decides_alike"]]
    return [
        ("no output differs by more than", f"{at_most(said['largest']['certified'])} (certified)"),
        ("largest difference seen", f"{said['largest']['seen']:.4g}"),
        ("same decisions on the region", alike),
    ]


def _condense(said: Mapping[str, Any]) -> list[Line]:
    lines = [
        (f"{layer['node']}, {layer['neurons']} neurons", f"{layer['counts'][0]['lines']} lines")
        for layer in said["layers"]
    ]
    merged = said["merged"]
    if merged:
        kept = ", ".join(f"{layer['before']} to {layer['after']}" for layer in merged["layers"])
        lines.append(("neurons merged", kept))
        if merged["accuracy"]:
            lines.append(
                ("accuracy", f"{merged['accuracy'][0]:.2%} before, {merged['accuracy'][1]:.2%} after")
            )
    return lines


def _compress(said: Mapping[str, Any]) -> list[Line]:
    before, lines = said["before"], list[Line]()
    for made in said["compressed"]:
        for name, what in SIZES.items():
            told = f"{before[name]:,} to {made[name]:,} ({made[name] / before[name]:.1%})"
            lines.append((what, told))
        if before.get("accuracy") is not None:
            lines.append(("accuracy", f"{before['accuracy']:.2%} before, {made['accuracy']:.2%} after"))
        if "region" in made:
            moved = f"{at_most(made['region']['largest']['certified'])} (certified)"
            lines.append(("no output moves on the region by more than", moved))
    return lines


def _shift(said: Mapping[str, Any]) -> list[Line]:
    bits, size = said["bits_per_weight"], said["bytes"]
    lines = [("bits a weight", f"{bits['before']:.0f} to {bits['after']:.2f} once packed")]
    if size["packed"] is not None:
        lines.append(("packed file", f"{size['packed']:,} bytes"))
    if said["accuracy"]:
        before, after = said["accuracy"]["before"], said["accuracy"]["after"]
        lines.append(("accuracy", f"{before:.2%} before, {after:.2%} after"))
    return [*lines, ("note", said["note"])]


def _calibrate(said: Mapping[str, Any]) -> list[Line]:
    return [
        (name.replace("_", " "), f"{value:.4f} before, {said['after'][name]:.4f} after")
        for name, value in said["before"].items()
        if isinstance(value, float)
    ]


def _risk(said: Mapping[str, Any]) -> list[Line]:
    certified = [r["lower"] for r in said["results"] if r["lower"]]
    seen = [r["upper"] for r in said["results"] if r["upper"] is not None]
    return [
        ("inputs", f"{len(said['results']):,}"),
        ("least certified radius", at_least(min(certified)) if certified else "none"),
        ("least radius of an attack", at_most(min(seen)) if seen else "none"),
    ]


SIZES = {"params": "parameters", "macs": "multiply-accumulate steps", "bytes": "bytes as ONNX"}

SUMMARIES: Mapping[str, Callable[[Mapping[str, Any]], list[Line]]] = {
    "verify": _verify,
    "repair": _repair,
    "evaluate": _evaluate,
    "diff": _diff,
    "condense": _condense,
    "compress": _compress,
    "shift": _shift,
    "calibrate": _calibrate,
    "risk": _risk,
}
"""Command -> its summary."""
