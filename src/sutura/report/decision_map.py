"""A picture of a repair: decisions over two inputs before and after, and where the gates lie."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from sutura.errors import MismatchError, MissingExtraError
from sutura.gates.evaluate import Decision, violating
from sutura.gates.rows import Rows
from sutura.property.spec import Case, Property
from sutura.verdict.replay import Runner

MISSING = "a picture needs matplotlib: pip install 'sutura[plot]'"
PIXELS = 320
BORDER = 0.35
"""Share of a box's width shown on each side of it."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The two inputs drawn, the values of all others, and how a decision is read off the scores."""

    axes: tuple[int, int]
    point: Float32[np.ndarray, " n"]
    decision: Decision


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Decisions, violations and gate rows on the grid, and its ends (left, right, bottom, top)."""

    before: Int64[np.ndarray, "rows columns"]
    after: Int64[np.ndarray, "rows columns"]
    wrong_before: Bool[np.ndarray, "rows columns"]
    wrong_after: Bool[np.ndarray, "rows columns"]
    moved: Bool[np.ndarray, "rows columns"]
    row: Int64[np.ndarray, "rows columns"]
    extent: tuple[float, float, float, float]


def check_possible(properties: Sequence[Property]) -> None:
    """Raise MissingExtraError without matplotlib, MismatchError for one input: ask before long work."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError(MISSING)
    if properties[0].inputs < 2:
        raise MismatchError("a decision map needs two inputs; this network has one")


def view(properties: Sequence[Property], point: Float32[np.ndarray, " n"] | None, decision: Decision) -> View:
    """The two inputs in which the boxes are widest, through `point` (the middle of the first box where None).

    Raises MismatchError where the boxes have fewer than two inputs.
    """
    hulls = [case.box.float32_hull() for p in properties for case in p.cases]
    width = np.max([h[1] - h[0] for h in hulls], axis=0)
    if len(width) < 2:
        raise MismatchError("a decision map needs two inputs; this network has one")
    wide = np.sort(np.argsort(-width, kind="stable")[:2])
    middle = ((hulls[0][0] + hulls[0][1]) / 2).astype(np.float32)
    return View((int(wide[0]), int(wide[1])), middle if point is None else point, decision)


def sample(networks: tuple[Runner, Runner, Rows], properties: Sequence[Property], seen: View) -> Sampled:
    """Run both networks on a grid around the boxes."""
    before, after, rows = networks
    hulls = [case.box.float32_hull() for p in properties for case in p.cases]
    ends = [_range([h[0][axis] for h in hulls], [h[1][axis] for h in hulls]) for axis in seen.axes]
    across, up = np.meshgrid(*(np.linspace(lo, hi, PIXELS, dtype=np.float32) for lo, hi in ends))
    x = np.repeat(seen.point[None], across.size, axis=0)
    x[:, seen.axes[0]], x[:, seen.axes[1]] = across.reshape(-1), up.reshape(-1)
    was, now = before(x), after(x)
    shape = across.shape
    return Sampled(
        getattr(was, seen.decision)(axis=1).reshape(shape),
        getattr(now, seen.decision)(axis=1).reshape(shape),
        violating(properties, x, was).reshape(shape),
        violating(properties, x, now).reshape(shape),
        (was != now).any(axis=1).reshape(shape),
        rows(x).reshape(shape),
        (*ends[0], *ends[1]),
    )


def _range(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    low, high = float(min(lows)), float(max(highs))
    border = BORDER * max(high - low, 1e-3)
    return low - border, high + border


def draw(sampled: Sampled, properties: Sequence[Property], seen: View, title: str) -> bytes:
    """A PNG of three panels: before, after, gates. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(MISSING) from None
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, 3, sharey=True)
    labels = sorted({*np.unique(sampled.before).tolist(), *np.unique(sampled.after).tolist()})
    share = (sampled.wrong_before.mean(), sampled.wrong_after.mean())
    _decisions(panels[0], (sampled.before, sampled.wrong_before), labels, sampled.extent)
    _decisions(panels[1], (sampled.after, sampled.wrong_after), labels, sampled.extent)
    _gates(panels[2], sampled)
    headings = (f"before: {share[0]:.2%} of this map violates", f"after: {share[1]:.2%} violates", "gates")
    for panel, heading in zip(panels, headings, strict=True):
        _frame(panel, [case for p in properties for case in p.cases], seen)
        panel.set_title(heading, fontsize=11)
    _legend(figure, labels)
    figure.suptitle(title, fontsize=12, parse_math=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _palette(labels: Sequence[int]) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["Pastel1"](label % 9) for label in labels]


def _decisions(
    panel: Any, shown: tuple[np.ndarray, np.ndarray], labels: Sequence[int], extent: tuple[float, ...]
) -> None:
    from matplotlib.colors import ListedColormap

    decisions, wrong = shown
    place = np.searchsorted(labels, decisions)
    colours = ListedColormap(_palette(labels))
    panel.imshow(
        place, origin="lower", extent=extent, aspect="auto", cmap=colours, vmin=-0.5, vmax=len(labels) - 0.5
    )
    _overlay(panel, wrong, extent, "#c1121f")


def _overlay(panel: Any, where: np.ndarray, extent: tuple[float, ...], colour: str) -> None:
    from matplotlib.colors import ListedColormap

    masked = np.ma.masked_where(~where, np.ones(where.shape))
    panel.imshow(
        masked, origin="lower", extent=extent, aspect="auto", cmap=ListedColormap([colour]), vmin=0, vmax=1
    )


def _gates(panel: Any, sampled: Sampled) -> None:
    blank = np.zeros(sampled.row.shape, bool)
    _overlay(panel, ~blank, sampled.extent, "#f4f4f2")
    _overlay(panel, sampled.row > 0, sampled.extent, "#ffb703")
    _overlay(panel, sampled.moved, sampled.extent, "#1d3557")


def _frame(panel: Any, cases: Sequence[Case], seen: View) -> None:
    from matplotlib.patches import Rectangle

    for case in cases:
        low, high = case.box.float32_hull()
        corner = (float(low[seen.axes[0]]), float(low[seen.axes[1]]))
        size = [float(high[axis]) - float(low[axis]) for axis in seen.axes]
        panel.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=1.2))
    panel.set_xlabel(f"X_{seen.axes[0]}")
    panel.label_outer()
    if panel.get_subplotspec().is_first_col():
        panel.set_ylabel(f"X_{seen.axes[1]}")


def _legend(figure: Any, labels: Sequence[int]) -> None:
    from matplotlib.patches import Patch

    entries = [Patch(color=c, label=f"Y_{label}") for c, label in zip(_palette(labels), labels, strict=True)]
    entries += [
        Patch(color="#c1121f", label="violates"),
        Patch(facecolor="none", edgecolor="black", label="property's box"),
        Patch(color="#ffb703", label="gate in place"),
        Patch(color="#1d3557", label="output moved"),
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=9, frameon=False)
