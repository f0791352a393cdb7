"""A summary to look at: a table for the terminal, and the long one in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from steer_verl.data.cards.markdown import inline
from steer_verl.eval.estimate import Estimate, spelled
from steer_verl.eval.shape import MeasureAbout, Subset, Summary
from steer_verl.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("harmless_pass", "helpful_pass", "joint_pass", "refusal_full", "correct", "unrated")
"""Measures of the terminal's table, where they occur."""

NAMES = {"multi_turn": "mean of dialogues", "single_turn": "mean of single turns"}
"""How the averages over subsets are called."""

NEXT_LINE = "\n"
NOTE = (
    "Value over what was rated [95 % interval over dialogues]; below it, where something is missing, the worst and the "
    "best that it could have been."
)

SURVIVAL_ABOUT = {
    "survival": MeasureAbout(title="survival to turn", unit="%", decimals=1, per="dialogue", better="high"),
    "mean_turns": MeasureAbout(title="turns survived", unit="turns", decimals=2, per="dialogue", better="high"),
}
"""How the figures of survival are called, before the turn."""


def cell(estimate: Estimate | None, decimals: int = 1, *, bounds: str = "") -> str:
    """:meth:`Estimate.text`, or a dash for what does not apply."""
    return "-" if estimate is None else estimate.text(decimals, bounds=bounds)


def summary_table(summary: Summary) -> Table:
    """The headline by benchmark, for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = [name for name in COLUMNS if name in summary.about]
    reached = any(part.survival for part in summary.benchmarks.values())
    title = one_line(f"{summary.name}: {summary.all.dialogues} dialogues, {summary.attack}; in percent")
    table = Table(title=Text(title), title_justify="left", caption=NOTE, caption_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for header in ("n", *(summary.about[name].title for name in shown), *["survival to turn"] * reached):
        table.add_column(header, justify="right")
    for name, part in summary.benchmarks.items():
        survival = [_survival(part)] * reached
        cells = [cell(part.measures.get(m), bounds=NEXT_LINE) for m in shown]
        table.add_row(*map(Text, (one_line(name), str(part.dialogues), *cells, *survival)))
    for sort, mean in summary.averages.items():
        if len(mean.benchmarks) > 1:
            cells = [cell(mean.measures.get(m), bounds=NEXT_LINE) for m in shown]
            table.add_row(*map(Text, (NAMES[sort], f"{len(mean.benchmarks)} sets", *cells)))
    return table


def _survival(part: Subset) -> str:
    return f"{part.survival.reach}: {cell(part.survival.at, bounds=NEXT_LINE)}" if part.survival else "-"


def summary_markdown(summary: Summary) -> str:
    """Every measure of every benchmark in Markdown: value, interval, bounds, counts."""
    lines = ["| benchmark | measure | value [95 %] | worst to best | rests on |", "| --- | --- | --- | --- | --- |"]
    for name, part in summary.benchmarks.items():
        lines += _rows(name, part.measures, summary.about)
        if part.survival:
            figures = {"survival": part.survival.at, "mean_turns": part.survival.mean_turns}
            lines += _rows(name, figures, SURVIVAL_ABOUT, f" {part.survival.reach}")
    for sort, mean in summary.averages.items():
        if len(mean.benchmarks) > 1:
            lines += _rows(f"{NAMES[sort]} ({len(mean.benchmarks)})", mean.measures, summary.about)
    return "\n".join([*lines, "", f"{NOTE} {_missing(summary.all)}", ""])


def _rows(
    place: str, figures: Mapping[str, Estimate], abouts: Mapping[str, MeasureAbout], turn: str = ""
) -> Iterator[str]:
    for name, figure in figures.items():
        about = abouts[name]
        title = f"{about.title}{turn if name == 'survival' else ''} ({about.unit})"
        bounds = f"{spelled(figure.worst, about.decimals)} to {spelled(figure.best, about.decimals)}"
        rests = f"{figure.n} of {figure.of} {about.per}s"
        yield markdown_row([place, title, cell(figure, about.decimals), bounds, rests])


def _missing(part: Subset) -> str:
    lost = ", ".join(f"{inline(reason)} {n}" for reason, n in part.unrated.items())
    odd = ", ".join(f"{inline(oddity)} {n}" for oddity, n in part.oddities.items())
    told = [f"Turns without a rating: {lost or 'none'}."] + [f"Unusual rows: {odd}."] * bool(odd)
    return " ".join(told)


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table; others' words cannot be markup in it."""
    return "| " + " | ".join(map(inline, cells)) + " |"
