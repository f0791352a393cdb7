"""``card.html``: one page that needs nothing else, no network, no script. It may hold hostile text and stays harmless.

Everything is built by :mod:`~steer_verl.data.cards.markup`, which escapes; a content security policy forbids scripts,
fonts and addresses besides, in case a browser sees what we do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files

from steer_verl.data.cards import tables
from steer_verl.data.cards.about import About, limits
from steer_verl.data.cards.account import StepCounts
from steer_verl.data.cards.charts import bar, columns, stack
from steer_verl.data.cards.dialogue import tone
from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.data.cards.statistics import AXES, AxisFigures, Statistics, by_doubling, mean, quantile
from steer_verl.data.cards.tables import Cell, Table, percent, words
from steer_verl.data.licences import consequence, use_of_set

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, about: About, stats: Statistics, sections: Mapping[str, Sequence[Html]]) -> Html:
    """The whole file but for its doctype.

    Args:
        title: the set's name.
        about: the set in words.
        stats: of its rows.
        sections: heading -> what stands below it; one without anything is left out.
    """
    shown = {heading: parts for heading, parts in sections.items() if parts}
    body = [titled_section(heading, parts) for heading, parts in shown.items()]
    links = [section_link(heading) for heading in shown]
    top = tag(
        "header",
        tag("p", "Data card", class_="quiet"),
        tag("h1", title, dir="auto"),
        tag("p", about.summary, class_="lead"),
        tag("p", tag("strong", "Licence. "), consequence(stats.licenses), class_=f"use {use_of_set(stats.licenses)}"),
    )
    skip = tag("a", "Skip to the figures", href="#content", class_="skip")
    nav = tag("nav", tag("ul", *links), aria_label="Sections")
    main = tag("main", *body, id="content", tabindex="-1")
    style = (files("steer_verl.data.cards") / "card.css").read_text(encoding="utf-8")
    return tag("html", head(f"{title}: data card", POLICY, style), tag("body", skip, top, nav, main), lang="en")


def head(title: str, policy: str, style: str) -> Html:
    """A page's head: its content security policy before anything that the policy is about."""
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(style)),
    )


def titled_section(heading: str, parts: Sequence[Html]) -> Html:
    """A section with its heading, which is its anchor."""
    anchor = _anchor(heading)
    return tag("section", tag("h2", heading, id=anchor), *parts, aria_labelledby=anchor)


def section_link(heading: str) -> Html:
    """The navigation's entry for :func:`titled_section`."""
    return tag("li", tag("a", heading, href=f"#{_anchor(heading)}"))


def tiles(table: Table) -> Html:
    """The figures of a two-column table, large."""
    pairs = [tag("div", tag("dt", words(name)), tag("dd", words(value))) for name, value in table.rows]
    return tag("dl", *pairs, class_="tiles")


def table_html(table: Table) -> Html:
    """A table in a box that scrolls when it is wider than the screen; counts of a whole get their share and a bar."""
    header = [*table.header, *(["share"] if table.share_of else [])]
    head = tag("tr", *(tag("th", name, scope="col") for name in header))
    rows = [_row(row, table.share_of) for row in table.rows]
    note = [tag("p", table.note, class_="quiet")] if table.note else []
    inner = tag("table", tag("caption", table.title), tag("thead", head), tag("tbody", *rows))
    box = tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=table.title)
    return joined([box, *note])


def composition(stats: Statistics) -> list[Html]:
    """Turns, kinds, pictures as charts, in per cent; whatever has names without end as tables."""
    counted = {
        "Turns of a dialogue": (_numbered(stats.lengths), _mean(stats.lengths)),
        "Kinds of dialogue": ({name.replace("_", " ") or "none": n for name, n in sorted(stats.kinds.items())}, ""),
        "Pictures in a dialogue": (_numbered(stats.pictures), _mean(stats.pictures)),
        "Where the user's turns came from": (dict(sorted(stats.origins.items())), ""),
    }
    charts = [columns(title, counts, note) for title, (counts, note) in counted.items() if counts]
    named = [table for table in tables.composition(stats) if table.header[0] in ("strategy", "change", "category")]
    return [*_charts(charts), *map(table_html, named)]


def scores(stats: Statistics) -> list[Html]:
    """For each axis the lowest turn of a dialogue, its mean, and all turns; every count in a folded table."""
    table = tables.scores(stats)
    if not table.rows:
        return []
    charts = [chart for axis in AXES if stats.axes[axis].turns for chart in _axis_charts(axis, stats.axes[axis])]
    counts_tables = joined([table_html(tables.score_counts(stats, axis)) for axis in AXES])
    unscored = tables.by_name("Unscored turns", "reason", stats.unscored)
    extra = [table_html(unscored)] if unscored.rows else []
    folded = tag("details", tag("summary", "Counts by level"), counts_tables)
    return [table_html(table), *_charts(charts), *extra, folded]


def _axis_charts(axis: str, figures: AxisFigures) -> list[Html]:
    levels = range(1, 11)
    means = figures.mean_of_means
    shown = (
        ("lowest turn of a dialogue", figures.lowest, _mean(figures.lowest)),
        ("mean of a dialogue", figures.means, "" if means is None else f"mean {means:.2f}; columns: rounded"),
        ("every turn", figures.turns, _mean(figures.turns)),
    )
    return [
        columns(f"{axis.capitalize()}, {what}", {str(n): counts[n] for n in levels}, note, [tone(n) for n in levels])
        for what, counts, note in shown
        if counts
    ]


def texts(stats: Statistics) -> list[Html]:
    """Lengths of questions and answers."""
    pairs = (("Characters of a user turn", stats.asked_chars), ("Characters of an answer", stats.answer_chars))
    charts = [
        columns(title, {_range(*edges): n for edges, n in by_doubling(counts).items()}, _median(counts))
        for title, counts in pairs
        if counts
    ]
    return [*_charts(charts), table_html(tables.lengths_of_text(stats))] if charts else []


def work(steps: Mapping[str, StepCounts], prompts: Mapping[str, str]) -> list[Html]:
    """How the set came about: what each step took in and left out, who took part, what it cost."""
    if not steps:
        return []
    rows = [
        tag("tr", tag("th", name, scope="row"), *map(_cell, (s.given, s.kept, s.refused, s.undone)), _stacked(s))
        for name, s in steps.items()
    ]
    head = tag("tr", *(tag("th", name, scope="col") for name in (*tables.steps_table(steps).header, "")))
    inner = tag("table", tag("caption", "Steps"), tag("thead", head), tag("tbody", *rows))
    legend = [tag("span", name, class_=f"key {name}") for name in ("kept", "rejected", "undone")]
    parts = [tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label="Steps")]
    parts.append(tag("p", *legend, class_="legend"))
    rest = (tables.reasons(steps), tables.agents(steps), tables.usage(steps), tables.prompts_table(prompts))
    return parts + [table_html(table) for table in rest if table.rows]


def about_html(about: About, stats: Statistics) -> list[Html]:
    """Intended use and limits."""
    parts: list[Html] = []
    for heading, sentences in (
        ("Intended", about.intended),
        ("Not intended", about.not_intended),
        ("Limits", limits(stats)),
    ):
        parts += [tag("h3", heading), tag("ul", *(tag("li", sentence) for sentence in sentences), class_="prose")]
    return parts


def _anchor(heading: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in heading.lower())


def _row(row: tuple[Cell, ...], share_of: int) -> Html:
    cells = [tag("th", words(row[0]), scope="row", dir="auto"), *map(_cell, row[1:])]
    if share_of and isinstance(row[-1], int):
        cells.append(tag("td", tag("span", percent(row[-1], share_of)), bar(row[-1], share_of), class_="share"))
    return tag("tr", *cells)


def _cell(cell: Cell) -> Html:
    return (
        tag("td", words(cell), class_="words", dir="auto")
        if isinstance(cell, str)
        else tag("td", words(cell), class_="number")
    )


def _stacked(step: StepCounts) -> Html:
    return tag("td", stack(step.kept, step.refused, step.undone), class_="share")


def _charts(charts: list[Html]) -> list[Html]:
    if not charts:
        return []
    return [tag("p", "Numbers on the columns: per cent.", class_="quiet"), tag("div", *charts, class_="charts")]


def _numbered(counts: Counter[int]) -> dict[str, int]:
    return {str(n): counts[n] for n in range(min(counts), max(counts) + 1)} if counts else {}


def _mean(counts: Counter[int]) -> str:
    value = mean(counts)
    return "" if value is None else f"mean {value:.2f}"


def _median(counts: Counter[int]) -> str:
    value = quantile(counts, 0.5)
    return "" if value is None else f"median {value:,}"


def _range(low: int, high: int) -> str:
    return f"<{high}" if not low else f"{low}+" if low < 1024 else f"{low // 1024}k+"
