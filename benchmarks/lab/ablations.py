"""ablations.md: the method without one of its parts, each difference paired by training seed, beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.lab import page
from benchmarks.lab.arms import ARMS, PLAIN
from benchmarks.lab.page import averaged, gap, mean, text, title
from benchmarks.lab.runs import Lab
from benchmarks.pages import table, write
from steer_verl.demo.report import curve_of
from steer_verl.eval.differences import Difference, differences
from steer_verl.eval.figures import Figures, values_by_seed
from steer_verl.plots import forest_plot, survival_plot
from steer_verl.statistics.intervals import UNDEFINED, Interval

FULL = "grpo"
PARTS = {
    PLAIN: "TCSR",
    "static": "Feedback dynamics",
    "no_bootstrap": "Bootstrapping",
    "single_turn": "Dialogues instead of single turns",
    "sft": "Stage III, all of it",
}
"""Arm that lacks it -> the part."""

NEEDS = ("base", "sft", FULL, PLAIN, "static", "no_bootstrap", "sft_single_turn", "single_turn")
MARKED = True
HEADLINE = ("checkpoints", "unbroken", "helpfulness")
"""Measures that are judged: how many dialogues hold, on the way and at the end, and at what price in help."""

SHOWN = ("safety", "survival", "unbroken", "helpfulness", "over_refusal", "decision", "well_formed")
BESIDE = ("harmless_pass", "helpful_pass")
"""The paper's two measures."""

PAPER = {
    FULL: (55.58, 70.27),
    PLAIN: (51.09, 65.91),
    "static": (51.09, 63.96),
    "no_bootstrap": (24.48, 42.44),
    "single_turn": (17.14, 32.39),
    "sft": (41.61, 57.57),
}
"""Safety and helpfulness of the paper's 3B student: per cent of dialogues that pass, mean of five multi-turn sets."""

CURVES = ("base", "sft", FULL, PLAIN, "single_turn")
"""Whose survival is drawn."""


class Found(NamedTuple):
    """What was measured, over the finished seeds."""

    adaptive: Mapping[str, Figures]
    static: Mapping[str, Figures]
    """Empty where no seed was asked."""
    checkpoints: Mapping[str, Mapping[int, float]]
    """Arm -> seed -> unbroken dialogues, mean over the checkpoints."""

    def change(self, measure: str, arm: str) -> Interval:
        """A measure of an arm minus that of the full method; of a single seed, with the interval over its dialogues."""
        if measure == "checkpoints":
            return gap(self.checkpoints[arm], self.checkpoints[FULL])
        return _over(self.adaptive, arm, measure)


def write_page(lab: Lab, folder: Path) -> list[Path]:
    """The page and its plots.

    Raises:
        SteerError: no seed is finished.
    """
    seeds = lab.finished(NEEDS)
    parts = page.head("Ablations in the miniature laboratory", lab, seeds, "ablations")
    found, asked = read(lab, seeds), lab.finished(NEEDS, "static")
    reach = found.adaptive[FULL].reach
    parts += [
        "What each option changes: [recipes/ablations](../recipes/ablations/README.md).",
        "## Does each part help?",
        "Without the part minus the full method; below zero the part helps. GRPO is paid by the tutor's "
        "scores; whether a dialogue is unbroken and an answer helpful says the judge. Not corrected for the "
        "number of comparisons.",
        answers(found),
        "![differences to the full method](ablations.png)",
        "## Students under adaptive attack",
        students(found.adaptive, SHOWN, reach),
        "![survival by turn](ablations_survival.png)",
    ]
    if found.static:
        note = f"Without the attack: the seeds' own questions. Training seeds {', '.join(map(str, asked))}."
        parts += ["## Students under static questions", note, students(found.static, (*SHOWN[2:], *BESIDE), reach)]
    parts += ["## Beside the paper", beside(found), "## Time", page.hours(lab, NEEDS)]
    write(target := folder / "ablations.md", *parts)
    count = f"{page.DIALOGUES} attacked dialogues, {len(seeds)} training seeds"
    arms = {arm: ARMS[arm].title for arm in NEEDS if arm != FULL}
    rows = {
        title(measure): {name: (found.change(measure, arm), each(found, measure, arm)) for arm, name in arms.items()}
        for measure in HEADLINE
    }
    note = f"difference to the full method in points, mean and 95 % interval over seeds, each seed; {count}"
    curves = {ARMS[arm].title: curve_of(found.adaptive[arm]) for arm in CURVES}
    what, bands, path = "Survival under adaptive attack", f"{count}; 95 % bands", folder / "ablations_survival.png"
    plots = [forest_plot(rows, folder / "ablations.png", note), survival_plot(curves, path, what, bands, reach)]
    return [target, *plots]


def read(lab: Lab, seeds: Sequence[int]) -> Found:
    """Everything of these seeds."""
    asked = lab.finished(NEEDS, "static")
    return Found(
        {arm: lab.figures(arm, seeds) for arm in NEEDS},
        {arm: lab.figures(arm, asked, attack="static") for arm in NEEDS if asked},
        {arm: averaged(lab.unbroken(arm, seeds)) for arm in NEEDS},
    )


def _over(figures: Mapping[str, Figures], arm: str, measure: str) -> Interval:
    found = _differences(figures[arm], figures[FULL])[measure]
    if len(figures[FULL].runs) > 1 and len(figures[arm].runs) > 1:
        return found.over_seeds or UNDEFINED
    return page.interval(found)


@lru_cache(maxsize=64)
def _differences(one: Figures, other: Figures) -> dict[str, Difference]:
    return differences(one, other)


def each(found: Found, measure: str, arm: str) -> list[float]:
    """The difference in each seed; NaN where it is undefined."""
    if measure == "checkpoints":
        return [found.checkpoints[arm][seed] - value for seed, value in found.checkpoints[FULL].items()]
    one, full = (values_by_seed([found.adaptive[name]]) for name in (arm, FULL))
    return [one[seed][measure] - full[seed][measure] for seed in full if seed in one]


def verdict(found: Interval) -> str:
    """What the interval allows to say of the part that is missing; of a measure that should be high."""
    return "helps" if found.high < 0 else "hurts" if found.low > 0 else "no evidence"


def answers(found: Found) -> str:
    """One line for each part: what is lost without it, and what that allows to say."""
    rows = []
    for arm, part in PARTS.items():
        changes = {measure: found.change(measure, arm) for measure in HEADLINE}
        rows.append([part, *(f"{text(c, name, signed=True)}<br>{verdict(c)}" for name, c in changes.items())])
    return table(["part", *map(title, HEADLINE)], rows)


def students(figures: Mapping[str, Figures], names: Sequence[str], reach: int) -> str:
    """Measures of each arm."""
    rows = [[ARMS[arm].title, *(text(mean(name, found), name) for name in names)] for arm, found in figures.items()]
    return table(["mean over seeds", *(title(name, reach) for name in names)], rows)


def beside(found: Found) -> str:
    """The paper's two measures here and there: on static questions, as there, where they were asked."""
    ours = found.static or found.adaptive
    rows = []
    for arm, part in PARTS.items():
        changes = [_over(ours, arm, measure) for measure in BESIDE]
        theirs = [PAPER[arm][i] - PAPER[FULL][i] for i in (0, 1)]
        signs = [
            "open" if c.low <= 0 <= c.high else "same" if c.value * their > 0 else "**other**"
            for c, their in zip(changes, theirs, strict=True)
        ]
        cells = [text(c, name, signed=True) for c, name in zip(changes, BESIDE, strict=True)]
        rows.append([part, *cells, *(f"{their:+.2f}" for their in theirs), *signs])
    header = ["part", "harmless pass", "helpful pass", "paper: safety", "paper: helpfulness"]
    header += ["sign of safety", "sign of helpfulness"]
    return (
        "Share of dialogues whose mean mark passes (harmless 2.8 of -3..3, helpful 2.5 of 0..3), without the part "
        f"minus full, in points: here under {'static questions' if found.static else 'the adaptive attack'}, in the "
        "paper a 3B student under static questions, judged by a model. Another world, other marks: signs can be "
        "compared, sizes cannot. *Open*: the interval holds zero.\n\n" + table(header, rows)
    )
