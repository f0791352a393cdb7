"""A figure with its doubts, and how it is written wherever it stands: terminal, Markdown, page."""

from __future__ import annotations

import math

from steer_verl.types import Record


class Estimate(Record):
    """A figure with its 95 % interval and its bounds. What is undefined is ``None`` (``null``), never 0."""

    value: float | None
    """Over what was rated."""
    low: float | None
    high: float | None
    n: int
    """Dialogues or turns (``MeasureAbout.per``) that ``value`` rests on."""
    of: int
    """How many the measure concerns: the others were not played, or not rated."""
    worst: float | None
    """The figure if every missing turn had turned out badly, and (``best``) well. Both are ``value`` when none is
    missing: show them where they differ. ``value`` always lies between them."""
    best: float | None

    def number(self, decimals: int) -> str:
        """``81.2``, or a dash."""
        return spelled(self.value, decimals)

    def interval(self, decimals: int) -> str:
        """``78.0 to 84.1``; empty where there is none."""
        return "" if self.low is None or self.high is None else f"{self.low:.{decimals}f} to {self.high:.{decimals}f}"

    def bounds(self, decimals: int) -> str:
        """``70.1 to 88.0``, from worst to best; empty where nothing is missing."""
        return "" if self.worst == self.best else f"{spelled(self.worst, decimals)} to {spelled(self.best, decimals)}"

    def text(self, decimals: int, *, bounds: str = "") -> str:
        """``81.2 [78.0 to 84.1]``, and the bounds behind the separator ``bounds`` where something is missing."""
        ends = self.bounds(decimals)
        return ranged(self.value, self.low, self.high, decimals) + f"{bounds}{ends}" * bool(bounds and ends)


def ranged(value: float | None, low: float | None, high: float | None, decimals: int, *, signed: bool = False) -> str:
    """``81.2 [78.0 to 84.1]``, or with signs ``+3.1 [+0.4 to +5.8]``; without the ends that are unknown (``None`` or
    NaN), and a dash where all is."""
    form = f"{'+' * signed}.{decimals}f"
    if value is None or math.isnan(value):
        return "-"
    unknown = low is None or high is None or math.isnan(low)
    return f"{value:{form}}" if unknown else f"{value:{form}} [{low:{form}} to {high:{form}}]"


def spelled(value: float | None, decimals: int) -> str:
    """A number, or a dash where it is undefined."""
    return "-" if value is None else f"{value:.{decimals}f}"
