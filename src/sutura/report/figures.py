"""The charts of each command's JSON document: (heading, SVG)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from sutura.report.chart import Bar, Series, bars, lines
from sutura.report.summary import SIZES

Figure = tuple[str, Markup]


def figures(run: str, document: Mapping[str, Any]) -> list[Figure]:
    """Charts of a document of the command `run`; none where there is nothing to draw."""
    return FIGURES[run](document) if run in FIGURES else []


def sizes(measured: list[dict[str, Any]]) -> Markup:
    """Bytes after each stage that changes the network."""
    told = "bytes after each stage"
    return bars(told, [Bar(s["after"], s["bytes"], f"{s['bytes']:,} bytes") for s in measured])


def _compress(said: Mapping[str, Any]) -> list[Figure]:
    before, found = said["before"], []
    for made in said["compressed"]:
        rows = [
            Bar(SIZES[k], made[k] / before[k], f"{made[k]:,} of {before[k]:,} ({made[k] / before[k]:.0%})")
            for k in SIZES
        ]
        if before["runtime_seconds"]:
            now, was = made["runtime_seconds"], before["runtime_seconds"]
            rows.append(
                Bar("time in ONNX Runtime (estimate)", now / was, f"{now / was:.0%} of before", 0.0, 2)
            )
        if before["accuracy"] is not None:
            told = f"{before['accuracy']:.2%} before, {made['accuracy']:.2%} after"
            rows.append(Bar("accuracy (estimate)", made["accuracy"], told, 0.0, 3))
        found.append((f"Kept, at target {made['target']:g}", bars("shares kept", rows)))
    points = [(m["params"] / before["params"], m["accuracy"]) for m in said["compressed"]]
    if len(points) > 1 and before["accuracy"] is not None:
        curve = Series("accuracy", [*sorted(points), (1.0, before["accuracy"])], dots=True)
        found.append(
            ("Accuracy against size", lines("accuracy", ("share of parameters", "accuracy"), [curve]))
        )
    return found


def _calibrate(said: Mapping[str, Any]) -> list[Figure]:
    if "reliability" not in said:
        return []
    drawn = [
        Series(name, [(b["confidence"], b["accuracy"]) for b in said["reliability"][name] if b["samples"]],
               colour, dots=True)
        for name, colour in (("before", 2), ("after", 1))
    ]  # fmt: skip
    chart = lines("reliability", ("mean confidence", "accuracy"), drawn, square=True)
    return [("Reliability on held-out samples (the dashed line is perfect)", chart)]


def _risk(said: Mapping[str, Any]) -> list[Figure]:
    results = said["results"]
    drawn: list[Series] = []
    for key, name, colour in (
        ("upper", "attacked: harm lies within", 2),
        ("lower", "certified: none within", 1),
    ):
        radii = sorted(r[key] for r in results if r[key] is not None)
        points = [(radius, (at + 1) / len(results)) for at, radius in enumerate(radii)]
        if points:
            drawn.append(Series(name, [(0.0, 0.0), *points], colour, steps=True))
    if not drawn:
        return []
    return [("Share of inputs by radius", lines("radii", ("radius", "share of inputs"), drawn))]


def _diff(said: Mapping[str, Any]) -> list[Figure]:
    rows: list[Bar] = []
    for at, output in enumerate(said["outputs"][:MOST_OUTPUTS]):
        for name, colour in (("separate", 3), ("certified", 1), ("seen", 2)):
            low, high = output[name]
            rows.append(Bar(f"Y_{at}, {NAMES[name]}", high, f"{low:.3g} to {high:.3g}", low, colour))
    return [("first - second, output by output", bars("differences of the outputs", rows))]


def _condense(said: Mapping[str, Any]) -> list[Figure]:
    rows: list[Bar] = []
    for layer in said["layers"]:
        tight = layer["counts"][0]
        rows.append(Bar(layer["node"], layer["neurons"], f"{layer['neurons']} neurons", 0.0, 3))
        rows.append(Bar("", tight["lines"], f"on {tight['lines']} lines"))
    return [("Neurons, and the lines they lie on", bars("neurons and lines", rows))]


def _shift(said: Mapping[str, Any]) -> list[Figure]:
    rows = [
        Bar(layer["name"], layer["relative_error"], f"{layer['relative_error']:.1%}")
        for layer in said["layers"][:MOST_LAYERS]
    ]
    return [("Relative error of the weights, layer by layer", bars("error of each layer", rows))]


def _evaluate(said: Mapping[str, Any]) -> list[Figure]:
    rows: list[Bar] = []
    for speed in said["speed"]:
        for name, colour in (("before", 3), ("after", 1)):
            time = speed[name] * 1e6
            rows.append(Bar(f"batch {speed['batch']}, {name}", time, f"{time:,.1f} µs", 0.0, colour))
    return [("Time of a run in ONNX Runtime (estimate)", bars("run times", rows))] if rows else []


MOST_OUTPUTS = 5
MOST_LAYERS = 20
NAMES = {"separate": "by separate bounds", "certified": "certified", "seen": "seen"}

FIGURES: Mapping[str, Callable[[Mapping[str, Any]], list[Figure]]] = {
    "compress": _compress,
    "calibrate": _calibrate,
    "risk": _risk,
    "diff": _diff,
    "condense": _condense,
    "shift": _shift,
    "evaluate": _evaluate,
}
"""Command -> its charts."""
