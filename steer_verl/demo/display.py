"""What is shown while the demo runs: a live table on a terminal, plain lines anywhere else (a log, CI)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from steer_verl.demo.timing import Clock, Typical, pace
from steer_verl.text import clock_text

PLAIN_EVERY = 15.0
"""Seconds between two lines where no terminal is."""

Row = tuple[str, Typical, int]
"""Title, typical duration and steps of a stage."""


class Display:
    """Progress of all stages and the time left, as a context manager."""

    def __init__(self, rows: Sequence[Row], console: Console | None = None, *, lanes: int = 1) -> None:
        self.rows = list(rows)
        self.lanes = lanes
        """Processes that share what is left (steer_verl/demo/lanes.py)."""
        self.console = console or Console()
        self.ended: dict[int, float | None] = {}
        """Seconds of each finished stage; ``None`` for one that was done by an earlier run."""
        self.index = -1
        self.clock: Clock | None = None
        self.detail = ""
        self.began = time.monotonic()
        self.said = 0.0
        self.live = Live(console=self.console, get_renderable=self.table, refresh_per_second=4, transient=False)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.live.is_started:
            self.live.stop()

    def skip(self, index: int) -> None:
        """Stage ``index`` was done by an earlier run."""
        self.ended[index] = None
        self._say(f"{self._number(index)}: done before")

    def start(self, index: int) -> Clock:
        """Stage ``index`` begins; its clock is told of steps."""
        _, typical, steps = self.rows[index]
        self.index, self.clock, self.detail = index, Clock(typical, steps), ""
        self._say(f"{self._number(index)}: begins, about {clock_text(self.left())} left in all")
        return self.clock

    def finish(self, seconds: float) -> None:
        """The stage that was begun last has ended well."""
        self.ended[self.index] = seconds
        self.clock = None
        self._say(f"{self._number(self.index)}: done in {clock_text(seconds)}")

    def tick(self) -> None:
        """Called often while a stage runs."""
        if self.clock and not self.live.is_started and time.monotonic() - self.said > PLAIN_EVERY:
            step = f" · step {self._step()}" if self.clock.steps else ""
            left = clock_text(self.left())
            self._say(f"{self._number(self.index)}{step} · {self.detail or 'running'} · about {left} left in all")

    def left(self) -> float:
        """Seconds until everything is done."""
        known = [(self.rows[i][1].total(self.rows[i][2]), s) for i, s in self.ended.items() if s is not None]
        speed = pace([*known, self.clock.seen] if self.clock else known)
        later = [row for i, row in enumerate(self.rows) if i not in self.ended and (i != self.index or not self.clock)]
        current = self.clock.left(speed) if self.clock else 0.0
        return current + speed * sum(typical.total(steps) for _, typical, steps in later) / self.lanes

    def table(self) -> Table:
        """The live picture."""
        gone, left = clock_text(time.monotonic() - self.began), clock_text(self.left())
        table = Table(box=None, padding=(0, 1), title=f"{gone} gone · about {left} left", title_justify="left")
        for header in ("", "stage", "", "time", ""):
            table.add_column(header)
        for i, (title, typical, steps) in enumerate(self.rows):
            table.add_row(*self._cells(i, title, typical.total(steps)))
        return table

    def _cells(self, i: int, title: str, typical: float) -> tuple[str | ProgressBar, ...]:
        if i in self.ended:
            seconds = self.ended[i]
            return (
                "[green]✓",
                title,
                ProgressBar(1, 1, width=24),
                "before" if seconds is None else clock_text(seconds),
                "",
            )
        if i == self.index and self.clock:
            step = f"step {self._step()}  " if self.clock.steps else ""
            bar = ProgressBar(1, self.clock.fraction, width=24)
            return "[yellow]▸", f"[bold]{title}", bar, clock_text(self.clock.elapsed), f"{step}{self.detail}"
        return " ", f"[dim]{title}", ProgressBar(1, 0, width=24), f"[dim]~{clock_text(typical)}", ""

    def _step(self) -> str:
        assert self.clock
        return f"{self.clock.latest[0] if self.clock.latest else 0}/{self.clock.steps}"

    def _number(self, index: int) -> str:
        return f"[{index + 1}/{len(self.rows)}] {self.rows[index][0]}"

    def _say(self, line: str) -> None:
        self.said = time.monotonic()
        if not self.live.is_started:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
