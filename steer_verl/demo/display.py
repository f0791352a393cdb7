"""What is shown while stages run: a line as each begins and ends, and how long all will still take.

A terminal has live bars of what runs; anywhere else (a log, CI) a line now and then tells the same. Work is counted in
typical seconds; how fast it goes here, and so how much time is left, is rich's own estimate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from steer_verl.demo.stage import Stage
from steer_verl.text import clock_text

PLAIN_EVERY = 15.0
"""Seconds between two lines where no terminal is."""


@dataclass
class Running:
    """A stage that runs. A resumed one begins at a later step: its own first report tells where."""

    stage: Stage
    bar: TaskID
    began: float
    first: int = 0
    step: int = 0
    detail: str = ""

    def worked(self, now: float) -> float:
        """Typical seconds of what it has done."""
        typical = self.stage.typical
        started = typical.start if self.step else min(now - self.began, typical.start)
        return started + (self.step - self.first) * typical.step

    def text(self) -> str:
        """``step 7/30 · loss 0.31``."""
        step = f"step {self.step}/{self.stage.steps}" if self.stage.steps else ""
        return " · ".join(filter(None, (step, self.detail))) or "running"


class Display:
    """Progress of all stages, as a context manager; called from the threads that run them.

    Args:
        stages: all of them, in order.
        undone: names of those that are still to be done.
        console: where to; standard output unless given.
        lanes: how many run at once.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        undone: Collection[str],
        console: Console | None = None,
        lanes: int = 1,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.lanes, self.now = console or Console(), lanes, now
        self.number = {stage.name: f"[{i}/{len(stages)}] {stage.title}" for i, stage in enumerate(stages, start=1)}
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
            get_time=now,
            speed_estimate_period=3600,
        )
        self.all = self.bars.add_task("", total=sum(s.typical.total(s.steps) for s in stages if s.name in undone))
        self.running, self.worked = dict[str, Running](), 0.0
        self.lock, self.said = threading.RLock(), now()
        for stage in stages:
            if stage.name not in undone:
                self._say(f"{self.number[stage.name]}: done before")

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bars.stop()

    def begin(self, stage: Stage) -> None:
        """A stage begins."""
        with self.lock:
            bar = self.bars.add_task(stage.title, total=stage.typical.total(stage.steps))
            self.running[stage.name] = Running(stage, bar, self.now())
            self._say(f"{self.number[stage.name]}: begins, {self._left()}")

    def step(self, stage: Stage, step: int, detail: str) -> None:
        """A stage has finished ``step`` (counted from 1); ``detail`` is what else to show of it."""
        with self.lock:
            one = self.running[stage.name]
            if not one.step:
                one.first = step - 1
                self.bars.update(self.all, total=(self.bars.tasks[0].total or 0) - one.first * stage.typical.step)
            one.step, one.detail = step, detail

    def end(self, stage: Stage, how: str) -> None:
        """A stage has ended: ``done in 1:02``, ``failed``."""
        with self.lock:
            if one := self.running.pop(stage.name, None):
                self.worked += stage.typical.total(stage.steps - one.first)
                self.bars.remove_task(one.bar)
            self._say(f"{self.number[stage.name]}: {how}")

    def tick(self) -> None:
        """Called often while stages run."""
        with self.lock:
            now = self.now()
            for one in self.running.values():
                self.bars.update(one.bar, description=f"{one.stage.title} · {one.text()}", completed=one.worked(now))
            worked = self.worked + sum(one.worked(now) for one in self.running.values())
            self.bars.update(self.all, description=self._left(), completed=worked)
            if not self.console.is_terminal and now - self.said > PLAIN_EVERY:
                for one in self.running.values():
                    self._say(f"{self.number[one.stage.name]} · {one.text()} · {self._left()}")

    def left(self) -> float:
        """Seconds until everything is done."""
        task = self.bars.tasks[0]
        return (task.remaining or 0.0) / (task.speed or self.lanes)

    def _left(self) -> str:
        return f"about {clock_text(self.left())} left in all"

    def _say(self, line: str) -> None:
        self.said = self.now()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
