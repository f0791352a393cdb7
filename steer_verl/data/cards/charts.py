"""Charts of the page as inline SVG: they take its colours, light or dark, and a screen reader hears their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.tables import percent

WIDTH, HEIGHT = 360, 168
"""Of a chart, in its own units; text is as large as on the page when it is that many pixels wide."""
TOP, BOTTOM, LABEL = 22, 24, 12


def columns(title: str, counts: Mapping[str, int], note: str = "", tones: Sequence[str] = ()) -> Html:
    """A column for each name, in the mapping's order, as high as its share.

    Args:
        title: what is counted.
        counts: name below the column -> count.
        note: a short line beside the title, such as the mean.
        tones: a class for each column (``bad``, ``fair``), which the style sheet colours; by default all are alike.
    """
    total, most = sum(counts.values()), max(counts.values(), default=0)
    step = WIDTH / max(len(counts), 1)
    width = min(step - 4, 46)
    shown = [
        _column(name, count, total, (HEIGHT - TOP - BOTTOM) * count / max(most, 1), step * (i + 0.5), width, tone)
        for i, ((name, count), tone) in enumerate(zip(counts.items(), _padded(tones, len(counts)), strict=True))
    ]
    heard = f"{title}: " + "; ".join(f"{name}: {count:,}, {percent(count, total)}" for name, count in counts.items())
    ground = tag("line", x1=0, x2=WIDTH, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="ground")
    picture = tag("svg", *shown, ground, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=heard)
    caption = tag("figcaption", tag("strong", title), tag("span", note, class_="quiet"))
    return tag("figure", caption, picture, class_="chart")


def bar(count: int, total: int) -> Html:
    """A bar in a table's cell: the cell beside it says the number, so a screen reader passes it over."""
    share = 100 * count / total if total else 0
    return tag("span", tag("span", style=f"width:{share:.2f}%"), class_="bar", aria_hidden="true")


def stack(kept: int, rejected: int, undone: int) -> Html:
    """A step's items as one bar of three parts."""
    total = max(kept + rejected + undone, 1)
    parts = (("kept", kept), ("rejected", rejected), ("undone", undone))
    shown = [tag("span", class_=name, style=f"width:{100 * n / total:.2f}%") for name, n in parts if n]
    return tag("span", *shown, class_="bar stack", aria_hidden="true")


def _column(name: str, count: int, total: int, height: float, centre: float, width: float, tone: str) -> Html:
    base = HEIGHT - BOTTOM
    left = centre - width / 2
    hover = tag("title", f"{name}: {count:,} ({percent(count, total)})")
    size = {"x": _n(left), "y": _n(base - height), "width": _n(width), "height": _n(height)}
    parts = [tag("rect", hover, class_=f"column {tone}".strip(), rx=2, **size)]
    if count:
        share = 100 * count / total
        label = "<1" if share < 0.95 else f"{share:.0f}"
        parts.append(_text(label, centre, base - height - 5, "value"))
    parts.append(_text(name, centre, HEIGHT - 8, "name"))
    return tag("g", *parts)


def _text(text: str, x: float, y: float, kind: str) -> Html:
    return tag("text", text, x=_n(x), y=_n(y), text_anchor="middle", font_size=LABEL, class_=kind)


def _n(value: float) -> str:
    return f"{value:.1f}"


def _padded(tones: Sequence[str], count: int) -> list[str]:
    return [*tones[:count], *[""] * (count - len(tones))]
