"""One OpenAI-compatible server: sends one request, once, and says what came of it.

Every way to fail becomes a :class:`CallFailed` that knows whether the same request may succeed later. Two parameters
that some servers do not know (``response_format``, ``max_tokens``) are replaced once the server refuses them, and that
is remembered. When and where to send again is the business of :mod:`steer_verl.transport.pool`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import anyio
import openai

from steer_verl.config import EndpointConfig, PriceConfig
from steer_verl.errors import ConfigError
from steer_verl.names import REWARD_MODEL_URL
from steer_verl.transport.breaker import Breaker
from steer_verl.transport.failure import CallFailed, status_failure
from steer_verl.transport.limiter import Limiter
from steer_verl.transport.reply import Reply
from steer_verl.types import UnscoredReason, Usage

NO_KEY = "none"
"""Sent when the environment holds no key: local servers want none, and the client insists on one."""

NOTHING: Mapping[str, Any] = MappingProxyType({})

_NO_SCHEMA = re.compile(
    r"response_format|json_schema|structured.output|guided|grammar|unknown.parameter|unrecognized|extra.(?:fields|inputs)",
    re.IGNORECASE,
)
_NO_MAX_TOKENS = re.compile(r"max_completion_tokens", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """A request's body as one server takes it."""

    body: dict[str, Any]
    structured: bool
    length_key: str


@dataclass(frozen=True)
class Answer:
    """A server's reply and what it cost."""

    reply: Reply
    usage: Usage


class Server:
    """One server and model, with its breaker and its bound on requests in flight.

    Args:
        config: where, which model, and the limits. Mirrors are other servers.

    Raises:
        ConfigError: the address cannot be one.
    """

    def __init__(self, config: EndpointConfig) -> None:
        check_address(config)
        self.config = config
        self.breaker = Breaker(config.breaker, config.base_url)
        self.limiter = Limiter(config.max_concurrency)
        self.left_out = False
        """It was told that this server is left out, because it refuses key or model."""
        self._key = os.environ.get(config.api_key_env) or NO_KEY
        self._schema = config.json_schema != "off"
        self._length_key = "max_tokens"
        connections = config.max_concurrency + 1  # the list of models may be asked for at the same time
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
            max_connections=connections, max_keepalive_connections=connections
        )
        timeout = openai.Timeout(config.timeout, connect=config.connect_timeout, pool=None)
        proxies = not _here(config.base_url)
        http = openai.DefaultAsyncHttpxClient(timeout=timeout, limits=limits, follow_redirects=False, trust_env=proxies)
        self._client = openai.AsyncOpenAI(base_url=config.base_url, api_key=self._key, max_retries=0, http_client=http)

    def __repr__(self) -> str:
        return f"Server({self.config.model} at {self.config.base_url})"

    @property
    def sends_schema(self) -> bool:
        """Whether structured output is asked for: configured, and not refused by the server so far."""
        return self._schema

    def request(
        self, messages: list[dict[str, Any]], schema: dict[str, Any] | None, sampling: Mapping[str, Any] = NOTHING
    ) -> Request:
        """The body for these messages; ``schema``, if given, is asked for as long as the server takes one.

        The schema goes by its ``title``; one without is a ``ruling``. ``sampling``: further fields of the body.
        """
        structured = schema is not None and self._schema
        name = (schema or {}).get("title", "ruling")
        form = {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
        body = {
            "model": self.config.model,
            "messages": messages,
            "temperature": self.config.temperature,
            self._length_key: self.config.max_tokens,
            **sampling,
            **({"response_format": form} if structured else {}),
        }
        return Request(body, structured, self._length_key)

    async def send(self, request: Request, key: str, seconds: float) -> Answer:
        """Send it once.

        Args:
            request: made by :meth:`request`.
            key: idempotency key; a gateway that honours it charges once for all requests with the same one.
            seconds: the answer must be complete after so long.

        Raises:
            CallFailed: no reply came; its reason says why.
        """
        create = self._client.chat.completions.with_raw_response.create
        try:
            with anyio.fail_after(max(seconds, 0.0)):
                body = await self._guarded(create(**request.body, extra_headers={"Idempotency-Key": key}))
        except TimeoutError:
            raise CallFailed(UnscoredReason.TIMEOUT, f"no complete answer within {seconds:.3g} s") from None
        try:
            choice = body["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content") or "", message.get("refusal") or ""
            reply = Reply(_text(content), str(choice.get("finish_reason") or "stop"), str(refusal))
            return Answer(reply, usage_of(body.get("usage"), self.config.prices))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise CallFailed(UnscoredReason.BAD_JSON, "the server's answer is no chat completion", status=200) from None

    def adapt(self, failure: CallFailed, request: Request) -> bool:
        """Learn from a refused parameter; ``True`` when the request may be sent again in another form."""
        if failure.status not in (400, 422, 501) or failure.no_pictures:
            return False
        if request.length_key == "max_tokens" and _NO_MAX_TOKENS.search(failure.text):
            self._length_key = "max_completion_tokens"
            return True
        if request.structured and self.config.json_schema == "auto" and _NO_SCHEMA.search(failure.text):
            self._schema = False
            return True
        return False

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

    def without_key(self, text: str) -> str:
        """``text`` with the key, which some servers repeat, struck out."""
        return text.replace(self._key, "***") if self._key != NO_KEY else text

    async def _guarded(self, call: Awaitable[Any]) -> Any:
        """The decoded JSON body of an answer; every way to fail becomes a :class:`CallFailed`."""
        try:
            return json.loads((await call).content)
        except openai.APIStatusError as error:
            text = self._clean(f"HTTP {error.status_code}: {error.response.text}")
            raise status_failure(error.status_code, text, error.response.headers.get("retry-after")) from None
        except openai.APITimeoutError as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":  # of httpx or httpx2, by the client's version
                raise CallFailed(
                    UnscoredReason.CONNECT, f"no connection within {self.config.connect_timeout:g} s"
                ) from None
            raise CallFailed(UnscoredReason.TIMEOUT, "the server did not answer in time") from None
        except openai.APIConnectionError as error:
            raise CallFailed(UnscoredReason.CONNECT, self._clean(str(error.__cause__ or error))) from None
        except UnicodeEncodeError:
            raise CallFailed(UnscoredReason.HTTP_4XX, "not sent: the prompt is not UTF-8", status=400) from None
        except (ValueError, RecursionError):
            raise CallFailed(UnscoredReason.BAD_JSON, "the server's answer is not JSON", status=200) from None
        except openai.OpenAIError as error:
            raise CallFailed(UnscoredReason.BAD_JSON, self._clean(str(error)), status=200) from None

    def _clean(self, text: str) -> str:
        """One line of at most 4000 characters, without the key."""
        return self.without_key(" ".join(text.split()))[:4000]


def check_address(config: EndpointConfig, where: str = "tutor") -> None:
    """Refuse an address that cannot be used. Addresses are logged, so none may hold a secret.

    Args:
        config: the endpoint.
        where: whose it is, for messages.

    Raises:
        ConfigError: it has a user or password part, is no http address, or stands for a server that is not here.
    """
    for url in (config.base_url, *(mirror.base_url for mirror in config.mirrors)):
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ConfigError(f"{where} base_url holds a password; put the key into {config.api_key_env} instead")
        if url == REWARD_MODEL_URL:
            raise ConfigError(
                f"{where} base_url {url} is known within a training alone; train with reward.reward_model.enable=true, "
                "or give a server's address"
            )
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"{where} base_url {url!r} is no address; give one like http://127.0.0.1:8000/v1")


def _here(url: str) -> bool:
    """Whether a server is this machine's own: no proxy of the environment stands before it."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def usage_of(report: Any, prices: PriceConfig | None = None) -> Usage:
    """One answered request, from the ``usage`` object of its reply; what a server does not report counts as 0."""
    report = report if isinstance(report, dict) else {}
    details = report.get("prompt_tokens_details")
    prompt, completion = _count(report, "prompt_tokens"), _count(report, "completion_tokens")
    cached = min(prompt, _count(details if isinstance(details, dict) else {}, "cached_tokens"))
    cost = 0.0
    if prices is not None:
        cost = ((prompt - cached) * prices.prompt + cached * prices.cached + completion * prices.completion) / 1e6
    return Usage(requests=1, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion, cost=cost)


def _count(report: dict[str, Any], name: str) -> int:
    value = report.get(name)
    return max(0, int(value)) if isinstance(value, int | float) else 0


def _text(content: Any) -> str:
    """A message's content: a string, or typed parts of which the texts count."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if part.get("type") in ("text", "output_text"))
