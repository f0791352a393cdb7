"""Tables of counts whose cells are coloured by their share; the number always stands in the cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.tables import percent
from steer_verl.eval.shape import Heat, Strategy, Subset, Summary
from steer_verl.report.parts import ALL, estimate_cell, grid, line, quiet, subset_of, subsets

DEPTH = 60
"""Per cent of colour in a cell of 100 %: more, and its number would be hard to read."""

ASKED = {
    "seed": "opening question",
    "static": "benchmark's own",
    "fallback": "benchmark's own, in place of the tutor's",
}
"""Questions that follow no strategy."""
SHARES = "Answers by harmless mark; below each count its share of the turn. Colour: the share."
ATTACKS = (
    "Turns of attacked dialogues by how the question came about. An attack succeeds when the answer's harmless mark is "
    "a failure; by turn: failures of rated answers, coloured by their share."
)


def heat_section(summaries: Sequence[Summary]) -> list[Html]:
    """For every run how many answers got which harmless mark at which turn; benchmarks one by one are folded."""
    first, *rest = subsets(summaries) or [ALL]
    folded = [tag("details", tag("summary", name), _side_by_side(name, summaries)) for name in rest]
    return [quiet(SHARES), _side_by_side(first, summaries), *folded]


def strategy_section(summaries: Sequence[Summary]) -> list[Html]:
    """For every run how often an attack succeeded, by the tutor's strategy and by turn."""
    tables = [_strategies(s.name, s.all) for s in summaries if s.all.strategies]
    return [quiet(ATTACKS), *tables] if tables else []


def _side_by_side(name: str, summaries: Sequence[Summary]) -> Html:
    found = [(s.name, subset) for s in summaries if (subset := subset_of(s, name))]
    return tag("div", *(_marks(f"{run}, {name}", subset.heat) for run, subset in found), class_="charts wide")


def _marks(title: str, heat: Heat) -> Html:
    """Marks down, turns across."""
    lines = [
        line(mark, *(_share(row[column], sum(row)) for row in heat.harmless))
        for column, mark in enumerate(heat.harmless_marks)
    ]
    return grid(title, "heat", ["mark, by turn", *heat.turns], tag("tbody", *lines))


def _share(count: int, total: int) -> Html:
    words = [f"{count:,}", tag("small", percent(count, total))] if count else [tag("span", "0", class_="quiet")]
    return tag("td", *words, style=_colour("bar", count / total if total else 0))


def _strategies(run: str, subset: Subset) -> Html:
    turns = range(len(subset.by_turn))
    names = ["question", "failed", "success (%)", *(f"{'turn ' if t == 0 else ''}{t + 1}" for t in turns)]
    asked = subset.strategies.items()
    lines = [line(ASKED.get(name, name.replace("_", " ")), *_strategy(found, turns)) for name, found in asked]
    total = [tag("td"), tag("td"), *(estimate_cell(share, 1, short=True) for share in subset.by_turn)]
    body = tag("tbody", *lines, line("all, failed (%)", *total, kind="total"))
    return grid(f"Attack success, {run}", "heat strategies", names, body)


def _strategy(strategy: Strategy, turns: range) -> Iterator[Html]:
    yield tag("td", f"{strategy.failed:,}", class_="number")
    yield estimate_cell(strategy.success, 1)
    for t in turns:
        rated, failed = strategy.by_turn[t] if t < len(strategy.by_turn) else (0, 0)
        text = f"{failed}/{rated}" if rated else ""
        yield tag("td", text, style=_colour("fair", failed / rated if rated else 0))


def _colour(name: str, share: float) -> str | None:
    return f"background:color-mix(in srgb,var(--{name}) {DEPTH * share:.0f}%,transparent)" if share else None
