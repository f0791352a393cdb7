"""The tutor's ledger: every attempt and every ruling as one JSON line, appended by the process that made it.

An attempt is one request as it was sent, or as an open breaker turned it away; a re-ask, a retry and a fail-over are
attempts of their own, and one that was called off leaves no line. A ruling that has come to its end adds a final line.
The prompt is not kept, and neither are pictures, keys or headers; the reply is. ``steer tutor log FOLDER`` prints the
summary.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import Field, TypeAdapter, ValidationError

from steer_verl.append_log import append, files, own_file, whole_lines
from steer_verl.errors import DataError
from steer_verl.types import Record, TutorResponse, Unscored, UnscoredReason, Usage

logger = logging.getLogger(__name__)

MAX_REPLY_CHARS = 4000
"""Of a reply's text that are kept."""


class Attempt(Record):
    """One attempt at one server."""

    final: Literal[False] = False
    key: str
    """Idempotency key of the request (:func:`request_key`): equal for all attempts that sent the same."""
    place: str
    """``TutorRequest.turn_key``: which answer of which run."""
    task: str
    """What was asked for: ``score``, ``attack``, ``both``, or a guard's format."""
    round: int
    """0, and one more with each re-ask of a reply that could not be read."""
    attempt: int
    """From 0, within its round."""
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
    usage: Usage = Usage()
    reply: str = ""
    detail: str = ""


class Final(Record):
    """How a ruling ended."""

    final: Literal[True] = True
    key: str
    """Of the ruling: a digest of its place and of what was to be ruled on."""
    place: str
    tutor: str
    when: float
    ruling: TutorResponse


Line = Annotated[Attempt | Final, Field(discriminator="final")]
_LINE: TypeAdapter[Attempt | Final] = TypeAdapter(Line)


class Ledger:
    """Appends to this process's file in ``folder``. A full disk costs lines and an error in the log, never a ruling."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lost = 0

    def append(self, record: Attempt | Final) -> None:
        """Write one line."""
        try:
            append(own_file(self.folder), record)
        except OSError as error:
            if not self._lost:
                logger.error("tutor.log: cannot write to %s (%s); records are lost until it can", self.folder, error)
            self._lost += 1


@lru_cache(maxsize=16)
def open_ledger(folder: str | None) -> Ledger | None:
    """The process's one ledger in ``folder``; ``None`` keeps none."""
    return Ledger(folder) if folder else None


def request_key(place: str, task: str, round_: int, body: Any) -> str:
    """32 hex digits over where a request belongs and what it says; a picture counts by its own digest.

    The same request has the same key in every process and at every mirror that calls the model by the same name.
    """
    text = json.dumps([place, task, round_, _digested(body)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_ledger(folder: str | Path) -> Iterator[Attempt | Final]:
    """Every record under ``folder``, file by file; a line that a kill tore is passed over.

    Raises:
        DataError: a whole line cannot be read; it names file and line.
    """
    for path in files(folder):
        for number, line in whole_lines(path):
            try:
                yield _LINE.validate_json(line)
            except ValidationError as error:
                what = error.errors()[0]["msg"]
                raise DataError(f"{path}:{number}: not a ledger line ({what}); is this the folder tutor.log?") from None


def by_key(records: Iterable[Attempt | Final]) -> dict[str, list[Attempt | Final]]:
    """Records in order, those of the same request or ruling together."""
    groups: dict[str, list[Attempt | Final]] = {}
    for record in records:
        groups.setdefault(record.key, []).append(record)
    return groups


def by_place(records: Iterable[Attempt | Final]) -> dict[str, list[Attempt | Final]]:
    """Records in order, those of the same answer together: its attempts, then its final line."""
    groups: dict[str, list[Attempt | Final]] = {}
    for record in records:
        groups.setdefault(record.place, []).append(record)
    return groups


class Summary(Record):
    """What a ledger holds, counted."""

    rulings: int
    unscored: dict[str, int]
    """Rulings without a verdict, by reason."""
    attempts: dict[str, int]
    """Sent attempts by outcome."""
    servers: dict[str, int]
    """Sent attempts by server."""
    keys: int
    """Distinct requests sent."""
    usage: Usage
    """``requests`` are the sent attempts, ``rejected`` those that a breaker turned away."""
    seconds: float
    """Spent in attempts, all together."""


def summary(records: Iterable[Attempt | Final]) -> Summary:
    """Count the records of a ledger."""
    unscored, outcomes, servers = Counter[str](), Counter[str](), Counter[str]()
    rulings, seconds, usage, keys = 0, 0.0, Usage(), set()
    for record in records:
        if isinstance(record, Final):
            rulings += 1
            if isinstance(record.ruling.verdict, Unscored):
                unscored[record.ruling.verdict.reason.value] += 1
            continue
        usage, seconds = usage + record.usage, seconds + record.seconds
        if record.sent:
            outcomes[record.outcome if record.outcome == "ok" else record.outcome.value] += 1
            servers[record.server] += 1
            keys.add(record.key)
    return Summary(
        rulings=rulings,
        unscored=dict(unscored),
        attempts=dict(outcomes),
        servers=dict(servers),
        keys=len(keys),
        usage=usage,
        seconds=seconds,
    )


def final(place: str, tutor: str, shown: Any, ruling: TutorResponse) -> Final:
    """The last line of a ruling on ``shown``. Without a place no two rulings are the same."""
    key = request_key(place or uuid4().hex, tutor, 0, shown)
    return Final(key=key, place=place, tutor=tutor, when=time.time(), ruling=ruling)


def kept_text(text: str) -> str:
    """The part of a reply that is kept, fit for UTF-8: a lone surrogate becomes a question mark."""
    return text[:MAX_REPLY_CHARS].encode(errors="replace").decode()


def _digested(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _digested(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_digested(inner) for inner in value]
    if isinstance(value, str) and value.startswith("data:"):
        return hashlib.sha256(value.encode()).hexdigest()
    return value
