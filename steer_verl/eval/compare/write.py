"""A comparison on disk: Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.eval.compare import Comparison, compare
from steer_verl.eval.compare.page import comparison_markdown, comparison_table
from steer_verl.eval.compare.paired import Difference
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.runs import read_run
from steer_verl.records import write_whole
from steer_verl.statistics import interval_dict

if TYPE_CHECKING:
    from rich.table import Table

MARKDOWN, CSV, JSON = "comparison.md", "comparison.csv", "comparison.json"

COLUMNS = (
    *("place", "measure", "unit", "model", "value", "low", "high", "n", "of", "worst", "best"),
    *("difference", "difference_low", "difference_high", "pairs", "left_out", "test", "p", "p_holm"),
    *("seeds_difference", "seeds_low", "seeds_high"),
)
"""Of the CSV; the paper's models are called ``paper: <model>``."""


def compare_folders(folders: Sequence[Path], out: Path | None = None, baseline: str | None = None) -> Table:
    """``steer eval compare``: read finished evaluations, compare them, and write the comparison into ``out`` if given.

    Returns:
        The table for the terminal.

    Raises:
        ConfigError: no folders, no such baseline, or scipy is not installed.
        DataError: a folder holds no finished evaluation.
    """
    comparison = compare([read_run(folder) for folder in folders], baseline)
    if out is not None:
        write_comparison(comparison, out)
    return comparison_table(comparison)


def write_comparison(comparison: Comparison, out: Path) -> tuple[Path, Path, Path]:
    """Write ``comparison.md``, ``comparison.csv`` and ``comparison.json`` into ``out``, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    paths = out / MARKDOWN, out / CSV, out / JSON
    write_whole(paths[0], comparison_markdown(comparison))
    write_whole(paths[1], _csv(comparison))
    write_whole(paths[2], json.dumps(comparison_dict(comparison), indent=1, allow_nan=False) + "\n")
    return paths


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain JSON; what is undefined is null."""
    return {
        "version": 1,
        "models": [
            {
                "name": model.name,
                "runs": [str(run.folder) for run in model.runs],
                "about": [
                    run.about.model_dump(mode="json", include={"student", "judge", "tutor", "attack", "date"})
                    for run in model.runs
                ],
                "dialogues": len(model.marks),
            }
            for model in comparison.models
        ],
        "baseline": comparison.baseline.name,
        "marks": comparison.baseline.runs[0].about.mark_settings.model_dump(),
        "rows": [_row_dict(row) for row in comparison.rows],
        "notes": list(comparison.notes),
    }


def _row_dict(row: Row) -> dict[str, Any]:
    return {
        "place": row.place,
        "measure": row.measure,
        "about": row.about,
        "values": {model: estimate.json() for model, estimate in row.values.items()},
        "differences": {model: _difference_dict(d) for model, d in row.differences.items()},
        "published": dict(row.published),
        "seeds": {model: interval_dict(interval) for model, interval in row.seeds.items()},
    }


def _difference_dict(d: Difference) -> dict[str, Any]:
    over = None if d.over_seeds is None else interval_dict(d.over_seeds)
    return {**_plain(vars(d)), "over_seeds": over}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _csv(comparison: Comparison) -> str:
    stream = io.StringIO()
    table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in comparison.rows:
        place = {"place": row.place, "measure": row.measure, "unit": row.about["unit"]}
        for model, estimate in row.values.items():
            table.writerow(
                {**place, "model": model, **estimate.json(), **_difference_cells(row.differences.get(model))}
            )
        for model, value in row.published.items():
            table.writerow({**place, "model": f"paper: {model}", "value": value})
    return stream.getvalue()


def _difference_cells(d: Difference | None) -> dict[str, Any]:
    if d is None:
        return {}
    named = {"difference": d.value, "difference_low": d.low, "difference_high": d.high, "p": d.p, "p_holm": d.adjusted}
    over = {} if d.over_seeds is None else interval_dict(d.over_seeds)
    seeds = {"seeds_difference": over.get("value"), "seeds_low": over.get("low"), "seeds_high": over.get("high")}
    return {**_plain(named), "pairs": d.pairs, "left_out": d.left_out, "test": d.test, **seeds}
