"""How long the student and the tutor take, and what every dialogue has waited for."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

SIGMA = 0.5
"""Of the logarithm of both times."""
WAITED: ContextVar[list[float]] = ContextVar("WAITED")
"""The seconds that the dialogue of this task was told to wait. A task started by it (a tool's) shares the list."""


@dataclass
class Pace:
    """Mean seconds of an answer and of a ruling, and how many of each are worked on at once (0: any number)."""

    student: float = 0.5
    tutor: float = 1.0
    student_slots: int = 0
    tutor_slots: int = 0
    seed: int = 0
    rng: random.Random = field(init=False)
    tutor_gate: asyncio.Semaphore = field(init=False)
    waits: list[list[float]] = field(default_factory=list)
    """Of each dialogue."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.tutor_gate = asyncio.Semaphore(self.tutor_slots or 10**9)

    def draw(self, mean: float) -> float:
        """Seconds, log-normal around ``mean``, put on the dialogue's account."""
        try:
            account = WAITED.get()
        except LookupError:
            account = []
            WAITED.set(account)
            self.waits.append(account)
        account.append(mean * self.rng.lognormvariate(-(SIGMA**2) / 2, SIGMA))
        return account[-1]

    async def tutoring(self) -> None:
        """One ruling's time."""
        seconds = self.draw(self.tutor)
        async with self.tutor_gate:
            await asyncio.sleep(seconds)

    @property
    def critical_path(self) -> float:
        """Seconds of the dialogue that waits longest, if nothing else took time."""
        return max(map(sum, self.waits))


_NOW: list[Pace] = []


@contextlib.contextmanager
def at(pace: Pace) -> Iterator[Pace]:
    """Student and tutor keep this pace."""
    _NOW.append(pace)
    try:
        yield pace
    finally:
        _NOW.pop()


def now() -> Pace:
    """The pace that is kept."""
    return _NOW[-1]
