"""The first screen as a plot: a panel for each primary measure, in it a row for each model with dot and interval.

A panel is a table: whoever cannot see the drawing is told its figures. Places in it are percentages of its width, so
that it fits any screen while its text stays as large as the page's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.compare.words import thing
from steer_verl.eval.estimate import Estimate
from steer_verl.report.charts import COLOURS

HEIGHT = 24
"""Of a row, in pixels."""
WIDTH = 18
"""Letters of a name that fit beside the plot; longer ones stand above it."""
GRID = range(0, 101, 25)
ENDS = {0: "start", 100: "end"}
KEY = "Bar: 95 % interval. Dotted: if all that was not played or not rated had turned out badly, or well."


def dots(rows: Sequence[Row], colours: Mapping[str, int]) -> Html:
    """The plot.

    Args:
        rows: the primary ones.
        colours: model, in their order -> number of its colour all over the page.
    """
    if not rows:
        return joined([])
    first = rows[0].place
    long = any(len(name) > WIDTH for name in colours)
    panels = [_panel(row, colours, row.place if row.place != first else "", long) for row in rows]
    where = "Measured on" if all(row.place == first for row in rows) else "Unless said otherwise"
    key = tag("p", f"{where}: {first}. {KEY}", class_="quiet small", dir="auto")
    return joined([tag("div", *panels, class_="dots"), key])


def _panel(row: Row, colours: Mapping[str, int], place: str, long: bool) -> Html:
    title = thing(row)
    caption = tag("caption", f"{title[0].upper()}{title[1:]} (%)", tag("small", place, dir="auto"))
    ours = [_model(name, colour, row.values.get(name), row.about.decimals) for name, colour in colours.items()]
    axis = [tag("text", mark, x=f"{mark}%", y=16, text_anchor=ENDS.get(mark, "middle")) for mark in GRID]
    better = "more is better" if row.about.better == "high" else "fewer is better"
    foot = tag("tr", tag("td"), tag("td", _drawing(axis)), tag("td", better, class_="quiet"))
    body = tag("tbody", *ours, *_papers(row.published))
    return tag("table", caption, body, tag("tfoot", foot), class_=f"panel{' long' * long}")


def _model(name: str, colour: int, found: Estimate | None, decimals: int) -> Html:
    if found is None or found.value is None:
        rated = f"unknown, {found.bounds(decimals)}" if found and found.n else "not rated"
        figures = [tag("span", rated if found else "not measured")]
    else:
        figures = [tag("b", found.number(decimals)), tag("span", found.interval(decimals))]
    return _row(name, _shapes(found, f"c{colour % COLOURS}") if found else [], figures, "estimate")


def _shapes(found: Estimate, colour: str) -> Iterator[Html]:
    middle, bounds = HEIGHT / 2, (found.worst, found.best) if found.bounds(1) else (None, None)
    for (left, right), kind in ((bounds, "bound"), ((found.low, found.high), "range")):
        if left is not None and right is not None:
            yield _line(left, right, middle, middle, f"{kind} {colour}")
    if found.value is not None:
        yield tag("circle", cx=f"{found.value:.2f}%", cy=middle, r=5, class_=f"dot {colour}")


def _papers(published: Mapping[str, float]) -> Iterator[Html]:
    """A row of thin marks for each size of model in the paper."""
    for size in dict.fromkeys(name.partition(" ")[0] for name in published):
        known = {name.partition(" ")[2]: value for name, value in published.items() if name.startswith(f"{size} ")}
        marks = [_line(value, value, 4, HEIGHT - 4, "mark") for value in known.values()]
        yield _row(f"paper {size}", marks, [", ".join(f"{name} {v:.1f}" for name, v in known.items())], "published")


def _row(name: str, shapes: Iterable[Html], figures: Sequence[str], kind: str) -> Html:
    grid = [_line(mark, mark, 0, HEIGHT, "ground") for mark in GRID]
    head = tag("th", name, scope="row", dir="auto")
    return tag("tr", head, tag("td", _drawing([*grid, *shapes])), tag("td", *figures), class_=kind)


def _drawing(shapes: Sequence[Html]) -> Html:
    return tag("svg", joined(shapes), width="100%", height=HEIGHT, aria_hidden="true", class_="track")


def _line(left: float, right: float, top: float, base: float, kind: str) -> Html:
    return tag("line", x1=f"{left:.2f}%", x2=f"{right:.2f}%", y1=top, y2=base, class_=kind)
