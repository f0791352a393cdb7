"""How many requests may be in flight at one server: a bound that finds the server's capacity and follows it.

The law, once per window of as many replies as the bound allows requests:

* more than :data:`TOLERATED` of them refused (HTTP 429) or timed out -> the bound shrinks by half of that share;
* their median latency above :data:`SLOW` times the baseline -> it shrinks by :data:`SLOW_CUT`;
* neither, and the bound was what held requests back -> it grows by 1.

It never exceeds its ceiling and never falls below 1. Why it is stable:

* Replies to requests that were sent before the last cut are not counted, so each cut is seen in full before the next
  is decided: the loop's delay is at most one window.
* A cut is in proportion to the excess (the law of DCTCP, Alizadeh et al. 2010): at a server that refuses everything
  above a capacity C the bound halves while it is far above C, and then moves by about one request around C. Growing by
  1 and shrinking by a factor is what makes several processes at one server share it evenly (Chiu and Jain 1989).
* A small share of refusals is weather and changes nothing; so a random fault cannot bleed the bound dry.
* A language model's latency rises with its load and with the length of what it reads. So the median is compared, which
  a few stragglers do not move, and the baseline drifts towards it by :data:`DRIFT` a window. A lasting change of
  latency, however great, therefore costs at most four cuts, to 0.41 of the bound, before it is the new normal; a
  latency that goes on growing goes on cutting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from statistics import median

TOLERATED = 0.05
"""Share of refusals in a window that changes nothing."""
SLOW, SLOW_CUT, DRIFT = 2.0, 0.2, 0.2
"""See the law above; the first is a ratio of latencies, the others are shares."""
MIN_WINDOW = 8
"""Replies in the smallest window."""


class Gate:
    """At most ``limit`` at once, first come, first served.

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

    async def enter(self) -> None:
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
                self.leave()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self._admit()

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def _admit(self) -> None:
        while self._waiting and self.in_flight < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)


class Limiter(Gate):
    """The adaptive bound of one server.

        async with limiter:
            era = limiter.era
            ...  # send
            limiter.served(era, seconds)  # or limiter.refused(era); neither for what tells nothing of the load

    Args:
        ceiling: requests in flight that it never exceeds, and with which it begins.
    """

    def __init__(self, ceiling: int) -> None:
        super().__init__(ceiling)
        self.ceiling = ceiling
        self.era = 0
        """Cuts so far. A request carries the value under which it was sent."""
        self.baseline: float | None = None
        """Seconds: the latency that counts as normal."""
        self._latencies: list[float] = []
        self._refusals = 0
        self._held_back = False

    def served(self, era: int, seconds: float) -> None:
        """A request was answered after so many seconds."""
        if era == self.era:
            self._latencies.append(seconds)
            self._decide()

    def refused(self, era: int) -> None:
        """A request was refused for overload, or not answered in time."""
        if era == self.era:
            self._refusals += 1
            self._decide()

    def _decide(self) -> None:
        self._held_back |= self.full
        window = max(MIN_WINDOW, int(self.limit))
        replies = len(self._latencies) + self._refusals
        if replies < window and 4 * self._refusals < window:  # a quarter refused: no need to wait for the rest
            return
        share = self._refusals / replies
        cut = max(share / 2 if share > TOLERATED else 0.0, SLOW_CUT if self._slow() else 0.0)
        if cut:
            self.limit = max(1.0, self.limit * (1 - cut))
            self.era += 1
        elif self._held_back:
            self.limit = min(float(self.ceiling), self.limit + 1)
        self._latencies, self._refusals, self._held_back = [], 0, False
        self._admit()

    def _slow(self) -> bool:
        """Compare the window's median latency with the baseline, and let the baseline drift towards it."""
        if not self._latencies:
            return False
        now = median(self._latencies)
        if self.baseline is None:
            self.baseline = now
        slow = now > SLOW * self.baseline
        self.baseline += DRIFT * (now - self.baseline)
        return slow
