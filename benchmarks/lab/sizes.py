"""sizes.md: students of three sizes before and after each stage, to see what size alone does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.lab import page
from benchmarks.lab.arms import ARMS, BEFORE
from benchmarks.lab.runs import Lab
from benchmarks.pages import table, write
from steer_verl.plots import COLOURS, INK, dress, sheet

NEEDS = tuple(name for name, arm in ARMS.items() if arm.size)
MARKED = False

MEASURES = {
    "unbroken": ("unbroken (%)", 100.0, 1),
    "helpfulness": ("helpfulness (%)", 100.0, 1),
    "reward": ("reward", 1.0, 3),
}
"""Figure of a student -> what it is called, its greatest value, its decimals."""

Students = Mapping[str, Sequence[Mapping[int, Mapping[str, float]]]]
"""Size -> seed by seed, checkpoint -> figures; those of :data:`BEFORE` came before Stage III."""


def write_page(lab: Lab, folder: Path) -> list[Path]:
    """The page and its plot.

    Raises:
        SteerError: no seed is finished.
    """
    seeds = lab.on_the_way(*NEEDS)
    parts = page.head("Students of three sizes", lab, seeds, "sizes")
    found = {ARMS[name].size: [lab.students(name, seed) for seed in seeds] for name in NEEDS}
    parts += [
        "1.1, 2.1 and 4.7 million weights; `2m` is the recipe's student. Stage III by the fast trainer "
        "(benchmarks/lab/fast.py), all by the recipe's settings, which were chosen for `2m`. *Reward* is the mean turn "
        "reward under attack.",
        stages(found),
        "What a stage adds, paired by seed:",
        gains(found),
        "![unbroken dialogues by stage and step](sizes.png)",
        "## Time",
        page.recorded(lab, NEEDS),
    ]
    write(target := folder / "sizes.md", *parts)
    return [target, plot(found, folder / "sizes.png", len(seeds))]


def stages(found: Students) -> str:
    """A line for each student."""
    rows = []
    for size, seeds in found.items():
        last = max(seeds[0])
        for after, step in (*zip(("base", "SFT"), BEFORE, strict=True), ("SFT + GRPO", last)):
            cells = [
                f"{page.over([seed[step][name] for seed in seeds], top):.{digits}f}"
                for name, (_, top, digits) in MEASURES.items()
            ]
            rows.append([size, after, *cells])
    return table(["weights", "after", *(title for title, _, _ in MEASURES.values())], rows)


def gains(found: Students) -> str:
    """Differences of unbroken dialogues and helpfulness between a stage and the one before."""
    rows = []
    for size, seeds in found.items():
        steps = (*BEFORE, max(seeds[0]))
        for (before, after), stage in zip(pairwise(steps), ("Stage II", "Stage III"), strict=True):
            cells = []
            for name in ("unbroken", "helpfulness"):
                changes = [seed[after][name] - seed[before][name] for seed in seeds]
                cells.append(f"{page.over(changes, least=-100.0):+.1f}")
            rows.append([size, stage, *cells])
    return table(["weights", "stage", "unbroken, points", "helpfulness, points"], rows)


def plot(found: Students, path: Path, count: int) -> Path:
    """Unbroken dialogues before Stage III and at its checkpoints: the mean of each size, a thin line a seed."""
    figure, (axes,) = sheet(1, (7.6, 4.4))
    for (size, seeds), colour in zip(found.items(), COLOURS, strict=False):
        courses = [[at["unbroken"] for at in seed.values()] for seed in seeds]
        for course in courses:
            axes.plot(course, color=colour, linewidth=0.8, alpha=0.4)
        axes.plot(np.mean(courses, axis=0), "o-", color=colour, linewidth=2.4, markersize=4.5, label=f"{size} weights")
    steps = [step for step in next(iter(found.values()))[0] if step > 0]
    axes.set(ylim=(0, 102), xticks=range(len(steps) + 2))
    axes.set_xticklabels(["base", "SFT", *(f"GRPO {step}" for step in steps)], color=INK)
    axes.set_ylabel("unbroken dialogues (%)", color=INK)
    axes.legend(frameon=False, loc="lower right")
    dress(axes, "What size alone does, and what training does", f"{count} training seeds, a thin line each")
    figure.savefig(path)
    return path
