"""The servers of one endpoint: which one is asked, when it is asked again, and for how long in all.

* **Choice.** A dialogue stays with one server, which has its prefix in the cache: rendezvous hashing of the seed, by
  weight. While that server's breaker is open, the next in the dialogue's own order stands in.
* **Fail-over.** After a failure that may pass, the next healthy server is asked at once. Only when none is left is
  there a pause: exponential with full jitter, and never before a Retry-After or before an open breaker's next probe.
* **Deadline.** One for the whole ruling: attempts, pauses, re-asks, fail-over. It stands still while the ruling waits
  for a place in our own queue, so that a long queue at a healthy server costs no verdict. A pause that would reach past
  it is not begun: the failure is told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from steer_verl.config import EndpointConfig
from steer_verl.transport.endpoint import Request, Server
from steer_verl.transport.failure import CallFailed
from steer_verl.transport.inquiry import Inquiry
from steer_verl.transport.ledger import kept_text
from steer_verl.transport.limiter import Gate
from steer_verl.transport.reply import Reply
from steer_verl.transport.servers import by_affinity, servers_of
from steer_verl.types import UnscoredReason, Usage

logger = logging.getLogger(__name__)

BACKOFF_BASE, BACKOFF_CAP = 0.5, 20.0
"""Seconds: the n-th pause is drawn evenly from [0, min(cap, base * 2**n)]."""


@dataclass
class _Course:
    """How one request is faring."""

    inquiry: Inquiry
    order: list[Server]
    """The dialogue's own order of preference."""
    attempts: int = 0
    retries: int = 0
    pauses: int = 0
    turned_away: bool = False
    tried: dict[Server, float] = field(default_factory=dict)
    """Servers that failed, each with the time before which it must not be asked again."""
    failure: CallFailed | None = None


class Pool:
    """Made by :mod:`steer_verl.transport.lease`, so that all who ask with the same settings share it.

    Args:
        config: the first server, its mirrors, and the limits.

    Raises:
        ConfigError: an address cannot be one.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self.servers = [Server(single) for single in servers_of(config)]
        # Rulings at work: twice what may be in flight, so that those in a pause leave no place empty, and no more,
        # because each holds its prompt with the pictures.
        self.gate = Gate(2 * config.max_concurrency * len(self.servers))
        self.users = 0
        self.rng = random.Random()
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __repr__(self) -> str:
        return f"Pool({', '.join(map(repr, self.servers))})"

    @contextlib.asynccontextmanager
    async def admitted(self, inquiry: Inquiry) -> AsyncIterator[None]:
        """Wait until one more ruling may be at work here; around its prompt and all of its requests."""
        with inquiry.deadline.stopped():
            await self.gate.enter()
        try:
            yield
        finally:
            self.gate.leave()

    async def complete(self, messages: list[dict[str, Any]], schema: dict[str, Any] | None, inquiry: Inquiry) -> Reply:
        """One reply, by whichever server gives it.

        Args:
            messages: chat messages.
            schema: JSON schema asked for; ``None`` asks for plain text.
            inquiry: whose request it is; it learns what the request cost.

        Raises:
            CallFailed: no reply came; its reason says why.
        """
        course = _Course(inquiry, by_affinity(self.servers, inquiry.seed))
        while True:
            server = await self._choose(course)
            with inquiry.deadline.stopped():
                await server.limiter.enter()
            try:
                permit = server.breaker.admit()
                if permit is None:  # its state changed while we waited for a place
                    continue
                request = server.request(messages, schema, inquiry.sampling)
                try:
                    return await self._attempt(server, permit, request, course)
                except CallFailed as failure:
                    if not server.adapt(failure, request):
                        self._take(failure, server, course)
            finally:
                server.limiter.leave()

    async def models(self) -> list[str]:
        """Names of the models that the first server offers; empty when it keeps no list.

        Raises:
            CallFailed: unreachable, or the key is refused.
        """
        return await self.servers[0].models()

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(server.close() for server in self.servers))

    async def _choose(self, course: _Course) -> Server:
        """The next server to ask, after such pauses as are needed.

        Raises:
            CallFailed: none can be asked before the deadline.
        """
        while course.inquiry.deadline.left > 0:
            ready = [server for server in course.order if server.breaker.ready]
            fresh = [server for server in ready if server not in course.tried]
            if fresh:
                return fresh[0]
            if ready:
                await self._back_off(ready, course)
            else:
                await self._await_probe(course)
        if course.failure is not None:
            raise course.failure
        raise CallFailed(UnscoredReason.TIMEOUT, f"no ruling within {course.inquiry.deadline.seconds:g} s")

    async def _back_off(self, ready: list[Server], course: _Course) -> None:
        """Pause until the first of the healthy servers, all of which have failed, may be asked again."""
        until = min(course.tried[server] for server in ready)
        jitter = self.rng.uniform(0.0, min(BACKOFF_CAP, BACKOFF_BASE * 2**course.pauses))
        now = time.monotonic()
        pause = max(0.0, until - now) + jitter
        if pause >= course.inquiry.deadline.left and course.failure is not None:
            raise course.failure
        course.pauses += 1
        await self.sleep(pause)
        course.tried = {server: when for server, when in course.tried.items() if when > now + pause}

    async def _await_probe(self, course: _Course) -> None:
        """Wait for the first probe that an open breaker allows; past the deadline, the ruling is turned away."""
        server = min(course.order, key=lambda server: server.breaker.wait)
        wait, reason = server.breaker.wait, server.breaker.reason or UnscoredReason.CONNECT
        told = f"not sent: the breaker of {server.config.base_url} is open for {wait:.3g} s more"
        detail = f"{told} (last failure: {reason.value})"
        if not course.turned_away:
            course.turned_away = True
            course.inquiry.record(
                server.config,
                "",
                course.attempts,
                Usage(rejected=1),
                seconds=0.0,
                outcome=reason,
                sent=False,
                detail=detail,
            )
        if wait >= course.inquiry.deadline.left:
            raise CallFailed(reason, detail)
        await self.sleep(wait)

    async def _attempt(self, server: Server, permit: int, request: Request, course: _Course) -> Reply:
        """Send once; breaker, limiter, usage and ledger learn what came of it."""
        inquiry = course.inquiry
        key = inquiry.key(request.body)
        number, era, start = course.attempts, server.limiter.era, time.monotonic()
        course.attempts += 1
        try:
            answer = await server.send(request, key, self._share(server, course))
        except CallFailed as failure:
            _learn(server, permit, era, failure)
            told = {"outcome": failure.reason, "status": failure.status, "detail": kept_text(failure.detail)}
            inquiry.record(server.config, key, number, Usage(requests=1), seconds=time.monotonic() - start, **told)
            raise
        except BaseException:  # called off
            server.breaker.abandoned(permit)
            raise
        seconds = time.monotonic() - start
        server.breaker.succeeded(permit)
        server.limiter.served(era, seconds)
        reply = kept_text(server.without_key(answer.reply.content))
        inquiry.record(server.config, key, number, answer.usage, seconds=seconds, outcome="ok", status=200, reply=reply)
        return answer.reply

    def _share(self, server: Server, course: _Course) -> float:
        """Seconds for an attempt: all that is left, or half of it where another server could still be asked; at most
        ``read_timeout``."""
        others = (other for other in course.order if other is not server and other not in course.tried)
        left = course.inquiry.deadline.left
        share = left / 2 if any(other.breaker.ready for other in others) else left
        return min(share, self.config.read_timeout or share)

    def _take(self, failure: CallFailed, server: Server, course: _Course) -> None:
        """Leave it at the failure, or make ready for another attempt.

        Raises:
            CallFailed: the failure, when there is to be no other attempt.
        """
        course.failure = failure
        if failure.unwelcome and any(other.breaker.state == "closed" for other in self.servers if other is not server):
            if not server.left_out:
                logger.warning("%s is left out, others stand in: %s", server, failure.detail)
            server.left_out = True
            server.breaker.trip(failure.reason)
            return
        if not failure.retryable or course.retries >= self.config.max_retries:
            raise failure
        course.retries += 1
        course.tried[server] = time.monotonic() + (failure.wait or 0.0)


def _learn(server: Server, permit: int, era: int, failure: CallFailed) -> None:
    """What a failure tells of the server's health and load."""
    if failure.unwell:
        server.breaker.failed(permit, failure.reason)
    else:
        server.breaker.succeeded(permit)
    if failure.reason in (UnscoredReason.HTTP_429, UnscoredReason.TIMEOUT):
        server.limiter.refused(era)
