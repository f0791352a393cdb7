"""Showing how a step is faring: one live line on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from steer_verl.work.tally import Tally

PLAIN_EVERY = 30.0
"""Seconds between two lines where no terminal is."""


class Progress:
    """The line of one step, as a context manager.

    Args:
        tally: what is shown.
        console: where; ``None`` shows nothing.
        every: seconds between two plain lines.
    """

    def __init__(self, tally: Tally, console: Console | None, every: float = PLAIN_EVERY) -> None:
        self.tally, self.console, self.every = tally, console, every
        self._said = time.monotonic()
        self._told_stop = False
        self._live = (
            Live(console=console, get_renderable=self._text, refresh_per_second=4)
            if console is not None and console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._say(self.tally.line())
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._say(f"{self.tally.step}: interrupted; what was done is kept, and the same command goes on")

    def tick(self) -> None:
        """Called about once a second."""
        stops = self.tally.stopping and not self._told_stop
        if self._live is None and (stops or time.monotonic() - self._said >= self.every):
            self._told_stop = self.tally.stopping
            self._say(self.tally.line())

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        if self.console is not None:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _text(self) -> Text:
        return Text(self.tally.line(), no_wrap=True, overflow="ellipsis")
