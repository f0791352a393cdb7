"""A circuit breaker: a server that fails again and again is left alone, then tried with one request at a time.

    closed ── `failures` in a row ──> open ── cooldown over ──> half-open (one probe) ── it succeeds ──> closed
                                       ^                              │
                                       └── it fails: cooldown x 2 ────┘

Only what speaks of the server's health counts: no connection, no answer in time, HTTP 5xx. Any other answer, a 429 and
a refused request too, shows that the server lives. What is heard of a request that was sent before the state last
changed is old news and changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from steer_verl.config import BreakerConfig
from steer_verl.types import UnscoredReason

logger = logging.getLogger(__name__)

PROBE_CHECK = 0.1
"""Seconds after which to look again while another request probes the server."""


class Breaker:
    """The breaker of one server.

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
        self._era = 0

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
        """Let one request through: a permit to hand back with its outcome. ``None`` turns it away."""
        if not self.ready:
            return None
        if self.state == "half-open":
            self._probing = True
            self._era += 1
        return self._era

    def succeeded(self, permit: int) -> None:
        """The server answered."""
        if permit != self._era:
            return
        if self._open_until is not None:
            logger.info("tutor server %s answers again", self.name)
            self._close()
        self._failures = 0

    def failed(self, permit: int, reason: UnscoredReason) -> None:
        """The server is not well."""
        if permit != self._era:
            return
        self.reason = reason
        self._failures += 1
        if self._open_until is not None:  # the probe failed
            self._open(min(2 * self._cooldown, self.config.max_cooldown))
        elif self._failures >= self.config.failures:
            self._open(self.config.cooldown)

    def abandoned(self, permit: int) -> None:
        """The request was called off before its outcome was known."""
        if permit == self._era:
            self._probing = False

    def trip(self, reason: UnscoredReason) -> None:
        """Open at once and for as long as ever: the server answers, but is of no use. The caller says why."""
        self.reason = reason
        self._open(self.config.max_cooldown, logging.DEBUG)

    def _open(self, cooldown: float, level: int = logging.WARNING) -> None:
        self._cooldown = cooldown
        self._open_until = self.clock() + cooldown
        self._probing = False
        self._era += 1
        why = self.reason.value if self.reason else ""
        logger.log(level, "tutor server %s is left alone for %.3g s (last failure: %s)", self.name, cooldown, why)

    def _close(self) -> None:
        self._open_until, self._probing = None, False
        self._cooldown = self.config.cooldown
        self._era += 1
