"""How much one server is asked: a bound on requests in flight that follows its capacity, and a breaker.

**The bound**, once per window of as many replies as it allows requests: more than :data:`TOLERATED` of them refused
(HTTP 429) or timed out -> it shrinks by half of that share; fewer, and the bound was what held requests back -> it
grows by 1. It never exceeds its ceiling and never falls below 1. A cut in proportion to the excess (the law of DCTCP,
Alizadeh et al. 2010) and growth by 1 let several processes at one server share it evenly (Chiu and Jain 1989); a small
share of refusals changes nothing, so that a random fault cannot bleed the bound dry.

**The breaker**: a server that fails again and again is left alone, then tried with one request at a time.

    closed -- `failures` in a row --> open -- cooldown over --> half-open (one probe) -- it succeeds --> closed
                                       ^                              |
                                       +-- it fails: cooldown x 2 ----+

Only what speaks of the server's health counts: no connection, no answer in time, HTTP 5xx.

Both number their changes (``generation``): news of a request that was sent before the last change counts for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from steer_verl.config import BreakerConfig
from steer_verl.types import UnscoredReason

logger = logging.getLogger(__name__)

TOLERATED = 0.05
"""Share of refusals in a window that changes nothing."""
MIN_WINDOW = 8
"""Replies in the smallest window."""
PROBE_CHECK = 0.1
"""Seconds after which to look again while another request probes the server."""


class Semaphore:
    """At most ``limit`` at once, first come, first served; the limit may change at any time.

    A waiter that is cancelled leaves no place taken, also when its turn came at the same moment.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        """Whether one more would have to wait."""
        return self.in_flight >= int(self.limit) or bool(self._waiting)

    async def acquire(self) -> None:
        """Wait for a place and take it."""
        if not self.full:
            self.in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # our turn had come: pass it on
                self.release()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self._admit()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def _admit(self) -> None:
        while self._waiting and self.in_flight < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)


class Limiter(Semaphore):
    """The adaptive bound of one server.

        async with limiter:
            generation = limiter.generation
            ...  # send
            limiter.answered(generation)  # or limiter.refused(generation)

    Args:
        ceiling: requests in flight that it never exceeds, and with which it begins.
    """

    def __init__(self, ceiling: int) -> None:
        super().__init__(ceiling)
        self.ceiling = ceiling
        self.generation = 0
        self._answers = self._refusals = 0
        self._held_back = False

    def set_ceiling(self, ceiling: int) -> None:
        """Move the ceiling; a bound that stood at it moves along."""
        self.limit = float(ceiling) if self.limit >= self.ceiling else min(self.limit, float(ceiling))
        self.ceiling = ceiling
        self._admit()

    def answered(self, generation: int) -> None:
        """A request was answered."""
        if generation == self.generation:
            self._answers += 1
            self._decide()

    def refused(self, generation: int) -> None:
        """A request was refused for overload, or not answered in time."""
        if generation == self.generation:
            self._refusals += 1
            self._decide()

    def _decide(self) -> None:
        self._held_back |= self.full
        window = max(MIN_WINDOW, int(self.limit))
        replies = self._answers + self._refusals
        if replies < window and 4 * self._refusals < window:  # a quarter refused: no need to wait for the rest
            return
        share = self._refusals / replies
        if share > TOLERATED:
            self.limit = max(1.0, self.limit * (1 - share / 2))
            self.generation += 1
        elif self._held_back:
            self.limit = min(float(self.ceiling), self.limit + 1)
        self._answers = self._refusals = 0
        self._held_back = False
        self._admit()


class Breaker:
    """The breaker of one server and model.

    Args:
        config: how many failures open it, and for how long.
        name: of the server, for the log.
        clock: seconds that never go back.
    """

    def __init__(self, config: BreakerConfig, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self.name, self.clock = config, name, clock
        self.reason: UnscoredReason | None = None
        """Of the last failure."""
        self._failures = 0
        self._cooldown = config.cooldown
        self._open_until: float | None = None
        self._probing = False
        self._generation = 0

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half-open``."""
        if self._open_until is None:
            return "closed"
        return "half-open" if self.clock() >= self._open_until else "open"

    @property
    def ready(self) -> bool:
        """Whether a request would be let through now."""
        return self.state == "closed" or (self.state == "half-open" and not self._probing)

    @property
    def wait(self) -> float:
        """Seconds after which it is worth while to look again; 0 when it is ready."""
        if self.ready or self._open_until is None:
            return 0.0
        return max(self._open_until - self.clock(), PROBE_CHECK)

    def admit(self) -> int | None:
        """Let one request through: the generation to hand back with its outcome. ``None`` turns it away."""
        if not self.ready:
            return None
        if self.state == "half-open":
            self._probing = True
            self._generation += 1
        return self._generation

    def succeeded(self, generation: int) -> None:
        """The server answered."""
        if generation != self._generation:
            return
        if self._open_until is not None:
            logger.info("server %s answers again", self.name)
            self._open_until, self._probing = None, False
            self._cooldown = self.config.cooldown
            self._generation += 1
        self._failures = 0

    def failed(self, generation: int, reason: UnscoredReason) -> None:
        """The server is not well."""
        if generation != self._generation:
            return
        self.reason = reason
        self._failures += 1
        if self._open_until is not None:  # the probe failed
            self._open(min(2 * self._cooldown, self.config.max_cooldown))
        elif self._failures >= self.config.failures:
            self._open(self.config.cooldown)

    def abandoned(self, generation: int) -> None:
        """The request was cancelled before its outcome was known."""
        if generation == self._generation:
            self._probing = False

    def trip(self, reason: UnscoredReason) -> None:
        """Open at once, for as long as it ever does: the server answers, but is of no use. The caller says why."""
        self.reason = reason
        self._open(self.config.max_cooldown, logging.DEBUG)

    def _open(self, cooldown: float, level: int = logging.WARNING) -> None:
        self._cooldown = cooldown
        self._open_until = self.clock() + cooldown
        self._probing = False
        self._generation += 1
        why = self.reason.value if self.reason else ""
        logger.log(level, "server %s is left alone for %.3g s (last failure: %s)", self.name, cooldown, why)
