"""Items and steps that do what a test says."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from steer_verl.models.cache import ReplyCache, remembered
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.types import Record, Usage
from steer_verl.work.engine import Engine
from steer_verl.work.job import Job
from steer_verl.work.progress import Tally
from steer_verl.work.shards import Shards
from steer_verl.work.step import Done, Kept, Rejected, WorkSettings

FAST = WorkSettings(in_flight=8, pause=0.01, shards=3)
CALL = Usage(requests=1, prompt_tokens=10, completion_tokens=5, cost=0.5)


class Thing(Record):
    """An item."""

    id: str
    size: int = 0


def things(count: int) -> list[Thing]:
    """``count`` items."""
    return [Thing(id=f"thing {n}", size=n) for n in range(count)]


class ScriptedStep:
    """Calls twice for each item, and does then what ``script`` says.

    Attributes:
        cache: keeps what a call has brought.
        calls: how often each call was really made.
        peak: items at work at the same time, at most.
    """

    name = "scripted"
    cache: ReplyCache

    def __init__(self, script: Callable[[Thing, Place], Awaitable[Done]] | None = None) -> None:
        self.script = script or keep
        self.calls = Counter[str]()
        self.tries = Counter[str]()
        self.at_work = self.peak = 0
        self.closed = False

    async def work(self, item: Thing, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        self.tries[item.id] += 1
        self.at_work += 1
        self.peak = max(self.peak, self.at_work)
        try:
            for name in ("one", "two"):
                await remembered(self.cache, place, name, Thing, partial(self._call, item, name, place))
            return await self.script(item, place)
        finally:
            self.at_work -= 1

    async def _call(self, item: Thing, name: str, place: Place) -> Thing:
        self.calls[f"{item.id}/{name}"] += 1
        place.spend(CALL)
        await asyncio.sleep(0)
        return item

    async def close(self) -> None:
        """Remember that it was called."""
        self.closed = True


async def keep(item: Thing, place: Place) -> Done:
    """Every item goes on."""
    return Kept(value={"id": item.id, "size": item.size})


async def odd_ones_out(item: Thing, place: Place) -> Done:
    """Rejects what is odd."""
    return await keep(item, place) if item.size % 2 == 0 else Rejected(reason="odd")


def lost(detail: str = "") -> AgentFailed:
    """An agent that fails for the moment."""
    return AgentFailed("connect", detail, transient=True)


async def work(folder: Path, step: Any, items: Iterable[Thing], settings: WorkSettings = FAST) -> Tally:
    """One run of the engine over all shards of ``folder``."""
    tally = Tally(step.name)
    with Shards(folder, step.name, settings) as step.cache:
        await Engine(step, items, step.cache, settings, tally).run()
    return tally


def job(folder: Path, step: Any, count: int, settings: WorkSettings = FAST, **more: Any) -> Job[Thing]:
    """A job whose step is at hand."""

    def make_step(processes: int, cache: ReplyCache) -> Any:
        step.cache = cache
        return step

    return Job(step.name, folder, make_step, lambda: things(count), settings, **more)


def paper() -> Console:
    """A console that is no terminal and keeps what is printed; ``file.getvalue()`` is it."""
    return Console(file=io.StringIO(), width=200)
