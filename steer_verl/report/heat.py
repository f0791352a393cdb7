"""Tables of counts whose cells are coloured by their share; the number always stands in the cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.data.cards.tables import percent
from steer_verl.eval.shape import Heat, Strategy, Subset, Summary
from steer_verl.report.measures import estimate_cell
from steer_verl.report.words import ALL, subset_of, subsets

DEPTH = 60
"""Per cent of colour in a cell of 100 %: more, and its number would be hard to read."""

ASKED = {
    "seed": "opening question",
    "static": "benchmark's own",
    "fallback": "benchmark's own, in place of the tutor's",
}
"""Questions that follow no strategy."""


def heat_section(summaries: Sequence[Summary]) -> list[Html]:
    """For every run how many answers got which harmless mark at which turn; benchmarks one by one are folded."""
    first, *rest = subsets(summaries) or [ALL]
    said = "Answers by harmless mark; below each count its share of the turn. Colour: the share."
    parts = [tag("p", said, class_="quiet"), _side_by_side(first, summaries)]
    folded = [tag("details", tag("summary", name), _side_by_side(name, summaries)) for name in rest]
    return [*parts, *folded]


def strategy_section(summaries: Sequence[Summary]) -> list[Html]:
    """For every run how often an attack succeeded, by the tutor's strategy and by turn."""
    tables = [_strategies(s.name, s.all) for s in summaries if s.all.strategies]
    if not tables:
        return []
    said = "Turns of attacked dialogues by how the question came about. An attack succeeds when the answer's harmless "
    said += "mark is a failure; by turn: failures of rated answers, coloured by their share."
    return [tag("p", said, class_="quiet prose-width"), *tables]


def _side_by_side(name: str, summaries: Sequence[Summary]) -> Html:
    found = [(s.name, subset) for s in summaries if (subset := subset_of(s, name))]
    return tag("div", *(_marks(f"{run}, {name}", subset.heat) for run, subset in found), class_="charts wide")


def _marks(title: str, heat: Heat) -> Html:
    """Marks down, turns across."""
    head = tag("tr", tag("th", "mark, by turn", scope="col"), *(tag("th", t, scope="col") for t in heat.turns))
    totals = [sum(row) for row in heat.harmless]
    rows = []
    for column, mark in enumerate(heat.harmless_marks):
        cells = [_share(row[column], total) for row, total in zip(heat.harmless, totals, strict=True)]
        rows.append(tag("tr", tag("th", mark, scope="row"), *cells))
    return _table(title, head, rows, "heat")


def _share(count: int, total: int) -> Html:
    share = count / total if total else 0
    words = [f"{count:,}", tag("small", percent(count, total))] if count else [tag("span", "0", class_="quiet")]
    return tag("td", *words, style=_colour("bar", share))


def _strategies(run: str, subset: Subset) -> Html:
    turns = range(len(subset.by_turn))
    names = ("failed", "success (%)", *(f"{'turn ' if t == 0 else ''}{t + 1}" for t in turns))
    head = tag("tr", tag("th", "question", scope="col"), *(tag("th", name, scope="col") for name in names))
    rows = [tag("tr", *_strategy(name, strategy, turns)) for name, strategy in subset.strategies.items()]
    total = [estimate_cell(share, 1, short=True) for share in subset.by_turn]
    blank = [tag("td")] * 2
    last = tag("tr", tag("th", "all, failed (%)", scope="row"), *blank, *total, class_="total")
    return _table(f"Attack success, {run}", head, [*rows, last], "heat strategies")


def _strategy(name: str, strategy: Strategy, turns: range) -> Iterator[Html]:
    yield tag("th", ASKED.get(name, name.replace("_", " ")), scope="row")
    yield tag("td", f"{strategy.failed:,}", class_="number")
    yield estimate_cell(strategy.success, 1)
    for t in turns:
        rated, failed = strategy.by_turn[t] if t < len(strategy.by_turn) else (0, 0)
        text = f"{failed}/{rated}" if rated else ""
        yield tag("td", text, style=_colour("fair", failed / rated if rated else 0))


def _table(title: str, head: Html, rows: Sequence[Html], kind: str) -> Html:
    table = tag("table", tag("caption", title, dir="auto"), tag("thead", head), tag("tbody", joined(rows)), class_=kind)
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


def _colour(name: str, share: float) -> str | None:
    return f"background:color-mix(in srgb,var(--{name}) {DEPTH * share:.0f}%,transparent)" if share else None
