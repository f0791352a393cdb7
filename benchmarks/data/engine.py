"""Is a server kept busy, and memory flat? ``STEER_CPU=1 python -m benchmarks.data.engine``.

* **Throughput.** A real HTTP server in a process of its own has a fixed number of slots and takes a fixed time over a
  request; more than that wait in its queue. A step of three calls in a row goes through the real transport. What was
  served, against what the slots can serve in the whole time from the engine's first request to its last answer; a slot
  that the machine lets wait beyond its time serves less, whoever asks, so the share of time that the slots were held
  is told too.
* **Memory.** The peak of a process that works a step with embedded agents over 100 to 100,000 items.

Writes benchmarks/data/engine.md.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks import pages
from steer_verl.config import EndpointConfig
from steer_verl.models.cache import ReplyCache, remembered
from steer_verl.models.place import Place
from steer_verl.models.request import Reply
from steer_verl.types import Usage
from steer_verl.work.job import Job
from steer_verl.work.manifest import account
from steer_verl.work.run import run
from steer_verl.work.step import Done, Kept, Rejected, WorkSettings
from tests.models.fault_server import MODEL, FaultServer, Request, Step, says
from tests.work.calls import CALLS, calls_job
from tests.work.scripted import Thing

SLOTS, SERVICE = 16, 0.4
"""Requests that the server works on at the same time, and the seconds that each takes."""
CONCURRENCY = SLOTS * 3 // 2
SIZES = (100, 1_000, 10_000, 100_000)
SPAWN = multiprocessing.get_context("spawn")


def serve(pipe: Any) -> None:
    """The server's process: its address goes out, a word comes in, and each request's moments go out: when it came,
    when it got a slot, and when it was done."""
    moments: list[tuple[float, float, float]] = []
    slots, word = asyncio.Semaphore(SLOTS), says("a word")

    async def act(request: Request) -> web.StreamResponse:
        came = time.monotonic()
        async with slots:
            begun = time.monotonic()
            await asyncio.sleep(SERVICE)
            moments.append((came, begun, time.monotonic()))
        return await word.act(request)

    async def until_told() -> None:
        async with FaultServer(Step("slot", act), keep=False) as server:
            pipe.send(server.base_url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(until_told())
    pipe.send(moments)


def throughput(items: int) -> dict[str, str]:
    """What the server saw of so many items, and the engine's CPU."""
    ours, theirs = SPAWN.Pipe()
    server = SPAWN.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    config = EndpointConfig(base_url=ours.recv(), model=MODEL, max_concurrency=CONCURRENCY)
    with tempfile.TemporaryDirectory() as folder:
        job = calls_job(Path(folder), config, items, WorkSettings(in_flight=4 * CONCURRENCY))
        cpu = time.process_time()
        found = run(job, {})
        cpu = time.process_time() - cpu
    assert found.complete and found.kept == items
    ours.send("end")
    came, begun, done = zip(*ours.recv(), strict=True)
    server.join(30)
    requests, seconds = len(came), max(done) - min(came)
    return {
        "requests served": str(requests),
        "seconds, first request to last answer": f"{seconds:.2f}",
        "requests a second": f"{requests / seconds:.1f}",
        "**share of what the server can serve**": f"**{requests * SERVICE / (SLOTS * seconds):.1%}**",
        "share of the time that its slots were held": f"{(sum(done) - sum(begun)) / (SLOTS * seconds):.1%}",
        "engine and transport, CPU a request (ms)": f"{1000 * cpu / requests:.2f}",
    }


class Embedded:
    """A step whose agents are rules: three replies an item are kept, one item in ten is rejected."""

    name = "embedded"

    def __init__(self, cache: ReplyCache) -> None:
        self.cache = cache

    async def work(self, item: Thing, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        rules = [(f"rule {n}", partial(self._rule, f"{item.id} {n} " + 200 * "x", place)) for n in range(3)]
        said = [(await remembered(self.cache, place, name, Reply, rule)).content for name, rule in rules]
        if item.size % 10 == 0:
            return Rejected(reason="tenth", value={"said": said})
        return Kept(value={"id": item.id, "said": said})

    async def _rule(self, reply: str, place: Place) -> Reply:
        place.spend(Usage(requests=1, prompt_tokens=100))
        await asyncio.sleep(0)
        return Reply(content=reply)


def embedded(count: int) -> tuple[float, float, float]:
    """Of this process with ``count`` items: peak MiB, seconds, and MiB of the largest shard's state file at the end."""
    with tempfile.TemporaryDirectory() as folder:
        items = partial(map, lambda n: Thing(id=f"thing {n}", size=n), range(count))
        job = Job("embedded", Path(folder), lambda _, cache: Embedded(cache), items)
        start = time.monotonic()
        found = run(job, {})
        seconds = time.monotonic() - start
        assert found == account(job.folder)
        assert (found.entered, found.kept) == (count, count - len(range(0, count, 10)))
        state = max(path.stat().st_size for path in job.folder.rglob("state.sqlite")) / 2**20
    status = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss may be the parent's
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024, seconds, state


def main() -> None:
    """Measure both and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=600)
    items = parser.parse_args().items
    figures, memory = throughput(items), []
    for count in SIZES:
        with ProcessPoolExecutor(1, SPAWN) as alone:
            peak, seconds, state = alone.submit(embedded, count).result()
        memory.append([f"{count:,}", f"{peak:.1f}", f"{seconds:.1f}", f"{count / seconds:.0f}", f"{state:.2f}"])
    head = ["items", "peak memory (MiB)", "seconds", "items a second", "state file at the end, largest shard (MiB)"]
    pages.write(
        Path(__file__).with_suffix(".md"),
        "# The engine of the data pipeline",
        pages.written("STEER_CPU=1 python -m benchmarks.data.engine"),
        "## Throughput",
        f"A real HTTP server in a process of its own: {SLOTS} slots, {SERVICE} s a request, so {SLOTS / SERVICE:.0f} "
        f"requests a second at best. {items} items of {CALLS} calls in a row through the real transport, "
        f"`max_concurrency` {CONCURRENCY}.",
        pages.table(["", ""], figures.items()),
        "Start and end of the run are in it: when fewer items are left than there are slots, nothing can keep them all "
        "busy.",
        "## Memory",
        "A step with embedded agents, three kept replies an item; each row is a process of its own.",
        pages.table(head, memory),
    )


if __name__ == "__main__":
    main()
