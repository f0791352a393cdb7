"""The demo from start to end: what is not done is run, then three students in one table, one plot, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.demo.runner import durations, run
from steer_verl.demo.stage import Stage
from steer_verl.demo.stages import STUDENTS, TITLES, Plan, stages
from steer_verl.eval.differences import Difference, differences
from steer_verl.eval.estimate import Estimate, ranged
from steer_verl.eval.figures import Figures, figures_of
from steer_verl.eval.runs import read_run
from steer_verl.eval.summary import marked
from steer_verl.records import write_whole

if TYPE_CHECKING:
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

NOTE = (
    "{dialogues} dialogues on unseen scenes, {attacked} of them attacked ({attack}), the same for each student. "
    "Intervals: 95 %, over dialogues; differences are paired by dialogue."
)


def run_demo(out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
    """Run what is not done, then write and print the report; returns it.

    Raises:
        SteerError: a stage failed, or another demo runs in ``out``.
    """
    plan = Plan(out, seed, quick)
    todo = stages(plan)
    run(todo, out, lanes=2)  # an evaluation beside the next training, which leaves a core idle
    return write_report(plan, todo)


def write_report(plan: Plan, todo: Sequence[Stage]) -> dict[str, Any]:
    """Write the table, the plot and the page into the demo's folder and print the table; returns ``report.json``.

    Raises:
        DataError: an evaluation is not finished.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from steer_verl.plots import survival_plot
    from steer_verl.report.write import write_report as write_page

    runs = {name: read_run(plan.out / "eval" / name) for name in STUDENTS}
    figures = {name: figures_of(marked(run), run.about.mark_settings) for name, run in runs.items()}
    last = min(found.reach for found in figures.values())
    students = {name: found.estimates(last) for name, found in figures.items()}
    gain = differences(figures["grpo"], figures["sft"], last=last)
    played = runs["base"].dialogues
    report = {
        "seed": plan.seed,
        "quick": plan.quick,
        "dialogues": len(played),
        "attacked": sum(dialogue.attacked for dialogue in played),
        "survival_turn": last,
        "students": {name: _plain(found) for name, found in students.items()},
        "gain": _plain(gain),
        "seconds": durations(todo, plan.out),
    }
    write_whole(plan.out / "report.json", json.dumps(report, indent=1) + "\n")
    note = NOTE.format(**report, attack=runs["base"].about.attack)
    columns = list(students.values())
    write_whole(plan.out / "report.md", f"{table(columns, gain, last)}\n\n{note}\n")
    survival_plot(
        {TITLES[name]: curve_of(found) for name, found in figures.items()},
        plan.out / "survival.png",
        "Survival under adaptive attack",
        f"{report['attacked']} attacked dialogues on unseen scenes, the same for each student; 95 % bands",
        last,
    )
    write_page(
        [run.folder for run in runs.values()],
        plan.out / "report.html",
        training=[log for log in (plan.out / "logs" / "grpo.log",) if log.is_file()],
        title="The miniature laboratory under adaptive attack",
    )
    console = Console()
    console.print(Markdown(f"{table(columns, gain, last, intervals=False)}\n\n{note}"))
    for what, file in (("page", "report.html"), ("table", "report.md"), ("plot", "survival.png")):
        console.print(f"{what}: {plan.out / file}", highlight=False, markup=False, soft_wrap=True)
    return report


def curve_of(found: Figures) -> Curve:
    """Survival with its band, up to the last turn that a dialogue reached."""
    from steer_verl.plots import Curve

    figures, end = found.estimates(), int(found.risks_C2T[:, 1].any(axis=0).sum())
    turns = [figures[f"survival:{t}"] for t in range(1, end + 1)]
    return Curve(*([1.0, *(getattr(s, name) / 100 for s in turns)] for name in ("value", "low", "high")))


def table(
    students: Sequence[Mapping[str, Estimate]], gain: Mapping[str, Difference], last: int, *, intervals: bool = True
) -> str:
    """In Markdown: each student's measures, and what GRPO added, always with its interval; ``last`` is survival's turn.

    A terminal of 80 columns has no room for the students' ``intervals``.
    """
    lines = [["", *TITLES.values(), "GRPO - SFT"], ["---", *["---:"] * (len(students) + 1)]]
    for name, (title, decimals) in ROWS.items():
        cells = [cell(measures.get(name), decimals) for measures in students]
        cells = cells if intervals else [text.partition(" ")[0] for text in cells]
        lines.append([title.format(turn=last), *cells, cell(gain.get(name), decimals, signed=True)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(found: Estimate | Difference | None, decimals: int, *, signed: bool = False) -> str:
    """``value [low to high]``; a dash for what is undefined."""
    return ranged(found.value, found.low, found.high, decimals, signed=signed) if found else "-"


def _plain(found: Mapping[str, Estimate | Difference]) -> dict[str, Any]:
    return {name: figure.model_dump() for name, figure in found.items()}
