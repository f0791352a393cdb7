"""How a running step is faring, and showing it: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from time import monotonic

from rich.console import Console
from rich.text import Text

from steer_verl.text import clock_text
from steer_verl.types import Usage
from steer_verl.work.step import Kept, Outcome

WINDOW = 30.0
"""Seconds after which an item counts for a third of a new one in the rate."""
PLAIN_EVERY = 30.0
"""Seconds between two lines where no terminal is."""


class Tally:
    """Counts of one step, of ``total`` items if that is known; as a context manager, it shows them on ``console``."""

    def __init__(self, step: str, total: int | None = None, console: Console | None = None) -> None:
        self.step, self.total = step, total
        self.console = console or Console(quiet=True, force_terminal=False)
        self._status = self.console.status(step) if self.console.is_terminal else None
        self.before = 0
        """Items that earlier runs have ended."""
        self.kept, self.rejected, self.usage = 0, Counter[str](), Usage()
        """Of the items that this run has ended."""
        self.failures = 0
        """Tries that were put off."""
        self.stopping = False
        """Nothing new is begun; calls under way come to their end."""
        self._began = self._said = self._last = monotonic()
        self._of_late = 0.0
        """Items that have ended, each the less the longer ago it did."""

    def __enter__(self) -> Tally:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._status is not None:
            self._status.stop()
        self._say(self.line())
        if isinstance(error, KeyboardInterrupt):
            self._say(f"{self.step}: interrupted; what was done is kept, and the same command goes on")

    def end(self, *outcomes: Outcome) -> None:
        """Items have ended."""
        for outcome in outcomes:
            if isinstance(outcome.done, Kept):
                self.kept += 1
            else:
                self.rejected[outcome.done.reason] += 1
            self.usage += outcome.usage
            self._of_late, self._last = 1.0 + self._of_late * self._fade(self._last), monotonic()

    def tick(self, at_once: bool = False) -> None:
        """Called about once a second; ``at_once``: there is news."""
        if self._status is not None:
            self._status.update(Text(self.line(), no_wrap=True, overflow="ellipsis"))
        elif at_once or monotonic() - self._said >= PLAIN_EVERY:
            self._say(self.line())

    @property
    def rate(self) -> float:
        """Items a second, of late."""
        return self._of_late * self._fade(self._last) / max(WINDOW * (1.0 - self._fade(self._began)), 1e-9)

    def line(self) -> str:
        """All of it in one line."""
        done = self.before + self.kept + self.rejected.total()
        parts = [f"{self.step} {done:,}" + (f"/{self.total:,}" if self.total is not None else "")]
        parts += [f"kept {self.kept:,}", f"rejected {self.rejected.total():,}"]
        parts += [f"put off {self.failures:,}"] if self.failures else []
        parts += [f"before {self.before:,}"] if self.before else []
        parts.append(f"{self.rate:.1f}/s")
        parts += [f"cost {self.usage.cost:.4g}"] if self.usage.cost else []
        if self.stopping:
            parts.append("stopping when the calls under way have ended (Ctrl-C: at once)")
        elif self.total is not None and self.total > done and self.rate:
            parts.append(f"about {clock_text((self.total - done) / self.rate)} left")
        return " · ".join(parts)

    def _fade(self, since: float) -> float:
        return math.exp((since - monotonic()) / WINDOW)

    def _say(self, line: str) -> None:
        self._said = monotonic()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
