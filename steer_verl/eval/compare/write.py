"""A comparison on disk: Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.eval.compare import Comparison, compare
from steer_verl.eval.compare.page import comparison_markdown, comparison_table
from steer_verl.eval.compare.words import beside
from steer_verl.eval.differences import Difference
from steer_verl.eval.runs import read_run
from steer_verl.records import write_whole
from steer_verl.text import one_line
from steer_verl.types import Record

if TYPE_CHECKING:
    from rich.console import Group

MARKDOWN, CSV, JSON = "comparison.md", "comparison.csv", "comparison.json"

COLUMNS = (
    *("place", "measure", "unit", "model", "value", "low", "high", "n", "of", "worst", "best"),
    *("difference", "difference_low", "difference_high", "pairs", "left_out", "p", "p_holm"),
    *("seeds_difference", "seeds_low", "seeds_high"),
)
"""Of the CSV; the paper's models are called ``paper: <model>``. ``p_holm``: of primary figures alone."""


def compare_folders(folders: Sequence[Path], out: Path | None = None, baseline: str | None = None) -> Group:
    """``steer eval compare``: read finished evaluations, compare them, and write the comparison into ``out`` if given.

    Returns:
        The tables for the terminal.

    Raises:
        ConfigError: see :func:`~steer_verl.eval.compare.compare`.
        DataError: see there; and a folder holds no finished evaluation.
        SteerError: ``out`` cannot be written.
    """
    comparison = compare([read_run(folder) for folder in folders], baseline)
    if out is not None:
        write_comparison(comparison, out)
    return comparison_table(comparison)


def write_comparison(comparison: Comparison, out: Path) -> tuple[Path, Path, Path]:
    """Write ``comparison.md``, ``comparison.csv`` and ``comparison.json`` into ``out``, each whole or not at all."""
    paths = out / MARKDOWN, out / CSV, out / JSON
    write_whole(paths[0], comparison_markdown(comparison))
    write_whole(paths[1], _csv(comparison))
    write_whole(paths[2], json.dumps(comparison_dict(comparison), indent=1, allow_nan=False) + "\n")
    return paths


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain JSON; what is undefined is null."""
    return {
        "version": 2,
        "models": [
            {
                "name": model.name,
                "runs": [str(run.folder) for run in model.runs],
                "about": [
                    run.about.model_dump(mode="json", include={"student", "judge", "tutor", "attack", "date"})
                    for run in model.runs
                ],
                "dialogues": sum(len(run.dialogues) for run in model.runs),
            }
            for model in comparison.models
        ],
        "baseline": comparison.baseline.name,
        "marks": comparison.baseline.runs[0].about.mark_settings.model_dump(),
        "verdicts": {rival: "".join(beside(comparison, rival)) for rival in comparison.rivals},
        "primary": [_plain(row) for row in comparison.primary],
        "rows": [_plain(row) for row in comparison.rows],
        "notes": list(comparison.notes),
    }


def _plain(record: Record) -> dict[str, Any]:
    """What JSON can hold: NaN becomes null."""
    plain: dict[str, Any] = json.loads(record.model_dump_json())
    return plain


def _csv(comparison: Comparison) -> str:
    stream = io.StringIO()
    table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in comparison.rows:
        place = {"place": row.place, "measure": row.measure, "unit": row.about.unit}
        lines: list[dict[str, Any]] = [
            {**place, "model": model, **estimate.model_dump(), **_difference_cells(row.differences.get(model))}
            for model, estimate in row.values.items()
        ]
        lines += [{**place, "model": f"paper: {model}", "value": value} for model, value in row.published.items()]
        table.writerows({name: _cell(value) for name, value in line.items()} for line in lines)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    """A number as it is; words without what a terminal obeys, and never a formula to a spreadsheet: a quote before
    them, as OWASP has it (CSV injection), unless they are a number or a range of numbers."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text[:1] in FORMULA and not re.fullmatch(r"[-+][\d.]+", text) else text


FORMULA = (*"=+-@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula: the last four are full-width."""


def _difference_cells(d: Difference | None) -> dict[str, Any]:
    if d is None:
        return {}
    over = d.over_seeds
    return {
        **{"difference": d.value, "difference_low": d.low, "difference_high": d.high},
        **{"pairs": d.pairs, "left_out": d.left_out, "p": d.p, "p_holm": d.adjusted},
        **({"seeds_difference": over.value, "seeds_low": over.low, "seeds_high": over.high} if over else {}),
    }
