"""Items and steps that do what a test says."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from steer_verl.models.failure import AgentFailed
from steer_verl.types import Record, Usage
from steer_verl.work.engine import Engine
from steer_verl.work.plan import shard_folder
from steer_verl.work.run import Job
from steer_verl.work.settings import WorkSettings
from steer_verl.work.step import Desk, Done, Kept, Rejected
from steer_verl.work.store import Store
from steer_verl.work.tally import Tally

FAST = WorkSettings(in_flight=8, pause=0.01, shards=3, lines_per_file=7)
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
        calls: how often each call was really made.
        peak: items at work at the same time, at most.
    """

    name = "scripted"

    def __init__(self, script: Callable[[Thing, Desk], Awaitable[Done]] | None = None) -> None:
        self.script = script or keep
        self.calls = Counter[str]()
        self.tries = Counter[str]()
        self.at_work = self.peak = 0
        self.closed = False

    async def work(self, item: Thing, desk: Desk) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        self.tries[item.id] += 1
        self.at_work += 1
        self.peak = max(self.peak, self.at_work)
        try:
            for name in ("one", "two"):
                await desk.once(name, dict[str, int], lambda name=name: self._call(item, name, desk))  # type: ignore[misc]
            return await self.script(item, desk)
        finally:
            self.at_work -= 1

    async def _call(self, item: Thing, name: str, desk: Desk) -> dict[str, int]:
        self.calls[f"{item.id}/{name}"] += 1
        desk.spend(CALL)
        await asyncio.sleep(0)
        return {"size": item.size}

    async def close(self) -> None:
        """Remember that it was called."""
        self.closed = True


async def keep(item: Thing, desk: Desk) -> Done:
    """Every item goes on."""
    return Kept(value={"id": item.id, "size": item.size})


async def odd_ones_out(item: Thing, desk: Desk) -> Done:
    """Rejects what is odd."""
    return await keep(item, desk) if item.size % 2 == 0 else Rejected(reason="odd")


def lost(detail: str = "") -> AgentFailed:
    """An agent that fails for the moment."""
    return AgentFailed("connect", detail, transient=True)


async def work(folder: Path, step: Any, items: Iterable[Thing], settings: WorkSettings = FAST) -> Tally:
    """One run of the engine over all shards of ``folder``."""
    stores = {n: Store(shard_folder(folder, n), settings.lines_per_file) for n in range(settings.shards)}
    tally = Tally(step.name)
    try:
        await Engine(step, items, stores, settings, tally).run()
    finally:
        for store in stores.values():
            store.close()
    return tally


def job(folder: Path, step: Any, count: int, settings: WorkSettings = FAST) -> Job[Thing]:
    """A job whose step is at hand."""
    return Job(step.name, folder, lambda processes: step, lambda: things(count), settings)


def paper() -> Console:
    """A console that is no terminal and keeps what is printed; ``file.getvalue()`` is it."""
    return Console(file=io.StringIO(), width=200)
