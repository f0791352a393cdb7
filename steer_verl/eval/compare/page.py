"""A comparison to read: Markdown, and tables for a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from steer_verl.data.cards.markdown import inline
from steer_verl.eval import published
from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.rows import ATTACKED, Row
from steer_verl.eval.compare.words import PARTS, sentences
from steer_verl.eval.differences import PRIMARY, Difference
from steer_verl.eval.estimate import ranged
from steer_verl.eval.summary_table import markdown_row
from steer_verl.text import one_line

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SHORT = (*PRIMARY, "correct")
"""Measures of the terminal's second table."""

MAX_NOTE = 2000
"""Characters of one note."""

Lines = list[list[str]]
"""Cells, line by line; the first is the header."""

Columns = dict[str, Callable[[Row], str]]
"""Header -> the cell of a row."""


def headline_markdown(comparison: Comparison) -> str:
    """Who is safer, at what price: a sentence on each model, and the primary figures."""
    told = [f"- **{inline(head).strip()}** {inline(rest)}" for head, rest in sentences(comparison)]
    return "\n\n".join([*told, _markdown(_primary(comparison))])


def comparison_markdown(comparison: Comparison) -> str:
    """The whole page: who is safer at what price, who was compared, every figure, the paper's, and notes."""
    beside = [row for row in comparison.rows if row.published]
    gaps = [row for row in comparison.rows if row.differences]
    parts = ["# Comparison", headline_markdown(comparison), "## Models", _markdown(_who(comparison))]
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

    told = [Text(one_line(head + rest, MAX_NOTE)) for head, rest in sentences(comparison)]
    attacked = {row.place for row in comparison.rows if row.measure == ATTACKED}
    rest = [row for row in comparison.rows if row.measure in SHORT and row not in comparison.primary]
    shown = [row for row in rest if row.place in attacked or row.measure not in PARTS["safety"]]
    tables = [_rich("Safety and its price", _primary(comparison))]
    if shown:
        tables.append(_rich("By place", _table({**_values(comparison), **_gaps(comparison, p=False)}, shown)))
    notes = [Text(one_line(note, MAX_NOTE), style="dim") for note in comparison.notes]
    return Group(*told, *tables, *notes)


def _primary(comparison: Comparison) -> Lines:
    """The primary figures: a line for each model, and for its difference to the baseline."""
    lines = [["", *(f"{title(row)}, {row.place}" for row in comparison.primary)]]
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
    return {model.name: partial(value_cell, model=model.name) for model in comparison.models}


def value_cell(row: Row, model: str) -> str:
    """``81.2 [78.0 to 84.1]``, bounds where something is missing, and the mean over training seeds."""
    if model not in row.values:
        return "-"
    decimals, over = row.about.decimals, row.seeds.get(model)
    seeds = f"; over seeds {ranged(over.value, over.low, over.high, decimals)}" if over else ""
    return row.values[model].text(decimals, bounds="; bounds ") + seeds


def _gaps(comparison: Comparison, *, p: bool = True, counts: bool = False) -> Columns:
    def cell(row: Row, rival: str) -> str:
        return difference_cell(row.differences.get(rival), row.about.decimals, p=p, counts=counts)

    return {f"{rival} - {comparison.baseline.name}": partial(cell, rival=rival) for rival in comparison.rivals}


def difference_cell(d: Difference | None, decimals: int, *, p: bool = True, counts: bool = False) -> str:
    """``+3.1 [+0.4 to +5.8], p 0.02 *``, what it is over seeds, and the pairs (``counts``); a dash where it is unknown.

    The star says that a primary difference is clear; a p that was not corrected says so.
    """
    if d is None or d.value is None:
        return "-"
    text = ranged(d.value, d.low, d.high, decimals, signed=True)
    if p and d.p is not None:
        shown = d.p if d.adjusted is None else d.adjusted
        said = "p < 0.001" if shown < 0.001 else f"p {shown:.3f}"
        text += f", uncorrected {said}" if d.adjusted is None else f", {said}{' *' * d.clear}"
    if over := d.over_seeds:
        text += f"; over seeds {ranged(over.value, over.low, over.high, decimals, signed=True)}"
    return text + f" ({d.pairs} pairs{f', {d.left_out} left out' * bool(d.left_out)})" * counts


def _papers() -> Columns:
    def cell(row: Row, model: str) -> str:
        return f"{row.published[model]:.2f}" if model in row.published else "-"

    return {f"paper: {model}": partial(cell, model=model) for model in published.MODELS}


def title(row: Row) -> str:
    """``harmless pass (%)``."""
    return f"{row.about.title} ({row.about.unit})"


def _table(columns: Columns, rows: Sequence[Row]) -> Lines:
    return [["", "", *columns], *([row.place, title(row), *(cell(row) for cell in columns.values())] for row in rows)]


def _markdown(lines: Lines) -> str:
    rows = [markdown_row([one_line(text) for text in line]) for line in lines]
    return "\n".join([rows[0], f"|{' --- |' * len(lines[0])}", *rows[1:]])


def _rich(heading: str, lines: Lines) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=heading, title_justify="left", box=SIMPLE_HEAD)
    for i, head in enumerate(lines[0]):
        table.add_column(Text(one_line(head)), justify="right" if i and head else "left")
    words = lines[0].count("")  # the first columns: places and measures
    for line in lines[1:]:
        cells = [one_line(cell) for cell in line]
        cells[words:] = [re.sub(r"[,;] | (?=\[)", "\n", cell) for cell in cells[words:]]
        table.add_row(*map(Text, cells))
    return table
