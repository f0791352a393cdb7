"""How long the demo will still take: typical durations, corrected by what is seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

PRIOR = 60.0
"""Seconds of typical work that the belief in the typical durations is worth."""


@dataclass(frozen=True)
class Typical:
    """Seconds on two cores: until the first step, per step, and from the last step to the end."""

    start: float
    step: float = 0.0
    close: float = 0.0

    def total(self, steps: int) -> float:
        """The whole stage."""
        return self.start + steps * self.step + self.close


@dataclass
class Clock:
    """Time of one stage as it runs. A resumed stage begins at a later step; its own first report tells where."""

    typical: Typical
    steps: int
    now: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    first: tuple[int, float] | None = field(default=None, init=False)
    latest: tuple[int, float] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.began = self.now()

    def report(self, step: int) -> None:
        """The stage has finished ``step`` (counted from 1)."""
        self.latest = (step, self.now())
        self.first = self.first or self.latest

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began."""
        return self.now() - self.began

    @property
    def fraction(self) -> float:
        """Share of the stage that is done, 0..1."""
        left = self.left(1.0)
        return self.elapsed / (self.elapsed + left) if self.elapsed + left > 0 else 0.0

    @property
    def seen(self) -> tuple[float, float]:
        """(typical, actual) seconds of the steps between the first report and the latest."""
        if self.first is None or self.latest is None:
            return 0.0, 0.0
        return (self.latest[0] - self.first[0]) * self.typical.step, self.latest[1] - self.first[1]

    def left(self, pace: float) -> float:
        """Seconds until the stage ends, if this machine takes ``pace`` times the typical duration."""
        if self.latest is None or self.first is None:
            return max(pace * self.typical.total(self.steps) - self.elapsed, 0.0)
        step, at = self.latest
        rest = (self.steps - step) * self._per_step(pace) - (self.now() - at)
        return max(rest, 0.0) + pace * self.typical.close

    def _per_step(self, pace: float) -> float:
        """Seconds a step: what was seen, mixed with two typical steps."""
        assert self.first and self.latest
        steps, (_, seconds) = self.latest[0] - self.first[0], self.seen
        return (seconds + 2 * pace * self.typical.step) / (steps + 2)


def pace(seen: list[tuple[float, float]]) -> float:
    """How this machine compares with the typical one, from (typical, actual) seconds of finished work; 1 is alike."""
    return (sum(actual for _, actual in seen) + PRIOR) / (sum(typical for typical, _ in seen) + PRIOR)
