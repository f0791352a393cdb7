"""A step of calls over the real transport, and a process that works it: ``python -m tests.work.calls``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console

from steer_verl.config import EndpointConfig
from steer_verl.errors import SteerError
from steer_verl.models.asking import Asker
from steer_verl.models.cache import ReplyCache
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.work.job import Job, share
from steer_verl.work.run import run
from steer_verl.work.step import Done, Kept, WorkSettings
from tests.work.scripted import Thing, things

CALLS = 3
CONCURRENCY = 8


class CallStep:
    """Three calls in a row, each with the last one's answer in it."""

    name = "calls"

    def __init__(self, config: EndpointConfig, cache: ReplyCache) -> None:
        self.asker = Asker(config, "call", None, cache=cache)

    async def work(self, item: Thing, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        said = item.id
        for number in range(CALLS):
            said = await self.asker.answer((Said(role="user", text=said),), place.part(f"{number}"))
        return Kept(value={"id": item.id, "said": said})

    async def close(self) -> None:
        """Close the connections."""
        await self.asker.close()


def make_step(config: EndpointConfig, processes: int, cache: ReplyCache) -> CallStep:
    """A step with its share of the endpoint."""
    return CallStep(config.model_copy(update={"max_concurrency": share(config.max_concurrency, processes)}), cache)


def read(count: int) -> Iterator[Thing]:
    """The items."""
    yield from things(count)


def calls_job(
    folder: Path, config: EndpointConfig, count: int, settings: WorkSettings, secrets: tuple[str, ...] = ()
) -> Job[Thing]:
    """The job, fit to be pickled."""
    return Job("calls", folder, partial(make_step, config), partial(read, count), settings, secrets=secrets)


def main(folder: str, base_url: str, count: str) -> None:
    """Work through ``count`` items at the server."""
    config = EndpointConfig(base_url=base_url, model="fake-tutor", max_concurrency=CONCURRENCY)
    job = calls_job(Path(folder), config, int(count), WorkSettings(in_flight=24, shards=4))
    try:
        run(job, {"model": "fake-tutor"}, console=Console(width=150))
    except SteerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
