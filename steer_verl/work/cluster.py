"""The shards of a job as Ray tasks: each has an event loop and agents of its own, and a share of every bound.

All nodes see the job's folder under the same path. A task whose node dies is begun again elsewhere by Ray, and goes on
from what lies in its shard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steer_verl.errors import SteerError
from steer_verl.work.outcomes import outcome_files, shard_folders
from steer_verl.work.progress import Tally
from steer_verl.work.run import Job, work
from steer_verl.work.shards import Shards
from steer_verl.work.step import Outcome

RETRIES = 8
"""How often a shard is begun again whose process was lost."""
CLOSING = 5.0
"""Seconds that an interrupted task may take beyond its calls."""


class Secrets:
    """Values of those of the named environment variables that are set, on their way to a task.

    They are shown nowhere: Ray would log those of a ``runtime_env``.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._values: Mapping[str, str] = {name: os.environ[name] for name in names if name in os.environ}

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._values)})"

    def set(self) -> None:
        """Set the variables in this process."""
        os.environ.update(self._values)


def work_on_ray(job: Job[Any], tally: Tally, tick: Callable[[], None]) -> None:
    """Work through all shards of a job.

    Raises:
        SteerError: a shard has stopped, or its process was lost too often; the others are stopped too, and the same
            command goes on.
    """
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    seen = Follower(job.folder)
    shards = job.settings.shards
    processes = max(1, min(shards, int(ray.cluster_resources().get("CPU", 1))))
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_work_shard)
    running = {task.remote(job, shard, processes, Secrets(job.secrets)): shard for shard in range(shards)}
    try:
        while running:
            ready, _ = ray.wait(list(running), timeout=1.0)
            for outcome in seen.new():
                tally.end(outcome)
            tick()
            for reference in ready:
                _result(reference, job.name, running.pop(reference))
    finally:
        with contextlib.suppress(ray.exceptions.RayError):  # the cluster may be gone
            _stop(list(running), job.settings.grace)
        for outcome in seen.new():
            tally.end(outcome)


def _stop(running: list[Any], grace: float) -> None:
    """Interrupt tasks as Ctrl-C does, so that their calls under way come to their end; then end those that have not.

    Only those: Ray 2.60 aborts the whole process when it is told to end a task whose reply is on its way.
    """
    import ray

    for reference in running:
        ray.cancel(reference)
    if not running:
        return
    _, late = ray.wait(running, num_returns=len(running), timeout=grace + CLOSING)
    for reference in late:
        ray.cancel(reference, force=True)


def _work_shard(job: Job[Any], shard: int, processes: int, secrets: Secrets) -> None:
    """What a Ray task does."""
    secrets.set()
    with Shards(job.folder, job.name, job.settings, [shard]) as shards:
        asyncio.run(work(job, shards, processes, Tally(job.name)))


def _result(reference: Any, step: str, shard: int) -> None:
    """Raise what the task has raised."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SteerError):
            raise SteerError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:
        first = str(error).splitlines()[0]
        raise SteerError(f"{step}: the process of shard {shard} was lost ({first}); the same command goes on") from None


class Follower:
    """Reads what other processes append to the outcomes in a step's folder from now on, each line once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read = {path: path.stat().st_size for path in self._files()}
        """Bytes of each file that were read, up to the end of a line."""

    def new(self) -> Iterator[Outcome]:
        """Outcomes that were written since the last call; what cannot be read is passed over."""
        for path in self._files():
            start = self._read.get(path, 0)
            if path.stat().st_size <= start:  # a smaller one was written anew: nothing is new in it
                continue
            with path.open("rb") as file:
                file.seek(start)
                *whole, torn = file.read().split(b"\n")
                self._read[path] = file.tell() - len(torn)
            for line in whole:
                with contextlib.suppress(ValidationError):
                    yield Outcome.model_validate_json(line)

    def _files(self) -> Iterator[Path]:
        return (path for shard in shard_folders(self.folder) for path in outcome_files(shard))
