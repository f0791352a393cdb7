"""The request log: every attempt as one JSON line, appended by the process that made it.

An attempt is one request as it was sent, or as an open breaker turned it away; a re-ask, a retry and a fail-over are
attempts of their own, and one that was cancelled leaves no line. Prompts, images, keys and headers are not written, and
a reply only where no cache keeps it. ``steer tutor log FOLDER`` prints the summary.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

from steer_verl.records import append, own_file, read_records
from steer_verl.types import Record, UnscoredReason, Usage

logger = logging.getLogger(__name__)

MAX_REPLY_CHARS = 4000
"""Of a reply's text that are written."""


class Attempt(Record):
    """One attempt at one server."""

    key: str
    """Idempotency key: equal for all attempts that sent the same."""
    turn_key: str
    """Which turn or item it was for."""
    purpose: str
    """What was asked for: ``score``, ``attack``, ``both``, a guard's format, a role."""
    attempt: int
    """From 0, within its request."""
    server: str
    model: str
    prompt: str
    """Version of the rubric and of the words around it."""
    when: float
    """Unix seconds of its end."""
    seconds: float
    outcome: Literal["ok"] | UnscoredReason
    """``ok``: a reply came, of whatever use it was."""
    status: int = 0
    """HTTP status; 0 when there was none."""
    sent: bool = True
    """False: an open breaker turned it away."""
    left_out: tuple[str, ...] = ()
    """Parameters that it was sent without."""
    usage: Usage = Usage()
    reply: str = ""
    detail: str = ""


class RequestLog:
    """Appends to this process's file in ``folder``. A full disk costs lines and an error in the log, never a reply."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lost = 0

    def append(self, attempt: Attempt) -> None:
        """Write one line."""
        try:
            append(own_file(self.folder), attempt)
        except OSError as error:
            if not self._lost:
                logger.error("request log: cannot write to %s (%s); lines are lost until it can", self.folder, error)
            self._lost += 1


@lru_cache(maxsize=16)
def open_log(folder: str | None) -> RequestLog | None:
    """The process's one log in ``folder``; ``None`` keeps none."""
    return RequestLog(folder) if folder else None


def read_log(folder: str | Path) -> Iterator[Attempt]:
    """Every attempt under ``folder``, file by file; a line that cannot be read is passed over with a warning.

    Raises:
        DataError: a file holds lines and not one of them is an attempt.
    """
    return read_records(folder, Attempt.model_validate_json, needed="a line of a request log")


class Summary(Record):
    """What a request log holds, counted."""

    turns: int
    """Turns or items that were asked about."""
    requests: int
    """Distinct requests."""
    outcomes: dict[str, int]
    """Sent attempts by outcome."""
    servers: dict[str, int]
    """Sent attempts by server."""
    left_out: dict[str, int]
    """Sent attempts by the parameter that they went without."""
    usage: Usage
    """``requests`` are the sent attempts, ``rejected`` those that a breaker turned away."""
    seconds: float
    """Spent in attempts, all together."""


def summary(attempts: Iterable[Attempt]) -> Summary:
    """Count the attempts of a log."""
    outcomes, servers, left_out = Counter[str](), Counter[str](), Counter[str]()
    usage, seconds, turns, keys = Usage(), 0.0, set[str](), set[str]()
    for attempt in attempts:
        usage, seconds = usage + attempt.usage, seconds + attempt.seconds
        turns.add(attempt.turn_key)
        if attempt.sent:
            outcomes[attempt.outcome if attempt.outcome == "ok" else attempt.outcome.value] += 1
            servers[attempt.server] += 1
            left_out.update(attempt.left_out)
            keys.add(attempt.key)
    return Summary(
        turns=len(turns - {""}),
        requests=len(keys),
        outcomes=dict(outcomes),
        servers=dict(servers),
        left_out=dict(left_out),
        usage=usage,
        seconds=seconds,
    )
