"""The door of the engine: a job, and working through it, in this process or as Ray tasks.

The same folders, counts and resume either way: a job that was begun here goes on there, and back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console

from steer_verl.errors import SteerError
from steer_verl.models.cache import ReplyCache
from steer_verl.records import write_whole
from steer_verl.work.engine import Engine
from steer_verl.work.manifest import PLAN, Plan, StepAccount, account, agreed, counted, read_plan
from steer_verl.work.progress import Tally
from steer_verl.work.shards import Shards
from steer_verl.work.step import Outcome, Step, WorkSettings
from steer_verl.work.store import EARLIER, RETRIED

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


def run(
    job: Job[Any],
    fingerprint: Mapping[str, Any],
    *,
    agents: Mapping[str, str] | None = None,
    total: int | None = None,
    accept_changes: bool = False,
    retry: Callable[[Outcome], bool] | None = None,
    ray: bool = False,
    console: Console | None = None,
) -> StepAccount:
    """Work through a job, or go on with it. Items that have left the source since count no more.

    Args:
        job: what is done to which items.
        fingerprint: what decides the results (models, hashes of prompts, settings), as JSON takes it.
        agents: role -> name, for the account.
        total: items in all, where that is known, for the time left.
        accept_changes: a folder of another fingerprint is worked anew; what is asked as before is replayed.
        retry: which items that have ended are worked again; see :func:`~steer_verl.work.step.given_up`.
        ray: the shards as Ray tasks, on the cluster that this process is connected to or that ``RAY_ADDRESS`` names.
        console: where progress is shown; ``None`` shows none.

    Raises:
        SteerError: an endpoint is dead, the step has a fault, an id stands twice, the folder was begun with other
            settings, or another run is at work in it. Nothing is lost, nor by Ctrl-C, and the same command goes on.
    """
    plan = agreed_plan(job, fingerprint, accept_changes)
    with Tally(job.name, total, console) as tally:
        with Shards(job.folder, job.name, job.settings) as shards:
            finished = _prepared(job, plan, shards, retry, tally)
            if not finished and not ray:
                asyncio.run(work(job, shards, 1, tally))
            found = counted(plan, shards, agents)
        if not finished and ray:
            from steer_verl.work.cluster import work_on_ray

            work_on_ray(job, tally)
            found = account(job.folder, agents)
    return found


def agreed_plan(job: Job[Any], fingerprint: Mapping[str, Any], accept_changes: bool) -> Plan:
    """The plan by which a job is to go on; nothing is written, so that a folder that refuses it is left as it is.

    Raises:
        ConfigError: the folder was begun with other settings.
    """
    as_read = json.loads(json.dumps(dict(fingerprint)))
    plan = Plan(step=job.name, shards=job.settings.shards, fingerprint=as_read)
    return agreed(job.folder, plan, accept_changes=accept_changes)


def _prepared(job: Job[Any], plan: Plan, shards: Shards, retry: Callable[[Outcome], bool] | None, tally: Tally) -> bool:
    """Take out what is to be worked again, then begin by the plan; whether nothing is left to do.

    In this order: whenever it is killed, the outcomes that lie in the folder were made by the folder's plan.
    """
    changed = (read_plan(job.folder) or plan).fingerprint != plan.fingerprint
    for store in shards.stores.values():
        if changed:
            store.take_out(lambda outcome: True, EARLIER.format(len(plan.earlier)))
        elif retry is not None:
            store.take_out(retry, RETRIED)
    write_whole(job.folder / PLAN, plan.model_dump_json(indent=1) + "\n")
    found = counted(plan, shards)
    finished = bool(job.source) and found.complete and found.source == job.source
    if not finished and found.entered > found.undone and job.content is not None:
        _take_out_changed(job, job.content, shards)
        found = counted(plan, shards)
    tally.before = found.entered - found.undone
    return finished


def _take_out_changed(job: Job[Any], content: Callable[[Any], str], shards: Shards) -> None:
    """The same id may hold something else: a row's licence was corrected, or it serves another set now."""
    for item in job.items():
        if store := shards.store_of(job.key(item)):
            store.compare(job.key(item), content(item))
    for store in shards.stores.values():
        store.take_out_changed()


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
