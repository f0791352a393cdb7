"""How long the event loop stood still at a time, and how much of that time was ours.

Every step of every task on the loop is timed, and within it every stretch spent in our code: from where the loop enters
it to where it comes back, whatever of verl's, Ray's or the system's lies between.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rollout.agent_loop import DialogueOutput, SteerAgentLoop
from rollout.images import SharedImages
from rollout.processors import EncodeOnce

NOTED_FROM = 0.004
"""Seconds from which a step is kept."""


@dataclass
class Stalls:
    """Seconds of every step longer than ``NOTED_FROM``: the whole, our part, and our part's CPU time of this thread."""

    steps: list[tuple[float, float, float]] = field(default_factory=list)
    entered: int = 0
    """How many times our code was entered: a measurement that missed it would be none."""

    def longest(self) -> float:
        """Whoever caused it."""
        return max((whole for whole, _, _ in self.steps), default=0.0)

    def longest_of_ours(self) -> float:
        """In our code by the clock: what the system gave to other threads and processes meanwhile is counted."""
        return max((ours for _, ours, _ in self.steps), default=0.0)

    def most_work_of_ours(self) -> float:
        """CPU time in our code: of it alone."""
        return max((work for _, _, work in self.steps), default=0.0)


class Meter:
    """Sums our time within one step; a call within a call is counted once."""

    def __init__(self, stalls: Stalls) -> None:
        self.stalls, self.depth = stalls, 0
        self.ours = self.work = 0.0
        self.thread = threading.get_ident()

    @contextlib.contextmanager
    def within(self) -> Iterator[None]:
        """A stretch of our code on the loop's thread; in others (pictures are encoded there) it holds up nobody."""
        if threading.get_ident() != self.thread:
            yield
            return
        self.depth += 1
        self.stalls.entered += 1
        began, work = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                self.ours += time.perf_counter() - began
                self.work += time.thread_time() - work

    def call(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A function of ours, called on the loop's thread."""

        @functools.wraps(plain)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within():
                return plain(*args, **kwargs)

        return timed

    def coroutine(self, plain: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """A coroutine of ours: each stretch between two waits of its own."""

        @functools.wraps(plain)
        async def timed(*args: Any, **kwargs: Any) -> Any:
            return await _Stretches(plain(*args, **kwargs), self)

        return timed


@dataclass
class _Stretches:
    work: Awaitable[Any]
    meter: Meter

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self.work.__await__()
        resume: Callable[[], Any] = functools.partial(next, inner)
        while True:
            try:
                with self.meter.within():
                    waits_for = resume()
            except StopIteration as stop:
                return stop.value
            try:
                resume = functools.partial(inner.send, (yield waits_for))
            except BaseException as error:  # a cancellation is the inner one's to hear of
                resume = functools.partial(inner.throw, error)  # type: ignore[attr-defined]


@contextlib.contextmanager
def watched() -> Iterator[Stalls]:
    """Time the steps of the loop that runs inside, on this thread."""
    stalls = Stalls()
    meter = Meter(stalls)
    with contextlib.ExitStack() as undo:

        def put(owner: Any, name: str, value: Any) -> None:
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        put(SteerAgentLoop, "__init__", meter.call(SteerAgentLoop.__init__))
        put(SteerAgentLoop, "run", meter.coroutine(SteerAgentLoop.run))
        put(DialogueOutput, "as_dict", meter.call(DialogueOutput.as_dict))
        put(SharedImages, "_begin", _begun(SharedImages._begin, meter))
        put(EncodeOnce, "_together", meter.call(EncodeOnce._together))
        put(asyncio.Handle, "_run", stepped(asyncio.Handle._run, stalls, meter))
        yield stalls


def _begun(plain: Callable[..., None], meter: Meter) -> Callable[..., None]:
    """What a group does in tasks of its own."""

    def begin(self: SharedImages, key: Hashable, work: Callable[[], Awaitable[Any]]) -> None:
        plain(self, key, meter.coroutine(work))

    return begin


def stepped(plain: Callable[[asyncio.Handle], None], stalls: Stalls, meter: Meter) -> Callable[..., None]:
    """``asyncio.Handle._run`` that keeps its time and our part in it."""

    def timed(handle: asyncio.Handle) -> None:
        meter.ours = meter.work = 0.0
        began = time.perf_counter()
        plain(handle)
        seconds = time.perf_counter() - began
        if seconds > NOTED_FROM:
            stalls.steps.append((seconds, meter.ours, meter.work))

    return timed
