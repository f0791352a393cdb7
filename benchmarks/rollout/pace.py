"""How long the student and the tutor take, and what every dialogue has waited for."""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar
from dataclasses import dataclass, field

SIGMA = 0.5
"""Of the logarithm of both times."""
QUESTION = 0.35
"""Share of a ruling's time after which the next question is whole, where it is told first."""
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
    early: bool = False
    """Our side's tutor tells the question first, and nobody waits for its verdict."""
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

    async def tutoring(self, question: asyncio.Event | None = None) -> None:
        """One ruling's time; ``question`` is set when its first part is over."""
        seconds = self.draw(self.tutor)
        async with self.tutor_gate:
            await asyncio.sleep(QUESTION * seconds)
            if question is not None:
                question.set()
            await asyncio.sleep((1 - QUESTION) * seconds)


_NOW: list[Pace] = []


def keep(pace: Pace) -> None:
    """Student and tutor in this process keep this pace from now on."""
    _NOW[:] = [pace]


def now() -> Pace:
    """The pace that is kept."""
    return _NOW[-1]
