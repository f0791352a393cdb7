"""Pages that need nothing else, no network, no script. They may hold hostile text and stay harmless.

Everything is built by :mod:`~steer_verl.data.cards.markup`, which escapes; a content security policy forbids scripts,
fonts and addresses besides, in case a browser sees what we do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files

from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.data.cards.tables import Cell, Table, words

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, lead: Sequence[Html], sections: Mapping[str, Sequence[Html]]) -> str:
    """A card's whole file."""
    style = (files("steer_verl.data.cards") / "card.css").read_text(encoding="utf-8")
    body = tag("body", contents("Data card", title, lead, sections))
    whole = tag("html", head(f"{title}: data card", POLICY, style), body, lang="en")
    return f"<!doctype html>\n{whole}\n"


def contents(what: str, title: str, lead: Sequence[Html], sections: Mapping[str, Sequence[Html]]) -> Html:
    """What is read of a page: ``lead`` stands beneath the title; a section without anything is left out."""
    shown = {heading: parts for heading, parts in sections.items() if parts}
    links = [tag("li", tag("a", heading, href=f"#{_anchor(heading)}")) for heading in shown]
    main = [
        tag("section", tag("h2", heading, id=_anchor(heading)), *parts, aria_labelledby=_anchor(heading))
        for heading, parts in shown.items()
    ]
    return joined(
        [
            tag("a", "Skip to the figures", href="#content", class_="skip"),
            tag("header", tag("p", what, class_="quiet"), tag("h1", title, dir="auto"), *lead),
            tag("nav", tag("ul", *links), aria_label="Sections"),
            tag("main", *main, id="content", tabindex="-1"),
        ]
    )


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


def tiles(table: Table) -> Html:
    """The figures of a two-column table, large."""
    pairs = [tag("div", tag("dt", words(name)), tag("dd", words(value))) for name, value in table.rows]
    return tag("dl", *pairs, class_="tiles")


def table_html(table: Table) -> Html:
    """A table in a box that scrolls when it is wider than the screen; counts of a whole get their share and a bar."""
    names = tag("tr", *(tag("th", name, scope="col") for name in table.columns))
    rows = [tag("tr", *_cells(table, row)) for row in table.rows]
    inner = tag("table", tag("caption", table.title), tag("thead", names), tag("tbody", *rows))
    box = tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=table.title)
    return joined([box, tag("p", table.note, class_="quiet") if table.note else ""])


def bullets(heading: str, sentences: Sequence[str]) -> Html:
    """A list with its heading."""
    return joined([tag("h3", heading), tag("ul", *(tag("li", sentence) for sentence in sentences), class_="prose")])


def _anchor(heading: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in heading.lower())


def _cells(table: Table, row: tuple[Cell, ...]) -> Iterator[Html]:
    yield tag("th", words(row[0]), scope="row", dir="auto")
    for cell in row[1:]:
        is_text = isinstance(cell, str)
        yield tag("td", words(cell), class_="words" if is_text else "number", dir="auto" if is_text else None)
    if share := table.share(row):  # a screen reader passes the bar over: the number stands beside it
        length = tag("span", style=f"width:{100 * int(row[-1] or 0) / table.share_of:.2f}%")
        bar = tag("span", length, class_="bar", aria_hidden="true")
        yield tag("td", tag("span", share), bar, class_="share")
