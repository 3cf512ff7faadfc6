"""A compression as plain values and as a picture: accuracy (or output change) against size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sutura.compression.compress import Compressed
from sutura.compression.measure import Measured
from sutura.compression.study import CompressConfig
from sutura.errors import MissingExtraError
from sutura.report.difference import difference
from sutura.verdict.difference import Difference


def account(
    name: str,
    config: CompressConfig,
    found: Sequence[Compressed],
    figures: Measured,
    moved: Sequence[Difference] = (),
) -> dict[str, Any]:
    """What was asked, what there was before, and what became of it for each target.

    `moved` are certified bounds of the change on a region, one a target, where they were asked for.
    """
    settings = {key: value for key, value in asdict(config).items() if key != "target"}
    first = found[0]
    return {
        "network": name,
        "settings": settings,
        "before": {**asdict(first.before), **_figures(figures, 0)},
        "left_alone": [asdict(part) for part in first.left],
        "compressed": [
            {**_one(made, figures, at), **({"region": difference(moved[at - 1])} if moved else {})}
            for at, made in enumerate(found, 1)
        ],
        "note": "losses, accuracies and times are estimates by sampling; only what is certified is proved",
    }


def _one(made: Compressed, figures: Measured, at: int) -> dict[str, Any]:
    return {
        "target": made.target,
        "method": made.method,
        "finish": made.finish,
        "sha256": made.network.sha256,
        **asdict(made.after),
        **_figures(figures, at),
        "largest_error": made.error,
        "output_change": made.loss,
        "seconds": asdict(made.seconds),
        "layers": [asdict(choice) for choice in made.choices],
    }


def _figures(figures: Measured, at: int) -> dict[str, float | None]:
    columns = {
        "runtime_seconds": figures.runtime,
        "torch_seconds": figures.torch,
        "accuracy": figures.accuracy,
    }
    return {key: values[at] if values else None for key, values in columns.items()}


def picture(name: str, found: Sequence[Compressed], figures: Measured) -> bytes:
    """A PNG: each target a point, by kept parameters, steps and time; accuracy, or else the output change.

    Raises MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("a picture needs matplotlib: pip install 'sutura[plot]'") from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    before = found[0].before
    heights = [100 * share for share in figures.accuracy[1:]] or [made.loss or 0.0 for made in found]
    series = {
        "parameters": [made.after.params / before.params for made in found],
        "multiply-accumulate steps": [made.after.macs / before.macs for made in found],
        "time in ONNX Runtime": [t / figures.runtime[0] for t in figures.runtime[1:]],
    }
    for (label, kept), marker in zip(series.items(), "os^", strict=True):
        points = sorted(zip(kept, heights, strict=True))
        axes.plot(*zip(*points, strict=True), marker=marker, label=label)
    if figures.accuracy:
        axes.axhline(100 * figures.accuracy[0], color="0.5", linestyle="--", label="before")
    axes.set_xlabel("share kept")
    axes.set_ylabel("accuracy, %" if figures.accuracy else "output change (estimate)")
    axes.set_title(name, parse_math=False)
    axes.legend(frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
