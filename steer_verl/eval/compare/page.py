"""A comparison to read: Markdown, and tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from steer_verl.data.cards.markdown import inline
from steer_verl.eval import published
from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.compare.words import difference_text, title, value_text, verdict
from steer_verl.text import one_line

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SHORT = ("harmless_pass", "helpful_pass", "joint_pass", "survival", "mean_turns", "refusal_full", "correct")
"""Measures of the terminal's second table."""

MAX_NOTE = 2000
"""Characters of one note."""

Lines = list[list[str]]
"""Cells, line by line; the first is the header."""

Columns = dict[str, Callable[[Row], str]]
"""Header -> the cell of a row."""


def comparison_markdown(comparison: Comparison) -> str:
    """The whole page: who is safer at what price, who was compared, every figure, the paper's, and notes."""
    beside = [row for row in comparison.rows if row.published]
    gaps = [row for row in comparison.rows if row.differences]
    parts = ["# Comparison", *(f"- {inline(verdict(comparison, rival))}" for rival in comparison.rivals)]
    parts += [_markdown(_primary(comparison)), "## Models", _markdown(_who(comparison))]
    parts += ["## Every figure", _markdown(_table(_values(comparison), comparison.rows))]
    if gaps:
        parts += ["## Differences", _markdown(_table(_gaps(comparison, counts=True), gaps))]
    if beside:
        parts += ["## Beside the paper", _markdown(_table({**_values(comparison), **_papers()}, beside))]
    return "\n\n".join([*parts, "## Notes", *(f"- {inline(note)}" for note in comparison.notes)]) + "\n"


def comparison_table(comparison: Comparison) -> Group:
    """For a terminal: a sentence on each model, the primary figures, then the measures of :data:`SHORT` by place."""
    from rich.console import Group
    from rich.text import Text

    told = [verdict(comparison, rival) for rival in comparison.rivals]
    shown = [row for row in comparison.rows if row.measure in SHORT and row not in comparison.primary]
    first = _rich("Who is safer, and at what price", _primary(comparison))
    rest = _rich("By place", _table({**_values(comparison), **_gaps(comparison, p=False)}, shown))
    notes = [Text(one_line(note, MAX_NOTE), style="dim") for note in comparison.notes]
    return Group(*(Text(one_line(text, MAX_NOTE)) for text in told), first, rest, *notes)


def _primary(comparison: Comparison) -> Lines:
    """The primary figures: a line for each model, and for its difference to the baseline."""
    lines = [["", *(f"{row.place}: {title(row)}" for row in comparison.primary)]]
    for name, cell in {**_values(comparison), **_gaps(comparison)}.items():
        lines.append([name, *map(cell, comparison.primary)])
    return lines


def _who(comparison: Comparison) -> Lines:
    lines = [["model", "student", "judge", "attack", "dialogues", "folder"]]
    for model in comparison.models:
        for run in model.runs:
            about = run.about
            attack = f"{about.attack} {about.tutor}".strip()
            lines.append([model.name, about.student, about.judge, attack, str(len(run.dialogues)), str(run.folder)])
    return lines


def _values(comparison: Comparison) -> Columns:
    return {model.name: partial(value_text, model=model.name) for model in comparison.models}


def _gaps(comparison: Comparison, *, p: bool = True, counts: bool = False) -> Columns:
    def cell(row: Row, rival: str) -> str:
        return difference_text(row.differences.get(rival), row.about.decimals, p=p, counts=counts)

    return {f"{rival} - {comparison.baseline.name}": partial(cell, rival=rival) for rival in comparison.rivals}


def _papers() -> Columns:
    def cell(row: Row, model: str) -> str:
        return f"{row.published[model]:.2f}" if model in row.published else "-"

    return {f"paper: {model}": partial(cell, model=model) for model in published.MODELS}


def _table(columns: Columns, rows: Sequence[Row]) -> Lines:
    return [["", "", *columns], *([row.place, title(row), *(cell(row) for cell in columns.values())] for row in rows)]


def _markdown(lines: Lines) -> str:
    rows = [f"| {' | '.join(inline(one_line(text)) for text in line)} |" for line in lines]
    return "\n".join([rows[0], f"|{' --- |' * len(lines[0])}", *rows[1:]])


def _rich(heading: str, lines: Lines) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=heading, title_justify="left", box=SIMPLE_HEAD)
    for i, head in enumerate(lines[0]):
        table.add_column(Text(one_line(head)), justify="right" if i and head else "left")
    for line in lines[1:]:
        table.add_row(*(Text(one_line(cell)) for cell in line))
    return table
