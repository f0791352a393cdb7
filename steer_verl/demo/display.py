"""What is shown while stages run: a line as each begins and ends, and how long all will still take.

A terminal has live bars of what runs; anywhere else (a log, CI) a line now and then tells the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from steer_verl.text import clock_text

PLAIN_EVERY = 15.0
"""Seconds between two lines where no terminal is."""

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


class Shown(Protocol):
    """What the display needs to know of a stage."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def typical(self) -> Typical: ...
    @property
    def steps(self) -> int: ...


@dataclass
class Running:
    """A stage that runs. A resumed one begins at a later step: its own first report tells where."""

    stage: Shown
    began: float
    first: int = 0
    step: int = 0
    detail: str = ""
    bar: TaskID | None = None

    def worked(self, now: float) -> float:
        """Typical seconds of what it has done."""
        return self._started(now) + (self.step - self.first) * self.stage.typical.step

    def left(self, now: float) -> float:
        """Typical seconds of what it has still to do."""
        return self.stage.typical.total(self.stage.steps - self.step) - self._started(now)

    def _started(self, now: float) -> float:
        start = self.stage.typical.start
        return start if self.step else min(now - self.began, start)

    def text(self) -> str:
        """``step 7/30 · loss 0.31``."""
        step = f"step {self.step}/{self.stage.steps}" if self.stage.steps else ""
        return " · ".join(filter(None, (step, self.detail)))


@dataclass
class Pace:
    """How long it will still take: typical durations, corrected by what is seen."""

    lanes: int = 1
    now: Callable[[], float] = time.monotonic
    waiting: dict[str, Shown] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    worked: float = 0.0
    """Typical seconds of what has ended, and the seconds that it took."""
    took: float = 0.0

    def left(self) -> float:
        """Seconds until everything is done."""
        now, at_work = self.now(), list(self.running.values())
        worked = self.worked + sum(one.worked(now) for one in at_work)
        took = self.took + sum(now - one.began for one in at_work)
        left = sum(one.left(now) for one in at_work)
        left += sum(stage.typical.total(stage.steps) for stage in self.waiting.values())
        return left * (took + PRIOR) / (worked + PRIOR) / self.lanes

    def begin(self, stage: Shown) -> Running:
        """A stage begins."""
        self.waiting.pop(stage.name, None)
        self.running[stage.name] = one = Running(stage, self.now())
        return one

    def end(self, stage: Shown) -> Running | None:
        """It has ended, well or not."""
        if one := self.running.pop(stage.name, None):
            self.worked, self.took = self.worked + one.worked(self.now()), self.took + self.now() - one.began
        return one


class Display:
    """Progress of all stages, as a context manager; called from the threads that run them.

    Args:
        stages: all of them, in order.
        undone: names of those that are still to be done.
        console: where to; standard output unless given.
        lanes: how many run at once.
    """

    def __init__(
        self, stages: Sequence[Shown], undone: Collection[str], console: Console | None = None, lanes: int = 1
    ) -> None:
        self.console = console or Console()
        self.number = {stage.name: f"[{i}/{len(stages)}] {stage.title}" for i, stage in enumerate(stages, start=1)}
        self.pace = Pace(lanes, waiting={stage.name: stage for stage in stages if stage.name in undone})
        columns = (TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn())
        self.bars = Progress(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self.lock, self.began, self.said = threading.RLock(), self.pace.now(), 0.0
        for stage in stages:
            if stage.name not in undone:
                self._say(f"{self.number[stage.name]}: done before")
        self.all = self.bars.add_task("all")

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bars.stop()

    def begin(self, stage: Shown) -> None:
        """A stage begins."""
        with self.lock:
            one = self.pace.begin(stage)
            one.bar = self.bars.add_task(stage.title, total=stage.typical.total(stage.steps))
            self._say(f"{self.number[stage.name]}: begins, {self._left()}")

    def step(self, stage: Shown, step: int, detail: str) -> None:
        """A stage has finished ``step`` (counted from 1); ``detail`` is what else to show of it."""
        with self.lock:
            one = self.pace.running[stage.name]
            one.first, one.step, one.detail = one.first or step, step, detail

    def end(self, stage: Shown, how: str) -> None:
        """A stage has ended: ``done in 1:02``, ``failed``."""
        with self.lock:
            one = self.pace.end(stage)
            if one and one.bar is not None:
                self.bars.remove_task(one.bar)
            self._say(f"{self.number[stage.name]}: {how}")

    def tick(self) -> None:
        """Called often while stages run."""
        with self.lock:
            running, now = list(self.pace.running.values()), self.pace.now()
            for one in running:
                if one.bar is not None:
                    done, text = one.worked(now), f"{one.stage.title} · {one.text()}".rstrip(" ·")
                    self.bars.update(one.bar, description=text, completed=done, total=done + one.left(now))
            gone, left = now - self.began, self.pace.left()
            self.bars.update(self.all, description=self._left(), completed=gone, total=gone + left)
            if not self.console.is_terminal and now - self.said > PLAIN_EVERY:
                for one in running:
                    self._say(f"{self.number[one.stage.name]} · {one.text() or 'running'} · {self._left()}")

    def _left(self) -> str:
        return f"about {clock_text(self.pace.left())} left in all"

    def _say(self, line: str) -> None:
        self.said = self.pace.now()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
