"""Line charts as inline SVG that takes the page's colours, and that eyes, pointer, keys and screen readers can read.

A chart is a ``slider``: its value is the place that is read, its text the figures there (charts.js moves it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from steer_verl.data.cards.markup import Html, tag

COLOURS = 6
"""Lines that page.css tells apart by colour and dashes; the seventh looks like the first, but thicker."""
MOST_POINTS = 400
"""Points at which a chart is read; a line is drawn through all of them."""

LETTER = 6.4
"""Width of a letter of an axis, in units of the drawing."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """The plane of a chart: figures -> units of the drawing, in which text is as large as on the page."""

    across: tuple[float, float]
    """First and last figure of the horizontal axis."""
    up: tuple[float, float]
    width: int = 400
    height: int = 190
    left: int = 44
    right: int = 10
    top: int = 10
    bottom: int = 24

    def x(self, value: float) -> float:
        """Where a figure stands, from the left edge."""
        return self.left + (self.width - self.left - self.right) * _part(value, self.across)

    def y(self, value: float) -> float:
        """Where a figure stands, from the upper edge."""
        return self.height - self.bottom - (self.height - self.top - self.bottom) * _part(value, self.up)


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    points: Sequence[Point]
    band: Sequence[Point] = ()
    """The outline of its interval."""


def chart(
    title: str,
    note: str,
    frame: Frame,
    lines: Sequence[Line],
    readings: Sequence[tuple[float, str]],
    *,
    across: Sequence[float],
    up: Sequence[float],
    under: Sequence[Html] = (),
) -> Html:
    """A figure with axes, bands, curves and a line that is moved to read.

    Args:
        title: what is drawn.
        note: a short second line.
        frame: the plane.
        lines: their colours follow their order.
        readings: ``(x, what the figures there are)``, from left to right.
        across: ticks of the horizontal axis.
        up: ticks of the vertical one.
        under: drawn beneath the curves, such as a zone.
    """
    shapes = [*under, *_axes(frame, across, up)]
    shapes += [outline(frame, line.band, f"band c{n % COLOURS}") for n, line in enumerate(lines)]
    shapes += [outline(frame, line.points, f"line c{n % COLOURS} d{n // COLOURS}") for n, line in enumerate(lines)]
    read = thinned(readings, MOST_POINTS)
    cursor = tag("path", d="", class_="cursor", data_height=frame.height - frame.bottom)
    drawing = tag("svg", *shapes, cursor, viewBox=f"0 0 {frame.width} {frame.height}", aria_hidden="true")
    points = json.dumps([[round(frame.x(x), 1), text] for x, text in read], separators=(",", ":"))
    first = read[0][1] if read else "nothing was logged"
    slider = tag(
        "div",
        drawing,
        role="slider",
        tabindex=0,
        aria_label=f"{title}. {note}",
        aria_valuemin=0,
        aria_valuemax=max(len(read) - 1, 0),
        aria_valuenow=0,
        aria_valuetext=first,
        data_points=points,
        class_="plot",
    )
    caption = tag("figcaption", tag("strong", title, dir="auto"), tag("span", note, class_="quiet"))
    return tag("figure", caption, slider, tag("output", class_="told"), class_="chart reading")


def legend(names: Sequence[str]) -> Html:
    """Which line is whose, in the order of their colours."""
    keys = [
        tag("li", tag("span", class_=f"swatch c{n % COLOURS} d{n // COLOURS}", aria_hidden="true"), name, dir="auto")
        for n, name in enumerate(names)
    ]
    return tag("ul", *keys, class_="legend", aria_label="Lines")


def outline(frame: Frame, points: Iterable[Point], kind: str) -> Html:
    """A curve as a path of the class ``kind``; a single point is a line to itself, which is drawn as a dot."""
    steps = [f"{'L' if n else 'M'}{_n(frame.x(x))} {_n(frame.y(y))}" for n, (x, y) in enumerate(points)]
    return tag("path", d="".join(steps) + "h0" * (len(steps) == 1), class_=kind)


def zone(frame: Frame, high: float, label: str) -> list[Html]:
    """The lower part of the plane, shaded and with its name."""
    (left, right), base = frame.across, frame.height - frame.bottom
    edge = [(left, frame.up[0]), (left, high), (right, high), (right, frame.up[0])]
    name = tag("text", label, x=_n(frame.left + 6), y=base - 6, font_size=11, class_="zone-name")
    return [outline(frame, edge, "zone"), name]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round figures that span ``low..high``: the first is at most ``low``, the last at least ``high``."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):  # no more than rounding
        low, high = (low - abs(low) / 2, low + abs(low) / 2) if abs(low) > 1e-300 else (0.0, 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for factor in (1, 2, 2.5, 5, 10) if (step := factor * power) >= rough * 0.999)
    return [step * n for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def thinned(items: Sequence[tuple[float, str]], most: int) -> list[tuple[float, str]]:
    """At most ``most`` of the items, evenly spread, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(n * (len(items) - 1) / (most - 1))] for n in range(most)]


def short(value: float) -> str:
    """A figure in few letters: 0.0012, 0.35, 12.4, 1,250."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def room(up: Sequence[float]) -> int:
    """The left margin that the names of the vertical axis need."""
    return max(Frame.left, 12 + round(LETTER * max(map(len, _names(up)))))


def _axes(frame: Frame, across: Iterable[float], up: Sequence[float]) -> list[Html]:
    lines = [outline(frame, [(x, value) for x in frame.across], "ground") for value in up]
    names = [_text(name, frame.left - 6, frame.y(value) + 4, "end") for name, value in zip(_names(up), up, strict=True)]
    return lines + names + [_text(short(x), frame.x(x), frame.height - frame.bottom + 16, "middle") for x in across]


def _names(up: Sequence[float]) -> list[str]:
    """The figures of an axis, in as many letters as tell them apart."""
    names = [short(value) for value in up]
    return names if len({*names}) == len(names) else [f"{value:.10g}" for value in up]


def _text(text: str, x: float, y: float, anchor: str) -> Html:
    return tag("text", text, x=_n(x), y=_n(y), text_anchor=anchor, font_size=11)


def _part(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return (value - low) / (high - low) if high > low else 0.5


def _n(value: float) -> str:
    return f"{value:.1f}"
