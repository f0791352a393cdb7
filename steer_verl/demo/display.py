"""What is shown while stages run: a line as each begins and ends, and how long all will still take.

A terminal has live bars of what runs; anywhere else (a log, CI) a line now and then tells the same. Work is counted in
typical seconds: how many of them were done in a second here says how much time is left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn

from steer_verl.demo.stage import Stage
from steer_verl.text import clock_text

PLAIN_EVERY = 15.0
"""Seconds between two lines where no terminal is."""


class Display(Progress):
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
        console = console or Console()
        columns = TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn()
        quiet = not console.is_terminal
        super().__init__(*columns, console=console, disable=quiet, transient=True, get_time=now)
        self.lanes, self.lock, self.began, self.said = lanes, threading.RLock(), now(), now()
        self.number = {stage.name: f"[{i}/{len(stages)}] {stage.title}" for i, stage in enumerate(stages, start=1)}
        self.add_task("")
        self.all = self.tasks[0]
        self.bars = {stage.name: self._bar(stage) for stage in stages if stage.name in undone}
        self.running = dict[str, Stage]()
        for stage in stages:
            if stage.name not in undone:
                self._say(f"{self.number[stage.name]}: done before")

    def begin(self, stage: Stage) -> None:
        """A stage begins."""
        with self.lock:
            self.running[stage.name], bar = stage, self.bars[stage.name]
            bar.visible = True
            self.start_task(bar.id)
            self._say(f"{self.number[stage.name]}: begins, {self._left()}")

    def step(self, stage: Stage, step: int, detail: str) -> None:
        """A stage has finished ``step`` (counted from 1); ``detail`` is what else to show of it.

        A resumed stage begins at a later step: its first report tells where.
        """
        with self.lock:
            bar = self.bars[stage.name]
            if not bar.fields["step"]:
                bar.fields["first"], bar.total = step - 1, stage.typical.total(stage.steps - step + 1)
            bar.fields |= {"step": step, "text": " · ".join(filter(None, (f"step {step}/{stage.steps}", detail)))}

    def end(self, stage: Stage, how: str) -> None:
        """A stage has ended: ``done in 1:02``, ``failed``."""
        with self.lock:
            if self.running.pop(stage.name, None):
                bar = self.bars[stage.name]
                bar.visible, bar.completed = False, bar.total or 0.0
            self._say(f"{self.number[stage.name]}: {how}")

    def tick(self) -> None:
        """Called often while stages run."""
        with self.lock:
            for name, stage in self.running.items():
                bar, typical = self.bars[name], stage.typical
                started = typical.start if bar.fields["step"] else min(bar.elapsed or 0.0, typical.start)
                bar.completed = started + (bar.fields["step"] - bar.fields["first"]) * typical.step
                bar.description = f"{stage.title} · {bar.fields['text']}"
            self.all.description, self.all.completed, self.all.total = self._left(), *self._work()
            if self.disable and self.get_time() - self.said > PLAIN_EVERY:
                for name in self.running:
                    self._say(f"{self.number[name]} · {self.bars[name].fields['text']} · {self._left()}")

    def left(self) -> float:
        """Seconds until everything is done."""
        done, whole = self._work()
        return (whole - done) / (done / (self.get_time() - self.began) if done else self.lanes)

    def _work(self) -> tuple[float, float]:
        """Typical seconds that are done, and of all."""
        return sum(bar.completed for bar in self.bars.values()), sum(bar.total or 0.0 for bar in self.bars.values())

    def _bar(self, stage: Stage) -> Task:
        whole, text = stage.typical.total(stage.steps), f"step 0/{stage.steps}" if stage.steps else "running"
        self.add_task("", False, whole, visible=False, first=0, step=0, text=text)
        return self.tasks[-1]

    def _left(self) -> str:
        return f"about {clock_text(self.left())} left in all"

    def _say(self, line: str) -> None:
        self.said = self.get_time()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
