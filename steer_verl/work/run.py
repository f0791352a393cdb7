"""The door of the engine: a job, and working through it, in this process or as Ray tasks.

The same folders, counts and resume either way: a job that was begun here goes on there, and back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from rich.console import Console

from steer_verl.errors import SteerError
from steer_verl.work.engine import Engine
from steer_verl.work.manifest import StepAccount, account
from steer_verl.work.plan import Plan, settle, shard_folder
from steer_verl.work.progress import Progress
from steer_verl.work.settings import WorkSettings
from steer_verl.work.step import Step
from steer_verl.work.store import Store
from steer_verl.work.tally import Tally

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job(Generic[Item]):
    """A step over its items, as every process that takes part must know it: it can be pickled."""

    name: str
    """The step's."""
    folder: Path
    """Of this step alone; on Ray, all nodes must see it under this path."""
    make_step: Callable[[int], Step[Item]]
    """Makes the step, with agents of its own, in the process that works it. Its argument tells how many processes ask
    the same endpoints at the same time, so that they share ``max_concurrency`` (:func:`share`). A step that has an
    asynchronous ``close`` is closed."""
    items: Callable[[], Iterable[Item]]
    """Reads the items from the beginning; every process reads all of them and works those of its shards."""
    settings: WorkSettings = field(default_factory=WorkSettings)
    key: Callable[[Item], str] = attrgetter("id")
    """An item's id."""


@runtime_checkable
class Closes(Protocol):
    """A step that holds something."""

    async def close(self) -> None:
        """Give it back."""
        ...


def run(
    job: Job[Any],
    fingerprint: Mapping[str, Any],
    *,
    agents: Mapping[str, str] | None = None,
    total: int | None = None,
    accept_changes: bool = False,
    ray: bool = False,
    console: Console | None = None,
) -> StepAccount:
    """Work through a job, or go on with it.

    Args:
        job: what is done to which items.
        fingerprint: what decides the results (models, hashes of prompts, settings), as JSON takes it.
        agents: role -> name, for the account.
        total: items in all, where that is known, for the time left.
        accept_changes: go on in a folder that was begun under another fingerprint.
        ray: the shards as Ray tasks, on the cluster that this process is connected to or that ``RAY_ADDRESS`` names.
        console: where progress is shown; ``None`` shows none.

    Raises:
        ConfigError: the folder was begun with other settings, or another run is at work in it.
        DataError: an id stands twice, or what lies in the folder cannot be read.
        SteerError: an endpoint is dead, or the step has a fault. Nothing is lost, and the same command goes on.
        KeyboardInterrupt: the same holds.
    """
    plan = Plan(step=job.name, shards=job.settings.shards, fingerprint=dict(fingerprint))
    settle(job.folder, plan, accept_changes=accept_changes)
    tally = Tally(job.name, total)
    with Progress(tally, console) as progress:
        if ray:
            from steer_verl.work.cluster import work_on_ray

            work_on_ray(job, tally, progress.tick)
        else:
            asyncio.run(work_shards(job, range(job.settings.shards), 1, tally, progress.tick))
    return account(job.folder, agents)


async def work_shards(
    job: Job[Any], shards: Iterable[int], processes: int, tally: Tally, tick: Callable[[], None] = lambda: None
) -> None:
    """Work through some shards of a job in this process.

    Args:
        job: see :class:`Job`.
        shards: which of them.
        processes: how many do the same at the same time; items in flight are shared among them.
        tally: told of everything.
        tick: called about once a second.
    """
    settings = job.settings.model_copy(update={"in_flight": share(job.settings.in_flight, processes)})
    with contextlib.ExitStack() as stack:
        stores = {
            n: stack.enter_context(Store(shard_folder(job.folder, n), settings.lines_per_file)) for n in sorted(shards)
        }
        tally.before += sum(met - undone for met, undone, _ in (store.counts() for store in stores.values()))
        step = job.make_step(processes)
        try:
            if step.name != job.name:
                raise SteerError(f"the job {job.name!r} makes a step called {step.name!r}; give both the same name")
            await Engine(step, job.items(), stores, settings, tally, key=job.key, tick=tick).run()
        finally:
            if isinstance(step, Closes):
                await step.close()


def share(whole: int, processes: int) -> int:
    """One process's share of a bound, at least 1 and rounded up."""
    return -(-whole // processes)
