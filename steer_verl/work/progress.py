"""How a running step is faring, and showing it: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from steer_verl.text import clock_text
from steer_verl.types import Usage
from steer_verl.work.step import Kept, Outcome

WINDOW = 60
"""Seconds over which the rate is taken."""
PLAIN_EVERY = 30.0
"""Seconds between two lines where no terminal is."""


class Tally:
    """Counts of one step over all of its shards, and the recent rate, from which the time left is estimated.

    Args:
        step: its name.
        total: items in all, where that is known.
        clock: seconds that never go back.
    """

    def __init__(self, step: str, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.step, self.total = step, total
        self.before = 0
        """Items that earlier runs have ended."""
        self.kept = 0
        self.rejected = Counter[str]()
        self.failures = 0
        """Tries that were put off."""
        self.stopping = False
        """Nothing new is begun; calls under way come to their end."""
        self.usage = Usage()
        """Of the items that this run has ended."""
        self._clock = clock
        self._began = clock()
        self._recent: deque[tuple[int, int]] = deque(maxlen=WINDOW)  # (second, items ended in it)

    @property
    def ended(self) -> int:
        """Items that this run has ended."""
        return self.kept + self.rejected.total()

    @property
    def rate(self) -> float:
        """Items a second, of late."""
        now = self._clock() - self._began
        recent = sum(count for second, count in self._recent if second > now - WINDOW)
        return recent / max(min(now, WINDOW), 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds until all items have ended; ``None`` if that cannot be told."""
        if self.total is None or self.rate == 0:
            return None
        return max(self.total - self.before - self.ended, 0) / self.rate

    def end(self, outcome: Outcome) -> None:
        """An item has ended."""
        if isinstance(outcome.done, Kept):
            self.kept += 1
        else:
            self.rejected[outcome.done.reason] += 1
        self.usage += outcome.usage
        second = int(self._clock() - self._began)
        same = self._recent and self._recent[-1][0] == second
        count = self._recent.pop()[1] if same else 0
        self._recent.append((second, count + 1))

    def line(self) -> str:
        """All of it in one line."""
        done = self.before + self.ended
        parts = [f"{self.step} {done:,}" + (f"/{self.total:,}" if self.total is not None else "")]
        parts += [f"kept {self.kept:,}", f"rejected {self.rejected.total():,}"]
        parts += [f"put off {self.failures:,}"] if self.failures else []
        parts += [f"before {self.before:,}"] if self.before else []
        parts.append(f"{self.rate:.1f}/s")
        parts += [f"cost {self.usage.cost:.4g}"] if self.usage.cost else []
        if self.stopping:
            return " · ".join([*parts, "stopping when the calls under way have ended (Ctrl-C: at once)"])
        left = self.left
        parts += [f"about {clock_text(left)} left"] if left is not None and done != self.total else []
        return " · ".join(parts)


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
