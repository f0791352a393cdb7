"""The loop of a step: items in flight, tries, and when to stop.

Workers take items from one iterator, so that no more than ``in_flight`` of them are at work or wait for their next try,
however many there are.

What becomes of a try that fails:

* An agent that would fail again: the item is rejected with the agent's reason.
* An agent that failed for the moment: after a pause, the item is tried again. Its last failure rejects it, if any other
  item has ended since its first: then the world works, and it is the item.
* If none has, or if ``dead_after`` such failures came in a row, an endpoint is dead: the run stops, and no item is
  rejected for that.
* Anything else is a fault of the step, and the run stops.

However it stops, the calls under way come to their end first (``grace``), and every reply is kept.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from steer_verl.errors import SteerError
from steer_verl.models.failure import AgentFailed
from steer_verl.work.progress import Tally
from steer_verl.work.shards import Shards
from steer_verl.work.step import Done, Outcome, Rejected, Step, WorkSettings
from steer_verl.work.store import Store


@dataclass
class _Task:
    """An item at work."""

    id: str
    item: Any
    store: Store
    content: str = ""
    failures: int = 0
    ended_then: int = 0
    """Items that had ended when it failed first."""


class Engine:
    """Works a step over those of its items that belong to the open shards; see :class:`~steer_verl.work.job.Job`."""

    def __init__(
        self,
        step: Step[Any],
        items: Iterable[Any],
        shards: Shards,
        settings: WorkSettings,
        tally: Tally,
        *,
        key: Callable[[Any], str] = attrgetter("id"),
        content: Callable[[Any], str] = lambda item: "",
        source: str = "",
    ) -> None:
        self.step, self.shards, self.settings, self.tally = step, shards, settings, tally
        self.key, self.content, self.source = key, content, source
        self._tasks = self._unfinished(items)
        self._ended = 0
        """Items that ended by their own doing."""
        self._failures_in_a_row = 0
        self._fault: BaseException | None = None
        """The first one; others may follow from it."""

    async def run(self) -> None:
        """Until every item has ended; a dead endpoint, a fault of the step or of the source is a ``SteerError``."""
        first = next(self._tasks, None)
        if first is None:
            return
        if opens := getattr(self.step, "open", None):
            await opens()
        self._tasks = itertools.chain([first], self._tasks)
        workers = [asyncio.create_task(self._worker()) for _ in range(self.settings.in_flight)]
        ticker = asyncio.create_task(self._tick())
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await self._wind_down(workers)
            ticker.cancel()
        if self._fault is not None:
            raise self._fault

    async def _wind_down(self, workers: list[asyncio.Task[None]]) -> None:
        """Begin nothing new, and let the calls under way come to their end: they are paid for."""
        self.shards.stopping = self.tally.stopping = not all(worker.done() for worker in workers)
        if self.tally.stopping:
            self.tally.tick(at_once=True)
        try:
            await asyncio.wait(workers, timeout=self.settings.grace)
        finally:  # a second Ctrl-C does not wait
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        self.tally.stopping = False

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.tally.tick()

    def _unfinished(self, items: Iterable[Any]) -> Iterator[_Task]:
        """The items of these shards that have not ended."""
        for mine in self.shards.stores.values():
            mine.begin_reading()
        for item in items:
            name = self.key(item)
            store = self.shards.store_of(name)
            if store is not None and store.meet(name):
                yield _Task(name, item, store, self.content(item))
        for mine in self.shards.stores.values():
            mine.read_whole(self.source)

    async def _worker(self) -> None:
        try:
            while not self.shards.stopping and (task := next(self._tasks, None)) is not None:
                while not self.shards.stopping and not await self._tried(task):
                    await self._pause(task)
        except asyncio.CancelledError:
            raise
        except BaseException as fault:
            self._fault = self._fault or fault
            self.shards.stopping = True
            raise

    async def _pause(self, task: _Task) -> None:
        """Until the next try is due, or none is to be begun any more."""
        due = time.monotonic() + self.settings.pause * 2.0 ** (task.failures - 1)
        while not self.shards.stopping and (left := due - time.monotonic()) > 0:
            await asyncio.sleep(min(1.0, left))

    async def _tried(self, task: _Task) -> bool:
        """One try; whether the item has ended."""
        await asyncio.sleep(0)  # a step that never waits must not keep the others from their turn
        start = time.monotonic()
        where = f"{self.step.name}/{task.id}"
        try:
            done = await self.step.work(task.item, self.shards.place(task.id))
        except AgentFailed as why:
            if why.transient and not self._blamed(task, why):
                self.tally.failures += 1
                return False
            given_up, value = why.transient, why.value
            done = Rejected(reason=why.reason, detail=why.detail, value=value, stage=why.stage, given_up=given_up)
        except asyncio.CancelledError as error:
            if self.shards.stopping:
                raise
            what, hint = "the step called itself off", "let it say what becomes of the item"
            raise SteerError(f"{where}: {what}; {hint}") from error
        except SteerError as error:
            raise SteerError(f"{where}: {error}") from error
        except Exception as error:
            what, hint = f"{type(error).__name__}: {error}", "mend the step, and the same command goes on"
            raise SteerError(f"{where}: the step failed ({what}); {hint}") from error
        self._end(task, done, start)
        return True

    def _end(self, task: _Task, done: Done, start: float) -> None:
        """The final word."""
        seconds = time.monotonic() - start
        outcome = Outcome(id=task.id, done=done, content=task.content, usage=task.store.usage(task.id), seconds=seconds)
        task.store.finish(outcome)
        self.tally.end(outcome)
        if done.status == "kept" or not done.given_up:  # the agents that it needed were there
            self._ended += 1
            self._failures_in_a_row = 0

    def _blamed(self, task: _Task, failure: AgentFailed) -> bool:
        """Whether an item is rejected because an agent has failed for the moment once more.

        Raises:
            SteerError: an endpoint is to blame.
        """
        if task.failures == 0:
            task.ended_then = self._ended
        task.failures += 1
        last = task.failures >= self.settings.tries
        if self._ended == task.ended_then and not self.settings.give_up:
            self._failures_in_a_row += 1
            if last or self._failures_in_a_row >= self.settings.dead_after:
                raise SteerError(self._dead(task, failure))
        return last

    def _dead(self, task: _Task, failure: AgentFailed) -> str:
        detail = f" ({failure.detail})" if failure.detail else ""
        what = f"nothing has succeeded since the last {self._failures_in_a_row} failures"
        last = f"the last: {failure.reason}{detail} at item {task.id!r}"
        hint = "see to the endpoint, and the same command goes on; if it is well, give_up=true rejects what still fails"
        return f"{self.step.name}: {what}, {last}; no item is lost: {hint}"
