"""Small charts as SVG text: no script, the colours of their page, readable at the width of a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 360
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 24, 34
HEIGHT = 214
ROW = 34

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A named line through points; `steps` joins them by steps, `dots` marks them, `colour` is 1 to 3."""

    name: str
    points: Sequence[Point]
    colour: int = 1
    steps: bool = False
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar from `low` to `high`, what it is, and the figure told of it."""

    label: str
    high: float
    told: str
    low: float = 0.0
    colour: int = 1


def bars(title: str, rows: Sequence[Bar]) -> Markup:
    """Horizontal bars, one under the other, labels above them; all on one scale."""
    low, high = min([0.0, *(b.low for b in rows)]), max([0.0, *(b.high for b in rows)])
    span = (high - low) or 1.0
    parts: list[Markup] = []
    for at, row in enumerate(rows):
        x, width = WIDTH * (row.low - low) / span, WIDTH * (row.high - row.low) / span
        parts.append(
            Markup(
                '<text x="0" y="{y}">{label}</text><text x="{end}" y="{y}" text-anchor="end">{told}</text>'
                '<rect class="c{colour}" x="{x:.1f}" y="{top}" width="{width:.1f}" height="10" rx="2"/>'
            ).format(
                y=ROW * at + 14, label=row.label, end=WIDTH, told=row.told, colour=row.colour, x=x,
                top=ROW * at + 19, width=max(width, 0.8),
            )
        )  # fmt: skip
    return _svg(title, ROW * len(rows) + 2, parts)


def lines(title: str, axes: tuple[str, str], drawn: Sequence[Series], *, square: bool = False) -> Markup:
    """Lines over two axes with a legend below; `square` draws the unit square with its diagonal."""
    points = [p for s in drawn for p in s.points]
    right = 1.0 if square else max((x for x, _ in points), default=1.0) or 1.0
    top = 1.0 if square else max((y for _, y in points), default=1.0) or 1.0

    def placed(point: Point) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point[0] / right
        return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * point[1] / top

    parts = [_axes(axes, right, top)]
    if square:
        parts.append(_path([placed((0.0, 0.0)), placed((1.0, 1.0))], "guide"))
    for at, series in enumerate(drawn):
        parts += _series(series, [placed(p) for p in series.points])
        parts.append(
            Markup('<rect class="c{c}" x="{x}" y="{y}" width="10" height="10" rx="2"/>').format(
                c=series.colour, x=LEFT, y=HEIGHT + 18 * at
            )
        )
        parts.append(_text(LEFT + 16, HEIGHT + 18 * at + 9, series.name))
    return _svg(title, HEIGHT + 18 * len(drawn), parts)


def _series(series: Series, places: Sequence[tuple[float, float]]) -> list[Markup]:
    walked = list(places)
    if series.steps and places:
        walked = [places[0]]
        for x, y in places[1:]:
            walked += [(x, walked[-1][1]), (x, y)]
    found = [_path(walked, f"l{series.colour}")]
    if series.dots:
        spot = Markup('<circle class="c{c}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        found += [spot.format(c=series.colour, x=x, y=y) for x, y in places]
    return found


def _axes(axes: tuple[str, str], right: float, top: float) -> Markup:
    base, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    frame = _path([(LEFT, TOP), (LEFT, base), (end, base)], "axis")
    return Markup("").join(
        [
            frame,
            _text(LEFT - 4, TOP + 9, f"{top:.3g}", "end"),
            _text(LEFT - 4, base, "0", "end"),
            _text(end, base + 14, f"{right:.3g}", "end"),
            _text((LEFT + end) / 2, base + 14, axes[0], "middle"),
            _text(LEFT, TOP - 9, axes[1]),
        ]
    )


def _path(places: Sequence[tuple[float, float]], kind: str) -> Markup:
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, steps)


def _text(x: float, y: float, said: str, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, said)


def _svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    inside = Markup("").join(parts)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, f"{height:g}", escape(title), inside
    )
