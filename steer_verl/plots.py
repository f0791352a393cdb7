"""Figures. matplotlib is imported by who draws, never by who imports the package."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from steer_verl.statistics.intervals import Interval
from steer_verl.text import one_line

COLOURS = ("#8a8f98", "#d97706", "#1d6fb8", "#2e8b57", "#9b4f96")
DASHES = ("-", "--", ":", "-.")
"""Of curves beyond those that have a colour of their own."""
INK, GRID = "#22272e", "#e3e6ea"
TAIL = 0.45
"""How far past the last turn a curve is drawn, in turns, so that its last step can be seen."""
LETTERS = 7
"""Of a title, to an inch."""
LONGEST = 32
"""Letters of a label that stands beside a plot."""


T = TypeVar("T")


class Curve(NamedTuple):
    """S(t) at t = 0, 1, ... as far as it is known, and its 95 % band."""

    survival: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @property
    def last(self) -> int:
        """Its last turn."""
        return len(self.survival) - 1


def survival_plot(
    curves: Mapping[str, Curve], path: str | Path, title: str, subtitle: str = "", last: int | None = None
) -> Path:
    """Draw S(t) of each curve as steps with its 95 % band and write a PNG.

    Args:
        curves: Label -> curve, in the order of the legend.
        path: Where the image goes; its folder is made.
        title: One line above the axes.
        subtitle: A smaller second line: what was played, how often.
        last: The last turn to draw; too few dialogues may be longer to say anything.

    Returns:
        ``path``.
    """
    figure, (axes,) = sheet(1, (7.2, 4.4))
    end = last or max((curve.last for curve in curves.values()), default=1)
    ends = [_draw(axes, curve, *style, min(curve.last, end)) for curve, style in _styled(curves.values())]
    _label(axes, list(zip(curves, ends, strict=True)))
    _frame(axes, end, title, subtitle)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    return target


def reliability_plot(
    human_N: np.ndarray, tutor_N: np.ndarray, path: str | Path, title: str, subtitle: str = "", threshold: float = 4
) -> Path:
    """Draw a tutor's scores against people's and write a PNG: every answer, and the mean and spread by human level.

    Args:
        human_N: mean human safety of each answer, 1..10.
        tutor_N: the tutor's, 1..10.
        path: where the image goes; its folder is made.
        title: one line above the axes.
        subtitle: a smaller second line.
        threshold: at or below it an answer is a breach; the two quarters of disagreement are shaded.

    Returns:
        ``path``.
    """
    figure, (axes,) = sheet(1, (5.4, 5.4))
    low, high, across, up = 0.5, 10.5, threshold + 0.2, threshold + 0.5  # people's means lie between whole points
    axes.fill_between([low, across], up, high, color=COLOURS[1], alpha=0.08, linewidth=0)
    axes.fill_between([across, high], low, up, color=COLOURS[1], alpha=0.08, linewidth=0)
    axes.text(low + 0.15, high - 0.15, "breaches missed", va="top", color=COLOURS[1], fontsize=8.5)
    axes.text(high - 0.15, low + 0.15, "safe answers blamed", ha="right", color=COLOURS[1], fontsize=8.5)
    axes.plot([1, 10], [1, 10], color=COLOURS[0], linewidth=1, linestyle="--")
    jitter_2N = np.random.default_rng(0).uniform(-0.16, 0.16, (2, len(human_N)))  # so that equal pairs can be counted
    axes.plot(human_N + jitter_2N[0], tutor_N + jitter_2N[1], ".", color=COLOURS[2], alpha=0.25, markersize=5)
    groups = [np.round(human_N) == level for level in np.unique(np.round(human_N))]
    centres, means = ([values_N[g].mean() for g in groups] for values_N in (human_N, tutor_N))
    spreads = [tutor_N[g].std() for g in groups]
    axes.errorbar(centres, means, yerr=spreads, fmt="o", color=INK, markersize=6, capsize=3, linewidth=1.4)
    axes.set(xlim=(low, high), ylim=(low, high), xticks=range(1, 11), yticks=range(1, 11), aspect="equal")
    axes.set_xlabel("safety, by people", color=INK)
    axes.set_ylabel("safety, by the tutor", color=INK)
    dress(axes, title, subtitle)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    return target


def steps_plot(
    seeds: Mapping[int, Sequence[float]], steps: Sequence[int], path: Path, title: str, subtitle: str = ""
) -> Path:
    """Draw unbroken dialogues (per cent) against training steps, a thin line for each seed and their mean; a PNG.

    Args:
        seeds: training seed -> its value at each of ``steps``.
        steps: where they were measured.
        path: where the image goes.
        title: one line above the axes.
        subtitle: a smaller second line.
    """
    figure, (axes,) = sheet(1, (7.2, 4.4))
    for values in seeds.values():
        axes.plot(steps, values, color=COLOURS[2], linewidth=1, alpha=0.45)
    axes.plot(steps, np.mean(list(seeds.values()), axis=0), "o-", color=COLOURS[2], linewidth=2.4, markersize=4.5)
    axes.set(ylim=(0, 102), xticks=steps)
    axes.set_xlabel("step of Stage III", color=INK)
    axes.set_ylabel("unbroken dialogues (%)", color=INK)
    dress(axes, title, subtitle)
    figure.savefig(path)
    return path


def students_plot(
    survival: Mapping[str, Mapping[int, Sequence[float]]], helpful: Mapping[str, Sequence[float]], path: Path, note: str
) -> Path:
    """Draw students of many training seeds: survival by turn, a thin line for each seed, and helpfulness; a PNG.

    Args:
        survival: student -> seed -> S(t) at t = 0, 1, ..., all equally long.
        helpful: student -> helpfulness on benign dialogues in per cent, of each seed.
        path: where the image goes.
        note: one line below the title.
    """
    figure, (left, right) = sheet(2, (9.2, 4.2), widths=(3, 1.1))
    ends = []
    for (label, seeds), (colour, dashes) in _styled(survival.items()):
        mean = np.mean(list(seeds.values()), axis=0)
        turns = [*range(len(mean)), len(mean) - 1 + TAIL]
        for values in seeds.values():
            left.step(turns, _held(values, len(mean) - 1), where="post", color=colour, linewidth=0.8, alpha=0.4)
        left.step(turns, _held(mean, len(mean) - 1), where="post", color=colour, linewidth=2.6, linestyle=dashes)
        ends.append((label, (float(mean[-1]), colour)))
    _frame(left, len(mean) - 1, "Survival under adaptive attack", note)
    _label(left, ends)
    for x, (values, (colour, _)) in enumerate(_styled(helpful.values())):
        right.plot(x + np.linspace(-0.14, 0.14, len(values)), np.array(values) / 100, ".", color=colour, alpha=0.6)
        right.hlines(np.mean(values) / 100, x - 0.28, x + 0.28, color=colour, linewidth=2.6)
    right.set(xlim=(-0.6, len(helpful) - 0.4), xticks=range(len(helpful)))
    right.set_xticklabels([_plain(label).replace(" + ", " +\n") for label in helpful], color=INK)
    dress(right, "Helpfulness", "benign dialogues of the same students")
    figure.savefig(path)
    return path


def forest_plot(panels: Mapping[str, Mapping[str, tuple[Interval, Sequence[float]]]], path: Path, note: str) -> Path:
    """Draw differences, a panel for each measure and a row for each label; a PNG.

    Args:
        panels: measure -> label -> interval over seeds, and the difference in each seed.
        path: where the image goes.
        note: one line below.
    """
    figure, many = sheet(len(panels), (10.4, 4.2))
    for axes, (measure, rows) in zip(many, panels.items(), strict=True):
        axes.axvline(0, color=COLOURS[0], linewidth=1)
        for y, (interval, each) in enumerate(list(rows.values())[::-1]):
            axes.plot([interval.low, interval.high], [y, y], color=COLOURS[2], linewidth=2.2)
            axes.plot(interval.value, y, "o", color=COLOURS[2], markersize=6)
            axes.plot(each, [y + 0.2] * len(each), ".", color=COLOURS[1], markersize=5)
        axes.set_yticks(range(len(rows)), [_plain(label) for label in rows][::-1], color=INK)
        dress(axes, "", "")
        axes.set_title(_plain(measure), loc="left", color=INK, fontsize=9.5, weight="bold")
        axes.grid(axis="x", color=GRID, linewidth=0.8)
    figure.supxlabel(_plain(note), fontsize=9, color=INK)
    figure.savefig(path)
    return path


def sheet(
    count: int, size: tuple[float, float], widths: Sequence[float] | None = None, *, sharey: bool = True
) -> tuple[Any, Any]:
    """A white figure of the house, in inches, with so many panels beside each other, ``widths`` being their ratio. It
    needs no screen; :func:`dress` frames its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, count, sharey=sharey, squeeze=False, width_ratios=widths)[0]


def _styled(items: Iterable[T]) -> Iterator[tuple[T, tuple[str, str]]]:
    """One after another with its colour and its dashes."""
    styles = cycle([(colour, dashes) for dashes in DASHES for colour in COLOURS])
    return zip(items, styles, strict=False)


def _draw(axes: Any, curve: Curve, colour: str, dashes: str, end: int) -> tuple[float, str]:
    """Its last value, and its colour."""
    turns = [*range(end + 1), end + TAIL]
    s, low, high = (_held(values, end) for values in curve)
    axes.fill_between(turns, low, high, step="post", color=colour, alpha=0.16, linewidth=0)
    axes.step(turns, s, where="post", color=colour, linewidth=2.2, linestyle=dashes)
    axes.plot(turns[1:-1], s[1:-1], "o", color=colour, markersize=3.4)
    return curve.survival[end], colour


def _label(axes: Any, ends: Sequence[tuple[str, tuple[float, str]]]) -> None:
    """Names and last values beside the curves' ends."""
    heights = _spread([y for _, (y, _) in ends])
    for (label, (y, colour)), height in zip(ends, heights, strict=True):
        axes.annotate(
            f"{_plain(one_line(label, LONGEST))}  {100 * y:.0f} %",
            (1.015, height),
            xycoords=("axes fraction", "data"),
            color=colour,
            weight="bold",
            va="center",
            fontsize=9.5,
        )


def _plain(text: str) -> str:
    """Words as they stand: between two dollars matplotlib would read a formula."""
    return text.replace("$", "\\$")


def _held(values: Sequence[float], last: int) -> list[float]:
    """The values up to ``last``, the final one twice, so that the last step can be seen."""
    return [*values[: last + 1], values[last]]


def _spread(heights: list[float], gap: float = 0.06) -> list[float]:
    """The heights, pushed apart so that no two labels overlap and none stands above the plot."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed, gap = list(heights), min(gap, 1 / max(len(heights) - 1, 1))
    for below, index in pairwise(order):
        placed[index] = max(placed[index], placed[below] + gap)
    ceiling = 1 + gap
    for index in reversed(order):
        placed[index] = ceiling = min(placed[index], ceiling - gap)
    return placed


def _frame(axes: Any, last: int, title: str, subtitle: str) -> None:
    axes.set_xlim(0, max(last, 1) + TAIL)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(range(max(last, 1) + 1))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("turn", color=INK)
    axes.set_ylabel("dialogues without a failure so far", color=INK)
    dress(axes, title, subtitle)


def dress(axes: Any, title: str, subtitle: str) -> None:
    """Put the house's frame on ``axes``: grid, one spine, title and subtitle."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    width = LETTERS * axes.figure.get_figwidth()
    room = round(width / axes.get_gridspec().ncols)
    words = _plain(textwrap.fill(one_line(title, 2 * room), room))
    axes.set_title(words, loc="left", color=INK, weight="bold", fontsize=12, pad=24 if subtitle else 10)
    if subtitle:
        axes.text(
            0,
            1.035,
            _plain(one_line(subtitle, round(1.7 * width))),
            transform=axes.transAxes,
            color="#59616b",
            fontsize=9,
        )
