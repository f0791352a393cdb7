"""The values of a model call: what is asked, for whom and how long, and what came back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from steer_verl.types import Record, Usage

TRUNCATED = frozenset({"length", "max_tokens", "model_length", "max_output_tokens", "token_limit"})
"""Finish reasons of a reply that ended at the token limit."""
FILTERED = frozenset(
    {"content_filter", "content-filter", "content_filtered", "safety", "recitation", "blocklist", "spii", "sensitive"}
    | {"prohibited_content", "image_safety", "guardrail_intervened", "moderation"}
)
"""Finish reasons of a reply that the server's content filter ended."""
ABORTED = frozenset(
    {"error", "abort", "aborted", "cancelled", "canceled", "failed", "incomplete", "timeout", "overloaded"}
    | {"server_error", "network_error", "insufficient_system_resource"}
)
"""Finish reasons of a reply that the server could not complete."""


ONLY_REASONING = (
    "its text is empty and all of it is in reasoning_content: the server's reasoning parser takes the answer"
)
"""What is wrong with a reply that a server's reasoning parser has swallowed."""


@dataclass(frozen=True)
class Request:
    """What a model is asked. With the endpoint's own settings it decides the reply."""

    messages: list[dict[str, Any]]
    """Chat messages in the OpenAI form; images as ``data:`` URIs."""
    schema: dict[str, Any] | None = None
    """JSON schema of the reply, named by its ``title``; ``None`` asks for plain text."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the body, such as ``top_p`` and ``seed``."""
    again: int = 0
    """How often it was asked before without a reply of use: the next try is another request."""
    stream: Stream | None = None
    """Where the reply is told while it comes, by a server that can; the reply itself is the same."""


class Stream:
    """A reply as it comes: a server writes, and whoever asked reads what there is so far. One reader, once.

    Asking again begins the text anew, unless a part of it has been :attr:`used`: another try would be another reply.
    """

    def __init__(self) -> None:
        self.used = False
        """The reader has acted on what it read."""
        self._text = ""
        self._closed = False
        self._changed = asyncio.Event()

    def restart(self) -> None:
        """A new attempt: nothing has been said yet."""
        self._text = ""

    def write(self, text: str) -> None:
        """``text`` is the whole reply so far."""
        self._text = text
        self._changed.set()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[str]:
        """The reply so far, each time that it has grown."""
        while not self._closed:
            await self._changed.wait()
            self._changed.clear()
            if self._text:
                yield self._text


class Reply(Record):
    """A model's reply: whole, cut at the token limit, or a refusal. What a server did instead is a ``Failure``."""

    content: str
    finish_reason: str = "stop"
    refusal: str = ""
    """The model's own refusal, in the field that the API has for it."""
    reasoning: str = ""
    """What the server's reasoning parser took out of the content."""
    left_out: tuple[str, ...] = ()
    """Parameters that the server refuses, so that the request was sent without them."""
    usage: Usage = Usage()

    @property
    def truncated(self) -> bool:
        """Whether it ended at the token limit."""
        return self.finish_reason.lower() in TRUNCATED


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
class RequestContext:
    """Whose requests these are, how long they may take together, and what they have cost so far."""

    deadline: Deadline
    key: str = ""
    """Which turn or item they belong to (``TutorRequest.turn_key``). Without a key nothing is cached."""
    affinity: str = ""
    """Requests with the same affinity go to the same server, which has their common beginning in its cache."""
    purpose: str = ""
    """What is asked for, in one word, for the log."""
    prompt: str = ""
    """Version of the prompt, for the log."""
    usage: Usage = field(default_factory=Usage)
    """Of the attempts that were sent."""
    _nonce: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        self.key = encodable(self.key)

    def digest(self, body: Mapping[str, Any]) -> str:
        """32 hex digits over where a request belongs and all that it says; an image counts by its own digest.

        It is the key of the cache and of a gateway's idempotency. Without a ``key`` two equal requests are two.
        """
        text = json.dumps([self.key or self._nonce, _without_images(body)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def encodable(text: str) -> str:
    """``text`` fit for UTF-8: a lone surrogate becomes a question mark."""
    return text.encode(errors="replace").decode()


def _without_images(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_images(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_images(inner) for inner in value]
    if isinstance(value, str) and value.startswith("data:"):
        return hashlib.sha256(value.encode(errors="replace")).hexdigest()
    return value
