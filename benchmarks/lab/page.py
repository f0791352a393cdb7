"""What the laboratory's pages are made of: values over training seeds, tables, the machine, the hours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np

from benchmarks.lab.arms import ARMS
from benchmarks.lab.runs import BUILT_ON, Lab, stages
from benchmarks.pages import machine, table
from steer_verl.demo.report import ROWS
from steer_verl.demo.runner import durations
from steer_verl.errors import SteerError
from steer_verl.eval.differences import Difference
from steer_verl.eval.estimate import Estimate, ranged
from steer_verl.eval.figures import Figures, over_seeds
from steer_verl.statistics.intervals import UNDEFINED, Interval, over_repetitions
from steer_verl.text import clock_text

TITLES = {
    "checkpoints": ("unbroken, mean over checkpoints (%)", 1),
    **ROWS,
    "harmless_pass": ("harmless pass (%)", 1),
    "helpful_pass": ("helpful pass (%)", 1),
}
"""Measure -> what it is called, and its decimals. ``checkpoints`` is the primary one."""

DIALOGUES = 500
"""Attacked dialogues behind each figure."""


def head(title: str, lab: Lab, seeds: Sequence[int], page: str) -> list[str]:
    """The first lines of every page.

    Raises:
        SteerError: no seed is finished.
    """
    if not seeds:
        raise SteerError(f"{lab.out}: no seed is finished")
    return [
        f"# {title}",
        f"Written by `python -m benchmarks.lab --pages {page}{' --quick' * lab.quick}` on {date.today()}; no figure is "
        f"written by hand. Machine: {machine(*BUILT_ON)}. Training seeds: "
        f"{', '.join(map(str, seeds))}; each draws its own data, order and sampling of Stages II and III, the "
        "pretrained base is one for all. All play the same dialogues on unseen scenes, greedily. Intervals: 95 %, over "
        "training seeds, each one observation; differences are paired by seed.",
    ]


def mean(name: str, found: Figures, last: int | None = None) -> Interval:
    """A measure of an arm: mean over seeds; of a single student, with the interval over its dialogues."""
    if len(found.runs) > 1:
        return over_seeds([found], last).get(name, UNDEFINED)
    figure = found.estimates(last).get(name)
    return interval(figure) if figure else UNDEFINED


def interval(found: Estimate | Difference) -> Interval:
    """With NaN for what is undefined."""
    return Interval(*(np.nan if end is None else end for end in (found.value, found.low, found.high)))


def gap(one: Mapping[int, float], other: Mapping[int, float], n: float = DIALOGUES) -> Interval:
    """``one`` minus ``other`` in points, over the seeds of both."""
    return over_repetitions([one[seed] - other[seed] for seed in one if seed in other], n, (-100.0, 100.0))


def averaged(values: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """Seed -> the mean over checkpoints."""
    return {seed: float(np.mean(each)) for seed, each in values.items()}


def text(found: Interval, name: str, *, signed: bool = False) -> str:
    """``+3.1 [+0.4 to +5.8]``."""
    return ranged(found.value, found.low, found.high, TITLES[name][1], signed=signed)


def title(name: str, reach: int = 0) -> str:
    """What a measure is called; survival is read off at the last turn that enough dialogues reach."""
    return TITLES[name][0].format(turn=reach)


def hours(lab: Lab, names: Sequence[str]) -> str:
    """How long each kind of stage of these arms took, others running beside it."""
    spent: dict[str, list[float]] = {}
    for stage in stages(replace(lab, arms=tuple(names), marked=tuple(names))):
        if seconds := durations([stage], lab.out).get(stage.name):
            name, argv = stage.name.split("/")[1], " ".join(stage.argv)
            kinds = {"eval-": "evaluation", "sft": "Stage II"}
            kind = next((kind for start, kind in kinds.items() if name.startswith(start)), "rest")
            kind = "Stage III" if "main_ppo" in argv else kind
            spent.setdefault(kind, []).append(seconds)
    rows = [
        [kind, str(len(all_)), clock_text(float(np.mean(all_))), clock_text(sum(all_))] for kind, all_ in spent.items()
    ]
    return table(["stage", "times", "each", "in all, several at a time"], rows)


def recorded(lab: Lab, names: Iterable[str]) -> str:
    """Where and how long these arms were trained and measured."""
    found = [entry for name in names for seed in lab.seeds for entry in lab.recorded.get((name, seed), ())]
    spent: dict[str, list[float]] = {}
    for entry in found:
        trainer = "fast trainer" if ARMS[entry.arm].stage == "fast" else "verl"
        spent.setdefault(trainer, []).append(entry.seconds)
    rows = [[by, str(len(all_)), clock_text(float(np.mean(all_))), clock_text(sum(all_))] for by, all_ in spent.items()]
    where = "\n".join(f"- {machine}" for machine in dict.fromkeys(entry.machine for entry in found))
    times = table(["Stage III, trained and measured by", "times", "each", "in all, several at a time"], rows)
    return f"{times}\n\nOn:\n\n{where}" if found else ""
