"""The shards of a job as Ray tasks: each has an event loop and agents of its own, and a share of every bound.

All nodes see the job's folder under the same path. A task whose node dies is begun again elsewhere by Ray, and goes on
from what lies in its shard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from steer_verl.errors import SteerError
from steer_verl.text import one_line
from steer_verl.work.job import Job, work
from steer_verl.work.outcomes import outcome_files
from steer_verl.work.progress import Tally
from steer_verl.work.shards import Shards
from steer_verl.work.step import Outcome

RETRIES = 8
"""How often a shard is begun again whose process was lost."""
CLOSING = 5.0
"""Seconds that an interrupted task may take beyond its calls."""


def work_on_ray(job: Job[Any], tally: Tally) -> None:
    """Work through all shards of a job. One that stops, or is lost too often, stops the others (``SteerError``)."""
    import ray

    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            hint = "correct RAY_ADDRESS, or unset it to have a Ray of its own"
            raise SteerError(f"{job.name}: no Ray can be had ({one_line(str(error))}); {hint}") from None
    seen, shards, secrets = Follower(job.folder), job.settings.shards, secrets_of(job.secrets)
    processes = max(1, min(shards, int(ray.cluster_resources().get("CPU", 1))))
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_work_shard)
    running = {task.remote(job, shard, processes, secrets): shard for shard in range(shards)}
    try:
        while running:
            ready, _ = ray.wait(list(running), timeout=1.0)
            tally.end(*seen.new())
            tally.tick()
            for reference in ready:
                _result(reference, job.name, running.pop(reference))
    finally:
        with contextlib.suppress(ray.exceptions.RayError):  # the cluster may be gone
            _stop(list(running), job.settings.grace)
        tally.end(*seen.new())


def secrets_of(names: Iterable[str]) -> dict[str, SecretStr]:
    """Those of the environment variables that are set. They are shown nowhere: Ray would log a ``runtime_env``."""
    return {name: SecretStr(os.environ[name]) for name in names if name in os.environ}


def _work_shard(job: Job[Any], shard: int, processes: int, secrets: Mapping[str, SecretStr]) -> None:
    """What a Ray task does."""
    os.environ.update({name: value.get_secret_value() for name, value in secrets.items()})
    with Shards(job.folder, job.name, job.settings, [shard]) as shards:
        asyncio.run(work(job, shards, processes, Tally(job.name)))


def _stop(running: list[Any], grace: float) -> None:
    """Interrupt tasks as Ctrl-C does, so that their calls under way come to their end; then end those that have not.

    Only those: Ray 2.60 aborts the whole process when it is told to end a task whose reply is on its way.
    """
    import ray

    for reference in running:
        ray.cancel(reference)
    if running:
        _, late = ray.wait(running, num_returns=len(running), timeout=grace + CLOSING)
        for reference in late:
            ray.cancel(reference, force=True)


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
        self._read = Counter({path: path.stat().st_size for path in outcome_files(folder)})
        """Bytes of each file that were read, up to the end of a line."""

    def new(self) -> Iterator[Outcome]:
        """Outcomes that were written since the last call; what cannot be read is passed over."""
        for path in outcome_files(self.folder):
            if path.stat().st_size <= self._read[path]:
                continue
            with path.open("rb") as file:
                file.seek(self._read[path])
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] += len(line)
                    with contextlib.suppress(ValidationError):
                        yield Outcome.model_validate_json(line)
