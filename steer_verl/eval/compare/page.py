"""A comparison to read: Markdown, and a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from steer_verl.data.cards.markdown import inline
from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.paired import Difference
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.contributions import Estimate
from steer_verl.eval.published import MODELS, SINGLE_TURN_AVERAGE
from steer_verl.eval.summary_shape import EstimateJson
from steer_verl.eval.summary_table import NAMES, NEXT_LINE, cell, markdown_row
from steer_verl.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

SHORT = ("harmless_pass", "helpful_pass", "joint_pass", "survival", "mean_turns", "refusal_full", "correct")
"""Measures of the terminal's table."""

MAX_NOTE = 2000
"""Characters of one note."""


def comparison_markdown(comparison: Comparison) -> str:
    """The whole page: who was compared, every figure, the paper's, and what a reader must know."""
    names = [model.name for model in comparison.models]
    parts = ["# Comparison", _who(comparison), _table(["", "", *names], comparison, _values)]
    rivals = [name for name in names if name != comparison.baseline.name]
    if rivals:
        header = ["", "", *(f"{name} - {comparison.baseline.name}" for name in rivals)]
        parts += ["## Differences", _table(header, comparison, _gaps)]
    if any(row.published for row in comparison.rows):
        parts += ["## Beside the paper", _table(["", "", *names, *MODELS], comparison, _beside)]
    if any(row.place.startswith(NAMES["single_turn"]) for row in comparison.rows):
        parts.append(_single_turn())
    return "\n\n".join([*parts, "## Notes", *(f"- {inline(note)}" for note in comparison.notes)]) + "\n"


def _who(comparison: Comparison) -> str:
    rows = [["model", "student", "judge", "attack", "dialogues", "folder"]]
    for model in comparison.models:
        for run in model.runs:
            about = run.about
            attack = f"{about.attack} {about.tutor}".strip()
            rows.append([model.name, about.student, about.judge, attack, str(len(run.dialogues)), str(run.folder)])
    return _markdown(rows)


def _table(header: list[str], comparison: Comparison, cells: Callable[[Row, Comparison], list[str]]) -> str:
    found = [cells(row, comparison) for row in comparison.rows]
    return _markdown([header, *(row for row in found if row)])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [markdown_row([one_line(text) for text in row]) for row in rows]
    return "\n".join([lines[0], "| " + " | ".join(["---"] * len(rows[0])) + " |", *lines[1:]])


def _values(row: Row, comparison: Comparison) -> list[str]:
    return [row.place, f"{row.about['title']} ({row.about['unit']})", *_estimates(row, comparison)]


def _estimates(row: Row, comparison: Comparison) -> list[str]:
    figures = [row.values.get(model.name) for model in comparison.models]
    decimals = row.about["decimals"]
    return [
        cell(_json(figure), decimals, bounds="; bounds ") + _seeds(row, model.name, decimals)
        for figure, model in zip(figures, comparison.models, strict=True)
    ]


def _json(figure: Estimate | None) -> EstimateJson | None:
    return figure.json() if figure else None


def _seeds(row: Row, model: str, decimals: int) -> str:
    interval = row.seeds.get(model)
    if interval is None or not math.isfinite(interval.low):
        return ""
    return f"; over seeds {interval.value:.{decimals}f} [{interval.low:.{decimals}f}, {interval.high:.{decimals}f}]"


def _gaps(row: Row, comparison: Comparison) -> list[str]:
    if not row.differences:
        return []
    rivals = [model.name for model in comparison.models if model is not comparison.baseline]
    cells = [difference_cell(row.differences.get(name), row.about["decimals"], counts=True) for name in rivals]
    return [row.place, f"{row.about['title']} ({row.about['unit']})", *cells]


def difference_cell(d: Difference | None, decimals: int, *, counts: bool = False) -> str:
    """``+3.1 [+0.4, +5.8], p 0.02 *``, and what it is over seeds: the star says that the difference is clear
    (:attr:`~steer_verl.eval.compare.paired.Difference.clear`); a dash for what is unknown."""
    if d is None or not math.isfinite(d.value):
        return "-"
    text = f"{d.value:+.{decimals}f} [{d.low:+.{decimals}f}, {d.high:+.{decimals}f}]"
    if math.isfinite(d.adjusted):
        p = "p < 0.001" if d.adjusted < 0.001 else f"p {d.adjusted:.3f}"
        text += f", {p}{' *' if d.clear else ''}"
    over = d.over_seeds
    if over is not None and math.isfinite(over.low):
        text += f"; over seeds {over.value:+.{decimals}f} [{over.low:+.{decimals}f}, {over.high:+.{decimals}f}]"
    if counts:
        text += f" ({d.test + ', ' if d.test else ''}{d.pairs} pairs{f', {d.left_out} left out' * bool(d.left_out)})"
    return text


def _beside(row: Row, comparison: Comparison) -> list[str]:
    if not row.published:
        return []
    papers = [f"{row.published[name]:.2f}" if name in row.published else "-" for name in MODELS]
    ours = [cell(_json(figure), 1) for figure in (row.values.get(m.name) for m in comparison.models)]
    return [row.place, row.about["title"], *ours, *papers]


def _single_turn() -> str:
    said = [f"{model} {harmless:.2f} / {helpful:.2f}" for model, (harmless, helpful) in SINGLE_TURN_AVERAGE.items()]
    return (
        "The paper's single-turn means (harmless / helpful pass) over five sets that it need not share with these: "
        f"{'; '.join(said)}."
    )


def comparison_table(comparison: Comparison) -> Table:
    """The headline for a terminal: the measures of :data:`SHORT`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    caption = Text("\n".join(one_line(note, MAX_NOTE) for note in comparison.notes))
    table = Table(title="Comparison", title_justify="left", caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    names = [model.name for model in comparison.models]
    rivals = [name for name in names if name != comparison.baseline.name]
    table.add_column("")
    table.add_column("")
    for name in (*names, *(f"{name} - {comparison.baseline.name}" for name in rivals)):
        table.add_column(Text(one_line(name)), justify="right")
    last = ""
    for row in comparison.rows:
        if row.measure in SHORT:
            decimals = row.about["decimals"]
            values = [row.values.get(name) for name in names]
            cells = [cell(_json(value), decimals, bounds=NEXT_LINE) for value in values]
            gaps = [difference_cell(row.differences.get(name), decimals) for name in rivals]
            place = one_line(row.place) if row.place != last else ""
            table.add_row(*map(Text, (place, f"{row.about['title']} ({row.about['unit']})", *cells, *gaps)))
            last = row.place
    return table
