"""The first table: every benchmark and the averages, a row for each run, and what the paper published."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.data.cards.markup import Html, tag
from steer_verl.eval.summary_shape import EstimateJson, MeasureAbout, SummaryJson
from steer_verl.report.words import ALL, estimate_cell, subset_of, subsets

KEY = (
    "joint_pass",
    "harmless_pass",
    "helpful_pass",
    "failed_turns",
    "over_refusal",
    "correct",
    "well_formed",
    "unrated",
)
"""What the first table shows; the others are in the tables below it."""
AVERAGES = {"multi_turn": "Average, multi-turn", "single_turn": "Average, single-turn"}


def headline_section(summaries: Sequence[SummaryJson]) -> list[Html]:
    """The table of the first figures, and all measures folded beneath it."""
    about = {name: measure for summary in summaries for name, measure in summary["about"].items()}
    key = [name for name in KEY if name in about]
    said = (
        "Value, 95 % interval (bootstrap over dialogues). Where something is missing, the last line says how much and "
    )
    said += "what the figure would be if all of it had turned out badly, or well."
    rest = [name for name in about if name not in key]
    further = [tag("details", tag("summary", "All other measures"), _table("Other measures", rest, about, summaries))]
    return [
        tag("p", said, class_="quiet prose-width"),
        _table("Measures", key, about, summaries),
        *(further if rest else []),
    ]


def _table(title: str, names: Sequence[str], about: dict[str, MeasureAbout], summaries: Sequence[SummaryJson]) -> Html:
    head = tag("tr", tag("th", "", scope="col"), *(_heading(about[name]) for name in names))
    groups = [(AVERAGES[a], a) for a in AVERAGES if any(a in s["averages"] for s in summaries)]
    groups = [*groups, *((name, name) for name in subsets(summaries))]
    bodies = [_group(label, group, names, about, summaries) for label, group in groups]
    table = tag("table", tag("caption", title), tag("thead", head), *bodies, class_="headline")
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


def _heading(measure: MeasureAbout) -> Html:
    arrow = "higher is better" if measure["better"] == "high" else "lower is better"
    return tag("th", f"{measure['title']} ({measure['unit']})", tag("small", arrow), scope="col")


def _group(
    label: str, group: str, names: Sequence[str], about: dict[str, MeasureAbout], summaries: Sequence[SummaryJson]
) -> Html:
    rows = [tag("tr", tag("th", label, scope="rowgroup", colspan=len(names) + 1, dir="auto"))]
    for summary in summaries:
        found = _measures(summary, group)
        if found is None:
            continue
        cells = [estimate_cell(found.get(name), about[name]["decimals"]) for name in names]
        rows.append(tag("tr", tag("th", summary["name"], scope="row", dir="auto"), *cells))
    return tag("tbody", *rows)


def _measures(summary: SummaryJson, group: str) -> dict[str, EstimateJson] | None:
    if group in AVERAGES:
        average = summary["averages"].get(group)
        return average["measures"] if average else None
    subset = subset_of(summary, group)
    return subset["measures"] if subset else None


__all__ = ["ALL", "headline_section"]
