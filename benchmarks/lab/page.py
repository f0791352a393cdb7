"""What the laboratory's pages are made of: values over training seeds, tables, the machine, the hours."""

from __future__ import annotations

from collections import defaultdict
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


def over(values: Sequence[float], most: float = 100.0, least: float = 0.0) -> Interval:
    """The mean of one value a seed, on a scale with these ends."""
    return over_repetitions(values, DIALOGUES, (least, most))


def gap(one: Mapping[int, float], other: Mapping[int, float]) -> Interval:
    """``one`` minus ``other`` in points, over the seeds of both."""
    return over([one[seed] - other[seed] for seed in one if seed in other], least=-100.0)


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
    spent = defaultdict[str, list[float]](list)
    for stage in stages(replace(lab, arms=tuple(names), marked=tuple(names))):
        if seconds := durations([stage], lab.out).get(stage.name):
            name = stage.name.split("/")[1]
            kind = "evaluation" if name.startswith("eval-") else "Stage II" if name.startswith("sft") else "rest"
            spent["Stage III" if "verl.trainer.main_ppo" in stage.argv else kind].append(seconds)
    return _times("stage", spent)


def recorded(lab: Lab, names: Iterable[str]) -> str:
    """Where and how long these arms were trained and measured."""
    found = [entry for name in names for seed in lab.seeds for entry in lab.recorded.get((name, seed), ())]
    spent = defaultdict[str, list[float]](list)
    for entry in found:
        spent["fast trainer" if ARMS[entry.arm].stage == "fast" else "verl"].append(entry.seconds)
    where = "\n".join(f"- {machine}" for machine in dict.fromkeys(entry.machine for entry in found))
    return f"{_times('Stage III, trained and measured by', spent)}\n\nOn:\n\n{where}" if found else ""


def _times(what: str, spent: Mapping[str, list[float]]) -> str:
    rows = ([kind, len(all_), clock_text(float(np.mean(all_))), clock_text(sum(all_))] for kind, all_ in spent.items())
    return table([what, "times", "each", "in all, several at a time"], rows)
