"""The first tables: every average and benchmark with a row for each model, its difference to the first one, and what
the paper published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.paired import SURE, Difference
from steer_verl.eval.compare.rows import Row
from steer_verl.report.words import estimate_parts, number
from steer_verl.statistics import Interval

KEY = ("harmless_pass", "helpful_pass", "joint_pass", "failed_turns", "over_refusal", "correct", "unrated")
"""Measures of the first table, where they occur."""
SURVIVAL = ("survival:1", "survival:3", "survival:5", "survival:8", "survival", "mean_turns")
"""Measures of the table below the survival curves."""
GENERAL = {"survival": "survival to the last turn", "mean_turns": "turns survived"}
"""What a column is called whose turn differs from row to row; each cell then says its own."""


def headline_section(comparison: Comparison) -> list[Html]:
    """The table of the first figures, notes on how to read it, and all other measures folded."""
    said = (
        "Value, 95 % interval, and n, the dialogues or turns it rests on. Where some are missing, the bounds say what "
    )
    said += "it would be if all of them had turned out badly, and well."
    if len(comparison.models) > 1:
        said += f" Δ: minus {comparison.baseline.name} on the same dialogues; bold where p, corrected, is below {SURE}."
    measures = list(dict.fromkeys(row.measure for row in comparison.rows))
    rest = [name for name in measures if name not in (*KEY, *SURVIVAL)]
    notes = tag("ul", *(tag("li", note, dir="auto") for note in comparison.notes), class_="prose quiet")
    parts = [tag("p", said, class_="quiet prose-width"), measures_table("Measures", KEY, comparison), notes]
    if rest:
        others = measures_table("Other measures", rest, comparison)
        parts.append(tag("details", tag("summary", "All other measures"), others))
    return parts


def measures_table(title: str, names: Sequence[str], comparison: Comparison) -> Html:
    """A group of rows for each average and benchmark, a column for each of ``names`` that occurs, if one does."""
    grid = _Grid(comparison, tuple(names))
    if not grid.names:
        return joined([])
    head = tag("tr", tag("th", "model", scope="col"), *map(grid.heading, grid.names))
    bodies = [grid.group(place) for place in grid.places]
    table = tag("table", tag("caption", title), tag("thead", head), *bodies, class_="headline")
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


@dataclass(frozen=True)
class _Grid:
    """Rows of a comparison by place and measure."""

    comparison: Comparison
    wanted: tuple[str, ...]

    @property
    def rows(self) -> dict[tuple[str, str], Row]:
        return {(row.place, row.measure): row for row in self.comparison.rows}

    @property
    def names(self) -> list[str]:
        found = {row.measure for row in self.comparison.rows}
        return [name for name in self.wanted if name in found]

    @property
    def places(self) -> list[str]:
        """Averages, which come last in a comparison, first."""
        places = list(dict.fromkeys(row.place for row in self.comparison.rows if row.measure in self.wanted))
        benchmarks = {name for model in self.comparison.models for name in model.found}
        return sorted(places, key=lambda place: place in benchmarks)

    def heading(self, name: str) -> Html:
        about = next(row.about for row in self.comparison.rows if row.measure == name)
        better = "higher is better" if about["better"] == "high" else "lower is better"
        title = GENERAL.get(name, about["title"])
        unit = f" ({about['unit']})" if about["unit"] not in title else ""
        return tag("th", f"{title}{unit}", tag("small", better), scope="col")

    def group(self, place: str) -> Html:
        found = {name: self.rows[place, name] for name in self.names if (place, name) in self.rows}
        title = tag("tr", tag("th", place, scope="rowgroup", colspan=len(self.names) + 1, dir="auto"))
        models = [model.name for model in self.comparison.models if any(model.name in r.values for r in found.values())]
        ours = [self._line(model, "", [self._cell(found.get(name), model) for name in self.names]) for model in models]
        papers = dict.fromkeys(paper for row in found.values() for paper in row.published)
        theirs = [
            self._line(f"paper, {paper}", "published", [self._paper(found.get(name), paper) for name in self.names])
            for paper in papers
        ]
        return tag("tbody", title, *ours, *theirs)

    def _line(self, name: str, kind: str, cells: Sequence[Html]) -> Html:
        return tag("tr", tag("th", name, scope="row", dir="auto"), *cells, class_=kind or None)

    def _cell(self, row: Row | None, model: str) -> Html:
        if row is None or model not in row.values:
            return tag("td", "-", class_="quiet")
        decimals = row.about["decimals"]
        parts = estimate_parts(row.values[model].json(), decimals)
        if row.measure in GENERAL:
            parts.insert(0, tag("small", row.about["title"]))
        parts += _over_seeds(row.seeds.get(model), decimals)
        if model in row.differences:
            parts += _difference(row.differences[model], decimals)
        return tag("td", *parts, class_="estimate")

    def _paper(self, row: Row | None, paper: str) -> Html:
        value = row.published.get(paper) if row else None
        return tag("td", "" if value is None else f"{value:.2f}", class_="number")


def _difference(gap: Difference, decimals: int) -> list[Html]:
    """``Δ +3.1 (1.0 to 5.2), p 0.012``."""
    if not math.isfinite(gap.value):
        return []
    ends = f" ({number(gap.low, decimals)} to {number(gap.high, decimals)})" if math.isfinite(gap.low) else ""
    lines = [tag("small", f"Δ {gap.value:+.{decimals}f}{ends}", class_="clear" if gap.clear else None)]
    if gap.test:
        chance = "p < 0.001" if gap.adjusted < 0.001 else f"p {gap.adjusted:.3f}"
        lines.append(tag("small", f"{chance}, {gap.pairs:,} pairs", title=gap.test))
    return lines + _over_seeds(gap.over_seeds, decimals)


def _over_seeds(interval: Interval | None, decimals: int) -> list[Html]:
    """``over seeds -2.1 to 4.7``."""
    if interval is None or not math.isfinite(interval.low):
        return []
    return [tag("small", f"over seeds {number(interval.low, decimals)} to {number(interval.high, decimals)}")]
