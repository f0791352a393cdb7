"""One OpenAI-compatible endpoint: a pooled client, a bound on requests in flight, and the retry policy.

Retried, with exponential back-off and full jitter, and never before a Retry-After: 408, 409, 429, 5xx, a refused or
dropped connection, a read timeout. Never retried: any other 4xx, which would only be refused again, and a server that
cannot read pictures (llama.cpp answers that with 500). Two parameters that some servers do not know
(``response_format``, ``max_tokens``) are replaced once the server refuses them, and that is remembered.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import openai

from steer_verl.config import EndpointConfig
from steer_verl.errors import ConfigError
from steer_verl.tutor.verdict import Reply
from steer_verl.types import UnscoredReason

BACKOFF_BASE, BACKOFF_CAP = 0.5, 20.0
"""Seconds: the n-th pause is drawn evenly from [0, min(cap, base * 2**n)]."""

NO_KEY = "none"
"""Sent when the environment holds no key: local servers want none, and the client insists on one."""

_NO_PICTURES = re.compile(
    r"image input is not supported|not a multimodal model|does not support image|image_url", re.IGNORECASE
)
_NO_SCHEMA = re.compile(
    r"response_format|json_schema|structured.output|guided|grammar|unknown.parameter|unrecognized|extra.(?:fields|inputs)",
    re.IGNORECASE,
)
_NO_MAX_TOKENS = re.compile(r"max_completion_tokens", re.IGNORECASE)
_FILTERED = re.compile(r"content_filter|content management policy|data_inspection_failed", re.IGNORECASE)


class CallFailed(Exception):
    """A request that gave no reply. ``text`` is one line without secrets, ``detail`` its first 300 characters."""

    def __init__(self, reason: UnscoredReason, text: str, *, status: int = 0, wait: float | None = None) -> None:
        super().__init__(text)
        self.reason, self.text, self.status, self.wait = reason, text, status, wait
        self.detail = text[:300]

    @property
    def no_pictures(self) -> bool:
        """The server says that it takes no pictures."""
        return self.status in (400, 404, 415, 422, 500, 501) and says_no_pictures(self.text)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        passing = self.status in (0, 408, 409, 429) or self.status >= 500
        return passing and not self.no_pictures and self.reason is not UnscoredReason.BAD_JSON


def says_no_pictures(text: str) -> bool:
    """Whether a server's error message says that the model takes no pictures."""
    return _NO_PICTURES.search(text) is not None


@dataclass
class Usage:
    """Tokens and requests so far. ``cached_tokens`` counts prompt tokens that the server had in its prefix cache."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def add(self, usage: Any) -> None:
        """Add the ``usage`` object of one reply; what a server does not report counts as 0."""
        usage = usage if isinstance(usage, dict) else {}
        details = usage.get("prompt_tokens_details") or {}
        self.requests += 1
        self.prompt_tokens += int(usage.get("prompt_tokens") or 0)
        self.cached_tokens += int(details.get("cached_tokens") or 0)
        self.completion_tokens += int(usage.get("completion_tokens") or 0)


@dataclass(eq=False)
class Endpoint:
    """One server and model. Make it with :func:`pooled` so that a process has one per event loop.

    Attributes:
        config: where, which model, and the limits.
        rng: draws the jitter.
        sleep: waits; replaced in tests.
    """

    config: EndpointConfig
    rng: random.Random = field(default_factory=random.Random)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    usage: Usage = field(default_factory=Usage)
    users: int = 0
    """Tutors that hold this endpoint."""

    def __post_init__(self) -> None:
        self._key = os.environ.get(self.config.api_key_env) or NO_KEY
        self._schema = self.config.json_schema != "off"
        self._length_key = "max_tokens"
        self.slots = asyncio.Semaphore(self.config.max_concurrency)
        timeout = openai.Timeout(self.config.timeout, connect=self.config.connect_timeout, pool=None)
        self._client = openai.AsyncOpenAI(
            base_url=self.config.base_url,
            api_key=self._key,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(timeout=timeout, follow_redirects=False),
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.config.model} at {self.config.base_url})"

    @property
    def sends_schema(self) -> bool:
        """Whether structured output is asked for: configured, and not refused by the server so far."""
        return self._schema

    async def complete(self, messages: list[dict[str, Any]], schema: dict[str, Any] | None, deadline: float) -> Reply:
        """One reply, retries included.

        Args:
            messages: chat messages.
            schema: JSON schema asked for; ``None`` asks for plain text.
            deadline: time of the running loop's clock (seconds) past which no pause may reach.

        Raises:
            CallFailed: no reply came; its reason says why.
        """
        attempt = 0
        while True:
            structured, length_key = schema is not None and self._schema, self._length_key
            try:
                return await self._call(messages, schema if structured else None, length_key)
            except CallFailed as failure:
                if self._adapted(failure, structured, length_key):
                    continue
                pause = self._pause(attempt, failure.wait)
                late = asyncio.get_running_loop().time() + pause >= deadline
                if not failure.retryable or attempt >= self.config.max_retries or late:
                    raise
            attempt += 1
            await self.sleep(pause)

    async def models(self) -> list[str]:
        """Names of the models that the server offers; empty when it keeps no list.

        Raises:
            CallFailed: unreachable, or the key is refused.
        """
        try:
            raw = await self._guarded(self._client.models.with_raw_response.list())
        except CallFailed as failure:
            if failure.status in (404, 405, 501):
                return []
            raise
        entries = raw.get("data") if isinstance(raw, dict) else None
        return [str(entry.get("id")) for entry in entries or [] if isinstance(entry, dict)]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _call(self, messages: list[dict[str, Any]], schema: dict[str, Any] | None, length_key: str) -> Reply:
        form = {"type": "json_schema", "json_schema": {"name": "ruling", "strict": True, "schema": schema}}
        request: dict[str, Any] = {
            "model": self.config.model,
            "messages": messages,
            "temperature": self.config.temperature,
            length_key: self.config.max_tokens,
            **({"response_format": form} if schema else {}),
        }
        body = await self._guarded(self._client.chat.completions.with_raw_response.create(**request))
        try:
            choice = body["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content") or "", message.get("refusal") or ""
            reply = Reply(_text(content), str(choice.get("finish_reason") or "stop"), str(refusal))
            self.usage.add(body.get("usage"))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise CallFailed(UnscoredReason.BAD_JSON, "the server's answer is no chat completion", status=200) from None
        return reply

    async def _guarded(self, call: Awaitable[Any]) -> Any:
        """The decoded JSON body of a request; every way to fail becomes a :class:`CallFailed`."""
        try:
            return json.loads((await call).content)
        except openai.APIStatusError as error:
            raise self._status_failure(error) from None
        except openai.APITimeoutError as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":  # of httpx or httpx2, by the client's version
                raise CallFailed(
                    UnscoredReason.CONNECT, f"no connection within {self.config.connect_timeout:g} s"
                ) from None
            raise CallFailed(UnscoredReason.TIMEOUT, "the server did not answer in time") from None
        except openai.APIConnectionError as error:
            raise CallFailed(UnscoredReason.CONNECT, self._clean(str(error.__cause__ or error))) from None
        except (ValueError, RecursionError):
            raise CallFailed(UnscoredReason.BAD_JSON, "the server's answer is not JSON", status=200) from None
        except openai.OpenAIError as error:
            raise CallFailed(UnscoredReason.BAD_JSON, self._clean(str(error)), status=200) from None

    def _status_failure(self, error: openai.APIStatusError) -> CallFailed:
        status = error.status_code
        text = self._clean(f"HTTP {status}: {error.response.text}")
        if status == 429:
            reason = UnscoredReason.HTTP_429
        elif status >= 500:
            reason = UnscoredReason.HTTP_5XX
        elif _FILTERED.search(text):
            reason = UnscoredReason.CONTENT_FILTER
        else:
            reason = UnscoredReason.HTTP_4XX
        return CallFailed(reason, text, status=status, wait=retry_after(error.response.headers.get("retry-after")))

    def _adapted(self, failure: CallFailed, structured: bool, length_key: str) -> bool:
        """Learn from a refused parameter; ``True`` when the request may be sent again in another form."""
        if failure.status not in (400, 422, 501) or failure.no_pictures:
            return False
        if length_key == "max_tokens" and _NO_MAX_TOKENS.search(failure.text):
            self._length_key = "max_completion_tokens"
            return True
        if structured and self.config.json_schema == "auto" and _NO_SCHEMA.search(failure.text):
            self._schema = False
            return True
        return False

    def _pause(self, attempt: int, wait: float | None) -> float:
        return (wait or 0.0) + self.rng.uniform(0.0, min(BACKOFF_CAP, BACKOFF_BASE * 2**attempt))

    def _clean(self, text: str) -> str:
        """One line of at most 4000 characters, without the key, which some servers repeat."""
        text = " ".join(text.split())
        return (text.replace(self._key, "***") if self._key != NO_KEY else text)[:4000]


def refuse_password(config: EndpointConfig) -> None:
    """Addresses are logged, so none may hold a secret.

    Raises:
        ConfigError: ``base_url`` has a user or password part.
    """
    if "@" in urlsplit(config.base_url).netloc:
        raise ConfigError(f"tutor base_url holds a password; put the key into {config.api_key_env} instead")


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or as a date; ``None`` if it cannot be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(date: str) -> float:
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return -1.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds())


def _text(content: Any) -> str:
    """A message's content: a string, or typed parts of which the texts count."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if part.get("type") in ("text", "output_text"))


_POOL: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[EndpointConfig, Endpoint]] = WeakKeyDictionary()


def pooled(config: EndpointConfig) -> Endpoint:
    """The running event loop's one endpoint of this configuration; every tutor with the same settings shares it."""
    pool = _POOL.setdefault(asyncio.get_running_loop(), {})
    if config not in pool:
        pool[config] = Endpoint(config)
    return pool[config]


async def release(endpoint: Endpoint) -> None:
    """Give back one tutor's hold; the last one closes the connections."""
    endpoint.users -= 1
    if endpoint.users <= 0:
        pool = _POOL.get(asyncio.get_running_loop(), {})
        if pool.get(endpoint.config) is endpoint:
            del pool[endpoint.config]
        await endpoint.close()
