"""Tables of measures: every average and benchmark with a row for each model, its difference to the first one, and what
the paper published; the tests stand apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.data.cards.page import table_html
from steer_verl.data.cards.tables import Table
from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.differences import Difference
from steer_verl.eval.estimate import ranged
from steer_verl.report.parts import estimate_cell, grid, line, quiet
from steer_verl.statistics.intervals import Interval

KEY = ("harmless_pass", "helpful_pass", "joint_pass", "failed_turns", "over_refusal", "correct", "unrated")
"""Measures of the first table, where they occur."""
SURVIVAL = ("survival:1", "survival:3", "survival:5", "survival:8", "survival", "mean_turns")
"""Measures of the table on survival."""
NOTE = (
    "Value, 95 % interval, and n, the dialogues or turns it rests on. Where some are missing, the bounds say what it "
    "would be if all of them had turned out badly, and well."
)
TESTED = (
    "Paired permutation, two-sided. Only the primary measures, those of the first screen, are corrected for their "
    "number (Holm): of many uncorrected tests some are small by chance."
)
GENERAL = {"survival": "survival to the last turn", "mean_turns": "turns survived"}
"""What a column is called whose turn differs from row to row; each cell then says its own."""


def measures_section(comparison: Comparison) -> list[Html]:
    """The key figures and survival; folded, all other measures and the tests."""
    rivals = f" Δ: minus {comparison.baseline.name} on the same dialogues; bold where a primary one is clear."
    benchmarks = {name for model in comparison.models for name in model.figures}
    places = dict.fromkeys(row.place for row in comparison.rows)
    averages = [place for place in places if place not in benchmarks]
    first = list(dict.fromkeys([*averages, *(row.place for row in comparison.primary)]))
    others = [place for place in places if place not in first]
    rest = list(dict.fromkeys(row.measure for row in comparison.rows if row.measure not in (*KEY, *SURVIVAL)))
    folded = {
        "Other benchmarks": [
            measures_table("Key measures by benchmark", KEY, others, comparison),
            measures_table("Survival in figures by benchmark", SURVIVAL, others, comparison),
        ],
        "All other measures": [measures_table("Other measures", rest, [*first, *others], comparison)],
        "Tests of all differences": [_tests(comparison)],
    }
    return [
        quiet(f"{NOTE}{rivals * bool(comparison.rivals)}"),
        measures_table("Key measures", KEY, first or others, comparison),
        measures_table("Survival in figures", SURVIVAL, first or others, comparison),
        *(tag("details", tag("summary", title), *parts) for title, parts in folded.items() if any(parts)),
    ]


def measures_table(title: str, names: Sequence[str], places: Iterable[str], comparison: Comparison) -> Html:
    """A group of rows for each of ``places``, a column for each of ``names`` that occurs there, if one does."""
    rows = {(row.place, row.measure): row for row in comparison.rows}
    found = {place: {name: rows[place, name] for name in names if (place, name) in rows} for place in places}
    columns = {name: next((some[name] for some in found.values() if name in some), None) for name in names}
    heads = {name: row for name, row in columns.items() if row}
    if not heads:
        return joined([])
    models = [model.name for model in comparison.models]
    groups = [_group(place, [some.get(name) for name in heads], models) for place, some in found.items() if some]
    return grid(title, "headline", ["model", *map(_heading, heads.values())], *groups)


def _heading(row: Row) -> Html:
    title, unit = GENERAL.get(row.measure, row.about.title), row.about.unit
    better = tag("small", f"{'higher' if row.about.better == 'high' else 'lower'} is better")
    return tag("th", title if unit in title else f"{title} ({unit})", better, scope="col")


def _group(place: str, rows: Sequence[Row | None], models: Sequence[str]) -> Html:
    title = tag("tr", tag("th", place, scope="rowgroup", colspan=len(rows) + 1, dir="auto"))
    known = [row for row in rows if row]
    there = [model for model in models if any(model in row.values for row in known)]
    papers = dict.fromkeys(paper for row in known for paper in row.published)
    ours = [line(model, *(_cell(row, model) for row in rows)) for model in there]
    theirs = [line(f"paper, {paper}", *(_published(row, paper) for row in rows), kind="published") for paper in papers]
    return tag("tbody", title, *ours, *theirs)


def _cell(row: Row | None, model: str) -> Html:
    if row is None or model not in row.values:
        return tag("td", "-", class_="quiet")
    more = [*_over_seeds(row.seeds.get(model), row), *_difference(row.differences.get(model), row)]
    title = row.about.title if row.measure in GENERAL else ""
    return estimate_cell(row.values[model], row.about.decimals, *more, title=title)


def _published(row: Row | None, paper: str) -> Html:
    value = row.published.get(paper) if row else None
    return tag("td", "" if value is None else f"{value:.2f}", class_="number")


def _difference(gap: Difference | None, row: Row) -> Iterator[Html]:
    """``Δ +3.1 [+1.0 to +5.2]``."""
    if gap and gap.value is not None:
        said = ranged(gap.value, gap.low, gap.high, row.about.decimals, signed=True)
        yield tag("small", f"Δ {said}", class_="clear" if gap.clear else None)
        yield from _over_seeds(gap.over_seeds, row)


def _over_seeds(interval: Interval | None, row: Row) -> Iterator[Html]:
    if interval and math.isfinite(interval.low):
        decimals = row.about.decimals
        yield tag("small", f"over seeds {interval.low:.{decimals}f} to {interval.high:.{decimals}f}")


def _tests(comparison: Comparison) -> Html:
    """Every difference with its pairs and p; corrected for their number alone the primary ones."""
    header = ("where", "measure", "model", "difference", "pairs", "p, uncorrected", "p, corrected")
    rows = []
    for row, model, gap in ((r, *found) for r in comparison.rows for found in r.differences.items()):
        if gap.value is not None and gap.p is not None:
            said = ranged(gap.value, gap.low, gap.high, row.about.decimals, signed=True)
            rows.append((row.place, row.about.title, model, said, gap.pairs, _p(gap.p), _p(gap.adjusted)))
    title = f"Differences to {comparison.baseline.name}"
    return table_html(Table(title, header, rows, note=TESTED)) if rows else joined([])


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
