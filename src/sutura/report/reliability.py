"""Pictures of calibration: reliability diagrams, and calibration error against the strength of a shift."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from sutura.calibration.protocol import Protocol
from sutura.calibration.score import BINS, Outcomes, bins_of, summary
from sutura.errors import MissingExtraError

MISSING = "a picture needs matplotlib: pip install 'sutura[plot]'"
GAP, BARS = "#c1121f", "#457b9d"


def check_possible() -> None:
    """Raise MissingExtraError without matplotlib: ask before long work."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError(MISSING)


def reliability(found: Mapping[str, Outcomes]) -> bytes:
    """A PNG with a panel a predictor: accuracy against confidence in ten bins, below how many are in each.

    Raises MissingExtraError without matplotlib.
    """
    figure = _figure((4.2 * len(found), 4.8))
    panels: Any = figure.subplots(
        2, len(found), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False
    )
    for column, (name, outcomes) in enumerate(found.items()):
        _diagram(panels[0][column], panels[1][column], outcomes)
        told = summary(outcomes)
        panels[0][column].set_title(f"{name}: ECE {told.ece:.3f}, NLL {told.nll:.3f}", fontsize=10)
        panels[1][column].set_xlabel("confidence")
    panels[0][0].set_ylabel("accuracy")
    panels[1][0].set_ylabel("samples")
    return _png(figure)


def _diagram(upper: Any, lower: Any, found: Outcomes) -> None:
    cells = bins_of(found.confidence, BINS)
    counts = np.bincount(cells, minlength=BINS)
    some = np.maximum(counts, 1)
    accuracy = np.bincount(cells, found.correct.astype(float), BINS) / some
    confidence = np.bincount(cells, found.confidence, BINS) / some
    middle, filled = (np.arange(BINS) + 0.5) / BINS, counts > 0
    upper.bar(middle[filled], accuracy[filled], 0.9 / BINS, color=BARS, label="accuracy")
    upper.plot(confidence[filled], confidence[filled], "o", color=GAP, markersize=4, label="mean confidence")
    upper.vlines(confidence[filled], accuracy[filled], confidence[filled], color=GAP, linewidth=1)
    upper.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1)
    upper.legend(fontsize=8, frameon=False, loc="upper left")
    lower.bar(middle, counts, 0.9 / BINS, color=BARS)


def bins(found: Outcomes) -> list[dict[str, float]]:
    """The ten bins of a reliability diagram: how many samples, their accuracy and mean confidence."""
    cells = bins_of(found.confidence, BINS)
    counts = np.bincount(cells, minlength=BINS)
    some = np.maximum(counts, 1)
    right = np.bincount(cells, found.correct.astype(float), BINS) / some
    sure = np.bincount(cells, found.confidence, BINS) / some
    return [
        {"samples": int(n), "accuracy": float(a), "confidence": float(c)}
        for n, a, c in zip(counts, right, sure, strict=True)
    ]


def by_strength(measured: Mapping[str, Protocol]) -> bytes:
    """A PNG with a panel a shift: calibration error against strength, a line a predictor.

    All protocols must hold the same shifts. Raises MissingExtraError without matplotlib.
    """
    shifts = [found.shift for found in next(iter(measured.values())).shifts]
    across = min(3, len(shifts))
    down = -(-len(shifts) // across)
    figure = _figure((3.6 * across, 2.8 * down))
    panels: Any = figure.subplots(down, across, sharey=True, squeeze=False)
    for index, panel in enumerate(panels.flat):
        if index >= len(shifts):
            panel.set_axis_off()
            continue
        for name, protocol in measured.items():
            errors = [s.ece for s in protocol.shifts[index].strengths]
            panel.plot(shifts[index].strengths, errors, marker="o", markersize=3, label=name)
        panel.set_title(shifts[index].name, fontsize=10)
        if shifts[index].strengths[0] > shifts[index].strengths[-1]:
            panel.invert_xaxis()
    panels[0][0].set_ylabel("ECE")
    panels[0][0].legend(fontsize=8, frameon=False)
    return _png(figure)


def _figure(size: tuple[float, float]) -> Any:
    check_possible()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
