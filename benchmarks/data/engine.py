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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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

HERE = Path(__file__).parent
SLOTS, SERVICE = 16, 0.4
"""Requests that the server works on at the same time, and the seconds that each takes."""
SIZES = (100, 1_000, 10_000, 100_000)


@dataclass(frozen=True)
class Served:
    """What the server saw."""

    requests: int
    seconds: float
    """From the first request's arrival to the last answer."""
    held: float
    """Seconds that slots were held, in all."""

    @property
    def busy(self) -> float:
        """Share of the slots' time in which they were held."""
        return self.held / (SLOTS * self.seconds)

    @property
    def share(self) -> float:
        """Of what its slots can serve in that time."""
        return self.requests * SERVICE / (SLOTS * self.seconds)


class _Slots:
    """The server's work: ``SLOTS`` at a time, ``SERVICE`` seconds each."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(SLOTS)
        self.first = self.last = self.held = 0.0
        self._word = says("a word")

    async def act(self, request: Request) -> Any:
        """Wait for a slot, and hold it."""
        self.first = self.first or time.monotonic()
        async with self.free:
            start = time.monotonic()
            await asyncio.sleep(SERVICE)
            self.held += time.monotonic() - start
        reply = await self._word.act(request)
        self.last = time.monotonic()
        return reply


def _serve(pipe: Any) -> None:
    """The server's process: its address goes out, a word comes in, and what it saw goes out."""

    async def serve() -> None:
        slots = _Slots()
        async with FaultServer(Step("slot", slots.act), keep=False) as server:
            pipe.send(server.base_url)
            await asyncio.to_thread(pipe.recv)
            pipe.send(Served(server.requests, slots.last - slots.first, slots.held))

    asyncio.run(serve())


def throughput(items: int, concurrency: int, folder: Path) -> tuple[Served, float]:
    """What the server saw of so many items, and the engine's seconds of CPU for a call."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    config = EndpointConfig(base_url=ours.recv(), model=MODEL, max_concurrency=concurrency)
    job = calls_job(folder, config, items, WorkSettings(in_flight=4 * concurrency))
    cpu = time.process_time()
    found = run(job, {})
    cpu = time.process_time() - cpu
    assert found.complete and found.kept == items
    ours.send("end")
    served: Served = ours.recv()
    server.join(30)
    return served, cpu / served.requests


class Embedded:
    """A step whose agents are rules: three replies an item are kept, one item in ten is rejected."""

    name = "embedded"

    def __init__(self, cache: ReplyCache) -> None:
        self.cache = cache

    async def work(self, item: Thing, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        said = []
        for n in range(3):
            rule = partial(self._rule, item, n, place)
            said.append((await remembered(self.cache, place, f"rule {n}", Reply, rule)).content)
        if item.size % 10 == 0:
            return Rejected(reason="tenth", value={"said": said})
        return Kept(value={"id": item.id, "said": said})

    async def _rule(self, item: Thing, n: int, place: Place) -> Reply:
        place.spend(Usage(requests=1, prompt_tokens=100))
        await asyncio.sleep(0)
        return Reply(content=f"{item.id} {n} " + 200 * "x")


def embedded_items(count: int) -> Iterator[Thing]:
    """The items, made as they are read."""
    return (Thing(id=f"thing {n}", size=n) for n in range(count))


def embedded(count: int) -> None:
    """In a process of its own: prints peak memory in MiB and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job("embedded", Path(folder), lambda _, cache: Embedded(cache), lambda: embedded_items(count))
        start = time.monotonic()
        found = run(job, {})
        seconds = time.monotonic() - start
        assert found == account(job.folder)
        assert (found.entered, found.kept) == (count, count - len(range(0, count, 10)))
        print(_peak(), seconds, max(path.stat().st_size for path in job.folder.rglob("state.sqlite")) / 2**20)


def _peak() -> float:
    """This process's peak memory in MiB; ``ru_maxrss`` would tell its parent's, where that is greater."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def measured(count: int) -> list[float]:
    """Peak MiB, seconds, and MiB of the largest shard's state file at the end, of ``count`` embedded items."""
    command = [sys.executable, "-m", "benchmarks.data.engine", "--embedded", str(count)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in printed.split()]


def main() -> None:
    """Measure both and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--concurrency", type=int, default=SLOTS * 3 // 2)
    parser.add_argument("--embedded", type=int, help="measure so many embedded items in this process")
    args = parser.parse_args()
    if args.embedded:
        embedded(args.embedded)
        return
    with tempfile.TemporaryDirectory() as folder:
        served, cpu = throughput(args.items, args.concurrency, Path(folder))
    sizes = {count: measured(count) for count in SIZES}
    figures = {
        "requests served": served.requests,
        "seconds, first request to last answer": f"{served.seconds:.2f}",
        "requests a second": f"{served.requests / served.seconds:.1f}",
        "**share of what the server can serve**": f"**{served.share:.1%}**",
        "share of the time that its slots were held": f"{served.busy:.1%}",
        "engine and transport, CPU a request (ms)": f"{1000 * cpu:.2f}",
    }
    memory = [
        [f"{n:,}", f"{peak:.1f}", f"{s:.1f}", f"{n / s:.0f}", f"{mib:.2f}"] for n, (peak, s, mib) in sizes.items()
    ]
    state = "state file at the end, largest shard (MiB)"
    pages.write(
        HERE / "engine.md",
        "# The engine of the data pipeline",
        pages.written("STEER_CPU=1 python -m benchmarks.data.engine"),
        "## Throughput",
        f"A real HTTP server in a process of its own: {SLOTS} slots, {SERVICE} s a request, so {SLOTS / SERVICE:.0f} "
        f"requests a second at best. {args.items} items of {CALLS} calls in a row through the real transport, "
        f"`max_concurrency` {args.concurrency}.",
        pages.table(["", ""], figures.items()),
        "Start and end of the run are in it: when fewer items are left than there are slots, nothing can keep them all "
        "busy.",
        "## Memory",
        "A step with embedded agents, three kept replies an item; each row is a process of its own.",
        pages.table(["items", "peak memory (MiB)", "seconds", "items a second", state], memory),
    )


if __name__ == "__main__":
    main()
