"""A job: a step over its items as every process that takes part must know it, and one process's part of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from steer_verl.errors import SteerError
from steer_verl.models.cache import ReplyCache
from steer_verl.work.engine import Engine
from steer_verl.work.progress import Tally
from steer_verl.work.shards import Shards
from steer_verl.work.step import Step, WorkSettings

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job(Generic[Item]):
    """A step over its items, as every process that takes part must know it: it can be pickled."""

    name: str
    """The step's."""
    folder: Path
    """Of this step alone; on Ray, all nodes must see it under this path."""
    make_step: Callable[[int, ReplyCache], Step[Item]]
    """Makes the step, with agents of its own, in the process that works it. It is told how many processes ask the same
    endpoints at the same time (:func:`share`), and is given the cache that its agents keep their replies in."""
    items: Callable[[], Iterable[Item]]
    """Reads the items from the beginning; every process reads all of them and works those of its shards."""
    settings: WorkSettings = field(default_factory=WorkSettings)
    key: Callable[[Item], str] = attrgetter("id")
    """An item's id."""
    content: Callable[[Item], str] | None = None
    """Digest of all that an item holds: one that has ended and now holds something else is worked again."""
    source: str = ""
    """Digest of the items. A job that has finished with the same is not read again; empty, it always is."""
    secrets: tuple[str, ...] = ()
    """Names of the environment variables that the step's endpoints need; their values reach the Ray tasks."""


async def work(job: Job[Any], shards: Shards, processes: int, tally: Tally) -> None:
    """Work through the open shards of a job, as one of so many processes."""
    settings = job.settings.model_copy(update={"in_flight": share(job.settings.in_flight, processes)})
    step = job.make_step(processes, shards)
    try:
        if step.name != job.name:
            raise SteerError(f"the job {job.name!r} makes a step called {step.name!r}; give both the same name")
        content = job.content or (lambda item: "")
        engine = Engine(step, job.items(), shards, settings, tally, key=job.key, content=content, source=job.source)
        await engine.run()
    finally:
        if close := getattr(step, "close", None):
            await close()


def share(whole: int, processes: int) -> int:
    """One process's share of a bound, at least 1 and rounded up."""
    return -(-whole // processes)
