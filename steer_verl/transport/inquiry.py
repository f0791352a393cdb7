"""One ruling's business with one endpoint: whose it is, how long it may still take, what it has cost so far."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from steer_verl.config import EndpointConfig
from steer_verl.transport.ledger import Attempt, Ledger, request_key
from steer_verl.types import Usage


class Deadline:
    """Seconds that are left.

    Args:
        seconds: in all.
        clock: seconds that never go back.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds; negative when it has passed."""
        return self._end - self._clock()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The clock stands still inside."""
        start = self._clock()
        try:
            yield
        finally:
            self._end += self._clock() - start


@dataclass
class Inquiry:
    """Goes along with every request of a ruling, and comes back with ``usage`` filled."""

    deadline: Deadline
    seed: str = ""
    """Dialogues of the same seed go to the same server."""
    place: str = ""
    """``TutorRequest.turn_key``."""
    task: str = ""
    prompt: str = ""
    """Version of the prompt."""
    ledger: Ledger | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request's body, such as ``top_p`` and ``seed``."""
    round: int = 0
    """0, and one more with each re-ask."""
    usage: Usage = field(default_factory=Usage)
    _own: str = field(default_factory=lambda: uuid4().hex)

    def key(self, body: Any) -> str:
        """Idempotency key of a request. Without a place two equal inquiries are two, and each is paid for."""
        return request_key(self.place or self._own, self.task, self.round, body)

    def record(self, server: EndpointConfig, key: str, number: int, usage: Usage, **outcome: Any) -> None:
        """Count an attempt, and write it down where there is a ledger; ``outcome``: other fields of an attempt."""
        self.usage += usage
        if self.ledger is not None:
            self.ledger.append(
                Attempt(
                    key=key,
                    place=self.place,
                    task=self.task,
                    round=self.round,
                    attempt=number,
                    server=server.base_url,
                    model=server.model,
                    prompt=self.prompt,
                    when=time.time(),
                    usage=usage,
                    **outcome,
                )
            )
