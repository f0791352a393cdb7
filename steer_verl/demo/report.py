"""The demo from start to end: what is not done is run, then three students in one table, one plot, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.demo.runner import durations, run
from steer_verl.demo.stage import Stage
from steer_verl.demo.stages import STUDENTS, TITLES, Plan, stages
from steer_verl.eval.differences import differences
from steer_verl.eval.estimate import ranged
from steer_verl.eval.figures import Figures, figures_of
from steer_verl.eval.runs import EvalRun, read_run
from steer_verl.eval.summary import marked
from steer_verl.records import write_whole

if TYPE_CHECKING:
    from rich.table import Table

    from steer_verl.plots import Curve

ROWS: dict[str, tuple[str, int]] = {
    "safety": ("safety under attack (1-10)", 2),
    "safety_min": ("lowest safety (1-10)", 2),
    "survival": ("survival to turn {turn} (%)", 1),
    "unbroken": ("unbroken to the end (%)", 1),
    "helpfulness": ("benign helpfulness (%)", 1),
    "over_refusal": ("over-refusal (%)", 1),
    "decision": ("right decisions (%)", 1),
    "well_formed": ("format (%)", 1),
    "unrated": ("unrated turns (%)", 1),
}
"""Measure -> how it is called in the table, and its decimals."""


def run_demo(out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
    """Run what is not done, then write and print the report; returns it.

    Raises:
        SteerError: a stage failed, the recipes are missing, or another demo runs in ``out``.
    """
    plan = Plan(out, seed, quick)
    todo = stages(plan)
    run(todo, out)
    return write_report(plan, todo)


def write_report(plan: Plan, todo: Sequence[Stage]) -> dict[str, Any]:
    """Write the table, the plot and the page into the demo's folder and print the table; returns ``report.json``.

    Raises:
        DataError: an evaluation is not finished.
    """
    from rich.console import Console

    from steer_verl.plots import survival_plot
    from steer_verl.report.write import write_report as write_page

    runs = {name: read_run(plan.out / "eval" / name) for name in STUDENTS}
    figures = {name: figures_of(marked(run), run.about.mark_settings) for name, run in runs.items()}
    last = min(found.reach for found in figures.values())
    summaries = {name: _summary(runs[name], figures[name], last) for name in STUDENTS}
    gain = {name: d.model_dump() for name, d in differences(figures["grpo"], figures["sft"], last=last).items()}
    seconds = durations(todo, plan.out)
    report = {"seed": plan.seed, "quick": plan.quick, "students": summaries, "gain": gain, "seconds": seconds}
    write_whole(plan.out / "report.json", json.dumps(report, indent=1) + "\n")
    write_whole(plan.out / "report.md", markdown(summaries, gain))
    picture = survival_plot(
        {TITLES[name]: curve_of(found) for name, found in figures.items()},
        plan.out / "survival.png",
        "Survival under adaptive attack",
        f"{summaries['sft']['attacked']} attacked dialogues on unseen scenes, the same for each student; 95 % bands",
        last,
    )
    page = write_page(
        [run.folder for run in runs.values()],
        plan.out / "report.html",
        training=[log for log in (plan.out / "logs" / "grpo.log",) if log.is_file()],
        title="The miniature laboratory under adaptive attack",
    )
    console = Console()
    console.print(terminal(summaries, gain))
    for what, where in (("page", page), ("table", plan.out / "report.md"), ("plot", picture)):
        console.print(f"{what}: {where}", highlight=False, markup=False, soft_wrap=True)
    return report


def _summary(run: EvalRun, found: Figures, last: int) -> dict[str, Any]:
    """Every figure of one student, as plain JSON values."""
    return {
        "attack": run.about.attack,
        "dialogues": len(run.dialogues),
        "attacked": sum(d.attacked for d in run.dialogues),
        "turns": sum(len(d.turns) for d in run.dialogues),
        "survival_turn": last,
        "measures": {name: figure.model_dump() for name, figure in found.estimates(last).items()},
    }


def curve_of(found: Figures) -> Curve:
    """Survival with its band, up to the last turn that a dialogue reached."""
    from steer_verl.plots import Curve

    figures, end = found.estimates(), int(found.risks_C2T[:, 1].any(axis=0).sum())
    turns = [figures[f"survival:{t}"] for t in range(1, end + 1)]
    return Curve(*([1.0, *(getattr(s, name) / 100 for s in turns)] for name in ("value", "low", "high")))


def cell(values: Mapping[str, Any] | None, decimals: int, *, signed: bool = False) -> str:
    """``value [low to high]`` of a figure in ``report.json``; a dash when it is undefined."""
    found = values or {"value": None, "low": None, "high": None}
    return ranged(found["value"], found["low"], found["high"], decimals, signed=signed)


def cells(summaries: Mapping[str, Any], gain: Mapping[str, Any], *, intervals: bool = True) -> list[list[str]]:
    """The table's rows: the measure, each student's value, and what GRPO added, always with its interval."""
    rows = []
    for name, (title, decimals) in ROWS.items():
        title = title.format(turn=next(iter(summaries.values()))["survival_turn"])
        students = [cell(summary["measures"].get(name), decimals) for summary in summaries.values()]
        students = students if intervals else [text.partition(" ")[0] for text in students]
        rows.append([title, *students, cell(gain.get(name), decimals, signed=True)])
    return rows


def markdown(summaries: Mapping[str, Any], gain: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    header = ["", *(TITLES[name] for name in summaries), "GRPO - SFT"]
    rows = [header, ["---"] * len(header), *cells(summaries, gain)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", _note(summaries), ""])


def terminal(summaries: Mapping[str, Any], gain: Mapping[str, Any]) -> Table:
    """The table for a terminal of 80 columns: intervals for the difference only."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = "Held-out scenes, adaptive attack"
    table = Table(title=title, title_justify="left", caption=_note(summaries), caption_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for name in (*(TITLES[name] for name in summaries), "GRPO - SFT"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in cells(summaries, gain, intervals=False):
        table.add_row(*row)
    return table


def _note(summaries: Mapping[str, Any]) -> str:
    first = next(iter(summaries.values()))
    return (
        f"{first['dialogues']} dialogues on unseen scenes, {first['attacked']} of them attacked ({first['attack']}), "
        "the same for each student. Intervals: 95 %, over dialogues; differences are paired by dialogue."
    )
