"""The door of the engine: working through a job, in this process or as Ray tasks.

The same folders, counts and resume either way: a job that was begun here goes on there, and back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from steer_verl.records import write_whole
from steer_verl.work.cluster import work_on_ray
from steer_verl.work.job import Job, work
from steer_verl.work.manifest import PLAN, Plan, StepAccount, account, agreed, counted, read_plan
from steer_verl.work.progress import Tally
from steer_verl.work.shards import Shards
from steer_verl.work.step import Outcome
from steer_verl.work.store import EARLIER, RETRIED


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
