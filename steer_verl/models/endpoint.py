"""One model at one or several servers: which is asked, when it is asked again, and for how long in all.

* **Choice.** Requests of the same affinity stay with one server, which has their common beginning in its cache:
  rendezvous hashing, by weight. While that server's breaker is open, the next in their own order stands in.
* **Fail-over.** After a failure that may pass, and after one that another server may not have (a key, a missing model,
  a content filter), the next healthy server is asked at once. Only when none is left is there a pause: exponential with
  full jitter, and never before a Retry-After or before an open breaker's next probe.
* **Deadline.** One for all requests of a context: attempts, pauses, re-asks, fail-over. It stands still while a request
  waits for a place in our own queue, so that a long queue at a healthy server costs no verdict. A pause that would
  reach past it is not begun: the failure is returned at once.
* **Bound.** Requests in flight are bounded per server, whoever asks: endpoints that name the same address share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from steer_verl.config import EndpointConfig, require_address
from steer_verl.models.cache import Cache, ReplyCache
from steer_verl.models.failure import Cause, Failure, failed
from steer_verl.models.hosts import hosts
from steer_verl.models.http import Secret
from steer_verl.models.limits import Semaphore
from steer_verl.models.log import MAX_REPLY_CHARS, Attempt, RequestLog
from steer_verl.models.request import Deadline, Reply, Request, RequestContext, Stream
from steer_verl.models.server import Dialect, Server
from steer_verl.types import UnscoredReason, Usage

logger = logging.getLogger(__name__)

BACKOFF_BASE, BACKOFF_CAP = 0.5, 20.0
"""Seconds: the n-th pause is drawn evenly from [0, min(cap, base * 2**n)]."""


@dataclass
class _RetryState:
    """One request and how it is faring."""

    body: dict[str, Any]
    """Before any server's dialect."""
    digest: str
    stream: Stream | None
    context: RequestContext
    order: list[Server]
    """Servers in the order in which its affinity prefers them; those that will never answer it are taken out."""
    attempts: int = 0
    retries: int = 0
    pauses: int = 0
    answered: int = 0
    """Failures that came as an HTTP 200: another try is another request to a gateway that honours idempotency keys."""
    turned_away: bool = False
    tried: dict[Server, float] = field(default_factory=dict)
    """Servers that failed, each with the time before which it must not be asked again."""
    failure: Failure | None = None
    """The last one."""


class Endpoint:
    """Asks one model. Make one per process and role, and share it; it may be at work on many requests at once.

    Args:
        config: the first server, its mirrors, and the limits.
        cache: keeps every reply; without one, or without a key, nothing is kept.
        log: where every attempt is written down, if anywhere.
        where: its place in the configuration, for messages; what two places are asked is never one request.

    Raises:
        ConfigError: an address cannot be used, or a key cannot be sent.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        cache: ReplyCache | None = None,
        log: RequestLog | None = None,
        where: str = "tutor.endpoint",
    ) -> None:
        require_address(config, where)
        for single in servers_of(config):
            Secret(single.api_key_env)  # one that cannot be sent is refused here, and not in the middle of a run
        self.config, self.log, self.where = config, log, where
        self.cache: ReplyCache = cache or Cache(None)
        self.rng = random.Random()
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._weights: dict[Server, float] = {}
        self._admitted = Semaphore(0)

    def __repr__(self) -> str:
        return f"Endpoint({self.config.model} at {self.config.base_url})"

    @property
    def servers(self) -> list[Server]:
        """The endpoint's servers in the running event loop, the configuration's own first."""
        self._take_up()
        return list(self._weights)

    def context(
        self,
        *,
        key: str = "",
        affinity: str = "",
        purpose: str = "",
        prompt: str = "",
        deadline: Deadline | None = None,
    ) -> RequestContext:
        """A new account, with ``timeout`` as its deadline; see :class:`~steer_verl.models.request.RequestContext`."""
        deadline = deadline or Deadline(self.config.timeout)
        return RequestContext(deadline, key=key, affinity=affinity or key, purpose=purpose, prompt=prompt)

    @contextlib.asynccontextmanager
    async def admitted(self, context: RequestContext) -> AsyncIterator[None]:
        """Wait until one more context may be at work here: around the making of its prompt and all of its requests.

        Twice as many as may be in flight, so that those in a pause leave no place empty, and no more, because each
        holds its prompt with the images.
        """
        self._take_up()
        admitted = self._admitted
        with context.deadline.stopped():
            await admitted.acquire()
        try:
            yield
        finally:
            admitted.release()

    async def ask(self, request: Request, context: RequestContext) -> Reply | Failure:
        """The reply to a request, or why there is none: the kept one, or that of whichever server gives it.

        Args:
            request: what is asked.
            context: for whom, and how long; it learns what the request cost.
        """
        body = self._body(request)
        digest = context.digest({**body, "again": request.again, "where": self.where})
        kept = self.cache.get(context.key, digest, Reply) or self.cache.get(context.key, digest, Failure)
        if kept is not None:
            return kept
        if request.stream is not None:  # how a reply comes does not decide which one it is
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        self._take_up()
        order = by_affinity(self._weights, context.affinity)
        outcome = await self._until_final(_RetryState(body, digest, request.stream, context, order))
        if isinstance(outcome, Reply) or (outcome.of_this_request and self.cache.keeps_failures):
            self.cache.put(context.key, digest, outcome)
        return outcome

    async def close(self) -> None:
        """Give the connections back; the last user of an address closes them."""
        loop, self._loop = self._loop, None
        self._weights = {}
        if loop is asyncio.get_running_loop():
            await hosts().give_back(self)

    def _take_up(self) -> None:
        """The servers, once for each event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._weights = {hosts().take_up(self, single): single.weight for single in servers_of(self.config)}
            self._admitted = Semaphore(2 * self.config.max_concurrency * len(self._weights))

    def _body(self, request: Request) -> dict[str, Any]:
        """The request's body as every server of the API would take it."""
        form = {}
        if request.schema is not None and self.config.json_schema != "off":
            named = {"name": request.schema.get("title", "reply"), "strict": True, "schema": request.schema}
            form = {"response_format": {"type": "json_schema", "json_schema": named}}
        return {
            "model": self.config.model,
            "messages": request.messages,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
            **request.sampling,
            **form,
        }

    async def _until_final(self, state: _RetryState) -> Reply | Failure:
        """The first reply, or the failure after which there is nobody to ask."""
        while True:
            server = await self._choose(state)
            if isinstance(server, Failure):
                return server
            with state.context.deadline.stopped():
                await server.limiter.acquire()
            try:
                generation = server.breaker.admit()
                if generation is None:  # its state changed while we waited for a place
                    continue
                outcome = await self._in_its_dialect(server, generation, state)
            finally:
                server.limiter.release()
            if isinstance(outcome, Reply) or not self._goes_on(outcome, server, state):
                return outcome

    async def _choose(self, state: _RetryState) -> Server | Failure:
        """The next server to ask, after such pauses as are needed; a failure when none can be asked in time."""
        while state.context.deadline.left > 0:
            ready = [server for server in state.order if server.breaker.ready]
            fresh = [server for server in ready if server not in state.tried]
            if fresh:
                return fresh[0]
            failure = await (self._back_off(ready, state) if ready else self._await_probe(state))
            if failure is not None:
                return failure
        late = f"no reply within {state.context.deadline.seconds:g} s"
        return state.failure or failed(Cause.UNREACHABLE, UnscoredReason.TIMEOUT, late)

    async def _back_off(self, ready: list[Server], state: _RetryState) -> Failure | None:
        """Pause until the first of the healthy servers, all of which have failed, may be asked again."""
        until = min(state.tried[server] for server in ready)
        jitter = self.rng.uniform(0.0, min(BACKOFF_CAP, BACKOFF_BASE * 2**state.pauses))
        now = time.monotonic()
        pause = max(0.0, until - now) + jitter
        if pause >= state.context.deadline.left:
            return state.failure
        state.pauses += 1
        await self.sleep(pause)
        state.tried = {server: when for server, when in state.tried.items() if when > now + pause}
        return None

    async def _await_probe(self, state: _RetryState) -> Failure | None:
        """Wait for the first probe that an open breaker allows; past the deadline, the request is turned away."""
        server = min(state.order, key=lambda server: server.breaker.wait)
        wait, reason = server.breaker.wait, server.breaker.reason or UnscoredReason.CONNECT
        what = f"not sent: the breaker of {server.base_url} is open for {wait:.3g} s more"
        last = f"{what} (last failure: {reason.value})"
        failure = failed(Cause.UNREACHABLE, reason, last, usage=Usage(rejected=1))
        if not state.turned_away:
            state.turned_away = True
            self._record(server, failure, state, key="", seconds=0.0, sent=False)
        if wait >= state.context.deadline.left:
            return failure
        await self.sleep(wait)
        return None

    async def _in_its_dialect(self, server: Server, generation: int, state: _RetryState) -> Reply | Failure:
        """Send, and at once again in another dialect where the server refuses a parameter."""
        dialect, named, first = server.dialect, True, None
        while True:
            outcome = await self._attempt(server, generation, dialect, state)
            if isinstance(outcome, Reply):
                spoken = dialect.body(state.body)
                server.learn(dialect, schema="response_format" in spoken, stream="stream" in spoken, named=named)
                return outcome.model_copy(update={"left_out": dialect.missing(state.body)})
            first = first or outcome
            insists = self.config.json_schema == "on"
            other = server.next_dialect(outcome, state.body, dialect, keep_schema=insists)
            if other is None:
                return outcome if outcome.retryable else first
            dialect, named = other[0], named and other[1]

    async def _attempt(self, server: Server, generation: int, dialect: Dialect, state: _RetryState) -> Reply | Failure:
        """Send once; breaker, limiter, usage and log learn what came of it."""
        body, key = dialect.body(state.body), state.digest
        if body != state.body or state.answered:
            key = hashlib.sha256(f"{key} {dialect} {state.answered}".encode()).hexdigest()[:32]
        load, start, seconds = server.limiter.generation, time.monotonic(), self._share(server, state)
        connect, prices = self.config.connect_timeout, self.config.prices
        try:
            outcome = await server.send(body, key, seconds, connect_timeout=connect, prices=prices, stream=state.stream)
        except BaseException:  # cancelled
            server.breaker.abandoned(generation)
            raise
        failure = outcome if isinstance(outcome, Failure) else None
        if failure is not None and failure.server_fault:
            server.breaker.failed(generation, failure.reason)
        else:
            server.breaker.succeeded(generation)
        if failure is not None and failure.reason in (UnscoredReason.HTTP_429, UnscoredReason.TIMEOUT):
            server.limiter.refused(load)
        else:
            server.limiter.answered(load)
        state.answered += failure is not None and failure.answered
        left_out, seconds = dialect.missing(state.body), time.monotonic() - start
        self._record(server, outcome, state, key=key, seconds=seconds, left_out=left_out)
        return outcome

    def _record(self, server: Server, outcome: Reply | Failure, state: _RetryState, **more: Any) -> None:
        """Count an attempt, and write it down where there is a log."""
        context, number = state.context, state.attempts
        context.usage += outcome.usage
        state.attempts += more.get("sent", True)
        if self.log is None:
            return
        if isinstance(outcome, Reply):
            kept = self.cache and context.key
            more |= {"outcome": "ok", "status": 200, "reply": "" if kept else outcome.content[:MAX_REPLY_CHARS]}
        else:
            more |= {"outcome": outcome.reason, "status": outcome.status, "detail": outcome.detail}
        self.log.append(
            Attempt(
                turn_key=context.key,
                purpose=context.purpose,
                prompt=context.prompt,
                attempt=number,
                server=server.base_url,
                model=server.model,
                when=time.time(),
                usage=outcome.usage,
                **more,
            )
        )

    def _share(self, server: Server, state: _RetryState) -> float:
        """Seconds for an attempt: all that is left, or half of it where another server could still be asked; at most
        ``read_timeout``."""
        others = (other for other in state.order if other is not server and other not in state.tried)
        left = state.context.deadline.left
        share = left / 2 if any(other.breaker.ready for other in others) else left
        return min(share, self.config.read_timeout or share)

    def _goes_on(self, failure: Failure, server: Server, state: _RetryState) -> bool:
        """Whether there is to be another attempt, and by whom."""
        state.failure = failure
        if state.stream is not None and state.stream.used:  # what the asker has is not asked for again
            return False
        others = [other for other in state.order if other is not server]
        if failure.needs_user and any(other.breaker.state == "closed" for other in others):
            if not server.stand_in_told:
                logger.warning("%s is left out, others stand in: %s", server, failure.detail)
            server.stand_in_told = True
            server.breaker.trip(failure.reason)
            return True
        if failure.cause is Cause.FILTERED and others:  # another server may have no filter, or a milder one
            state.order = others
            return True
        if not failure.retryable or state.retries >= self.config.max_retries:
            return False
        state.retries += 1
        state.tried[server] = time.monotonic() + (failure.wait or 0.0)
        return True


def servers_of(config: EndpointConfig) -> list[EndpointConfig]:
    """One configuration for each server: the endpoint's own, then each mirror's."""
    mirrors = [
        config.model_copy(
            update={
                "base_url": mirror.base_url,
                "weight": mirror.weight,
                "model": mirror.model or config.model,
                "api_key_env": config.api_key_env if mirror.api_key_env is None else mirror.api_key_env,
                "mirrors": (),
            }
        )
        for mirror in config.mirrors
    ]
    return [config.model_copy(update={"mirrors": ()}), *mirrors]


def by_affinity(weights: dict[Server, float], affinity: str) -> list[Server]:
    """The servers in the order in which an affinity prefers them (weighted rendezvous hashing).

    Each is first for its weight's share of all affinities, and one that drops out changes nobody else's order.
    """

    def score(server: Server) -> float:
        digest = hashlib.sha256(f"{server.base_url}\n{affinity}".encode(errors="replace")).digest()
        drawn = ((int.from_bytes(digest[:8], "big") >> 11) + 0.5) / 2**53  # in (0, 1)
        return weights[server] / -math.log(drawn)

    return sorted(weights, key=score, reverse=True)
