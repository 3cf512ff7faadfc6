"""A picture of a survey: the share of inputs at risk within each radius, and the worst inputs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float32

from sutura.errors import MissingExtraError
from sutura.network.graph import Shape
from sutura.risk.quantify import RiskResult

MISSING = "a picture needs matplotlib: pip install 'sutura[plot]'"
SHOWN = 5
"""Worst inputs drawn."""


def check_possible() -> None:
    """Raise MissingExtraError without matplotlib: ask before long work."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError(MISSING)


def risk_plot(
    title: str, results: Sequence[RiskResult], x: Float32[np.ndarray, " batch *shape"], worst: Sequence[int]
) -> bytes:
    """A PNG. Certified and attacked curves enclose the true one; the estimate's need not lie between them."""
    check_possible()
    from matplotlib.figure import Figure

    drawn = [i for i in worst if results[i].witness is not None][:SHOWN]
    figure: Any = Figure(figsize=(9, 4 + 2.2 * bool(drawn)), layout="constrained")
    grid = figure.add_gridspec(3 if drawn else 1, max(1, 2 * len(drawn)))
    curve = figure.add_subplot(grid[: 2 if drawn else 1, :])
    _curves(curve, results)
    curve.set_title(title)
    for k, i in enumerate(drawn):
        witness = results[i].witness
        assert witness is not None
        for side, (values, name) in enumerate(
            ((x[i], f"input {i}"), (witness.input, f"at {results[i].upper:.3g}"))
        ):
            place = figure.add_subplot(grid[2, 2 * k + side])
            _drawn(place, np.asarray(values).reshape(x.shape[1:]))
            place.set_title(name, fontsize=8)
            place.set_xticks([])
            place.set_yticks([])
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=120, metadata={"Software": None})
    return held.getvalue()


def _curves(place: Any, results: Sequence[RiskResult]) -> None:
    share = np.arange(1, len(results) + 1) / len(results)
    curves = {
        "attacked (a witness lies within)": [r.upper for r in results],
        "certified (none can lie within, right of the curve unknown)": [r.lower for r in results],
        "estimate": [np.nan if r.estimate is None else r.estimate for r in results],
    }
    for (name, values), style in zip(curves.items(), ("-", "-", ":"), strict=True):
        radii = np.sort(np.array(values))
        seen = np.isfinite(radii)
        if seen.any():
            place.step(radii[seen], share[: seen.sum()], style, where="post", label=name)
    place.set_xlabel("radius, in units of the domain")
    place.set_ylabel("share of inputs")
    place.set_ylim(0.0, 1.02)
    place.legend(fontsize=8)


def _drawn(place: Any, values: np.ndarray) -> None:
    """An image where the shape says so, else the numbers as a line."""
    shape: Shape = values.shape
    if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1:
        picture = np.moveaxis(values, 0, -1)
        span = float(np.ptp(picture)) or 1.0
        place.imshow((picture - picture.min()) / span, cmap="gray")
        return
    side = round(values.size**0.5)
    if side * side == values.size and side >= 6:
        place.imshow(values.reshape(side, side), cmap="gray")
    else:
        place.plot(values.ravel())
