"""A summary to look at: a table for the terminal, and the long one in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from steer_verl.data.cards.markdown import inline
from steer_verl.eval.summary_shape import EstimateJson, MeasureAbout, SubsetJson, SummaryJson
from steer_verl.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("harmless_pass", "helpful_pass", "joint_pass", "refusal_full", "correct", "unrated")
"""Measures of the terminal's table, where they occur."""

NAMES = {"multi_turn": "mean of dialogues", "single_turn": "mean of single turns"}
"""How the averages over subsets are called."""

NEXT_LINE = "\n"
NOTE = (
    "Value over what was rated [95 %: bootstrap of whole dialogues]; below it, where something is missing, the worst "
    "and the best that it could have been."
)


def cell(estimate: EstimateJson | None, decimals: int = 1, *, bounds: str = "") -> str:
    """``value [low, high]``, and the bounds after ``bounds`` (a separator) where something is missing; a dash for what
    is unknown."""
    if estimate is None:
        return "-"
    ends = [estimate[name] for name in ("value", "low", "high")]
    value, low, high = (_number(end, decimals) for end in ends)
    text = value if ends[1] is None else f"{value} [{low}, {high}]"
    if bounds and estimate["worst"] != estimate["best"]:
        worst, best = (_number(estimate[name], decimals) for name in ("worst", "best"))
        text += f"{bounds}{worst} to {best}"
    return text


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def summary_table(summary: SummaryJson) -> Table:
    """The headline by benchmark, for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = [name for name in COLUMNS if name in summary["about"]]
    reached = any(part["survival"] for part in summary["benchmarks"].values())
    title = one_line(f"{summary['name']}: {summary['all']['dialogues']} dialogues, {summary['attack']}; in percent")
    table = Table(title=Text(title), title_justify="left", caption=NOTE, caption_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for header in ("n", *(summary["about"][name]["title"] for name in shown), *["survival to turn"] * reached):
        table.add_column(header, justify="right")
    for name, part in summary["benchmarks"].items():
        survival = [_survival(part)] * reached
        cells = [cell(part["measures"].get(m), bounds=NEXT_LINE) for m in shown]
        table.add_row(*map(Text, (one_line(name), str(part["dialogues"]), *cells, *survival)))
    for sort, mean in summary["averages"].items():
        if len(mean["benchmarks"]) > 1:
            cells = [cell(mean["measures"].get(m), bounds=NEXT_LINE) for m in shown]
            table.add_row(*map(Text, (NAMES[sort], f"{len(mean['benchmarks'])} sets", *cells)))
    return table


def _survival(part: SubsetJson) -> str:
    survival = part["survival"]
    return f"{survival['reach']}: {cell(survival['at'], bounds=NEXT_LINE)}" if survival else "-"


def summary_markdown(summary: SummaryJson) -> str:
    """Every measure of every benchmark in Markdown: value, interval, bounds, counts."""
    lines = ["| benchmark | measure | value [95 %] | worst to best | rests on |", "| --- | --- | --- | --- | --- |"]
    for name, part in summary["benchmarks"].items():
        lines += _rows(name, part["measures"], summary["about"])
        lines += _rows(name, _survival_measures(part), SURVIVAL_ABOUT)
    for sort, mean in summary["averages"].items():
        lines += _rows(f"{NAMES[sort]} ({len(mean['benchmarks'])})", mean["measures"], summary["about"])
    return "\n".join([*lines, "", f"{NOTE} {_missing(summary['all'])}", ""])


SURVIVAL_ABOUT: dict[str, MeasureAbout] = {
    name: MeasureAbout(title=title, unit=unit, decimals=decimals, per="dialogue", better="high")
    for name, title, unit, decimals in (
        ("at", "survival to turn", "%", 1),
        ("mean_turns", "turns survived", "turns", 2),
    )
}


def _survival_measures(part: SubsetJson) -> Mapping[str, EstimateJson]:
    survival = part["survival"]
    return {"at": survival["at"], "mean_turns": survival["mean_turns"]} if survival else {}


def _rows(place: str, measures: Mapping[str, EstimateJson], about: Mapping[str, MeasureAbout]) -> list[str]:
    return [markdown_row(_cells(place, estimate, about[name])) for name, estimate in measures.items()]


def _cells(place: str, estimate: EstimateJson, about: MeasureAbout) -> list[str]:
    decimals = about["decimals"]
    bounds = f"{_number(estimate['worst'], decimals)} to {_number(estimate['best'], decimals)}"
    rests = f"{estimate['n']} of {estimate['of']} {about['per']}s"
    return [place, f"{about['title']} ({about['unit']})", cell(estimate, decimals), bounds, rests]


def _missing(part: SubsetJson) -> str:
    lost = ", ".join(f"{reason} {n}" for reason, n in part["unrated"].items())
    odd = ", ".join(f"{oddity} {n}" for oddity, n in part["oddities"].items())
    told = [f"Turns without a rating: {lost or 'none'}."] + [f"Unusual rows: {odd}."] * bool(odd)
    return " ".join(told)


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table; others' words cannot be markup in it."""
    return "| " + " | ".join(map(inline, cells)) + " |"
