"""One server and model: sends one request, once, in the form that this server takes.

Servers differ in the parameters that they take. What one refuses is left out or renamed, tried at once, and remembered
when the server then replies (:class:`Dialect`): ``max_tokens`` becomes ``max_completion_tokens``, ``response_format``,
``temperature``, ``top_p``, ``seed`` and ``stream`` go. It is warned of once, and every reply says what it was asked
without. When and where to ask again is the business of :mod:`steer_verl.models.endpoint`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from steer_verl.config import BreakerConfig, PriceConfig
from steer_verl.models.failure import Cause, Failure, classify, failed, message_of, status_in
from steer_verl.models.http import Answer, Connections, Secret, TooLarge, Undecodable
from steer_verl.models.limits import Breaker, Limiter
from steer_verl.models.request import ABORTED, FILTERED, Reply, Stream, encodable
from steer_verl.models.streaming import EventStream
from steer_verl.text import one_line
from steer_verl.types import UnscoredReason, Usage

logger = logging.getLogger(__name__)

_LARGE = 2**18
"""Characters of a body from which on it is parsed in a thread."""
_MAX_COUNT = 10**9
"""Tokens beyond which a server's count is taken for nonsense."""
_SCHEMA_WORDS = re.compile(
    r"response_format|schema|json mode|structured[ _-]?outputs?|guided|grammar|additionalProperties|requested param",
    re.IGNORECASE,
)
_STREAMING_WORDS = re.compile(r"(?<!\w)streaming(?!\w)", re.IGNORECASE)
_STREAM = ("stream", "stream_options")
_PARAMETERS = ("stream_options", "stream", "seed", "top_p", "temperature")
"""Optional parameters in the order in which they are given up where a server names several."""
_MAY_BE_A_PARAMETER = (Cause.REQUEST, Cause.MODEL, Cause.TOO_LONG)
"""Causes that the wording of a refused parameter can be taken for."""


@dataclass(frozen=True)
class Dialect:
    """What a server refuses."""

    left_out: frozenset[str] = frozenset()
    completion_tokens: bool = False
    """It wants ``max_completion_tokens`` for ``max_tokens``."""

    def __str__(self) -> str:
        return f"{sorted(self.left_out)} {self.completion_tokens}"

    def body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body in this dialect."""
        spoken = {name: value for name, value in body.items() if name not in self.left_out}
        if self.completion_tokens and "max_tokens" in spoken:
            spoken["max_completion_tokens"] = spoken.pop("max_tokens")
        return spoken

    def missing(self, body: Mapping[str, Any]) -> tuple[str, ...]:
        """What a request goes without in this dialect."""
        return tuple(sorted(self.left_out & set(body)))

    def without(self, *names: str) -> Dialect:
        """The dialect that gives up these parameters too."""
        return Dialect(self.left_out.union(names), self.completion_tokens)


class Server:
    """One model at one address. Shared by all endpoints that name the same (:mod:`steer_verl.models.hosts`).

    Args:
        connections: to the address.
        limiter: the address's bound on requests in flight; whoever sends holds a place.
        model: the name that this server gives the model.
        api_key_env: environment variable of the key.
        breaker: when it is left alone.

    Raises:
        ConfigError: the key cannot be sent.
    """

    def __init__(
        self, connections: Connections, limiter: Limiter, model: str, api_key_env: str, breaker: BreakerConfig
    ) -> None:
        self.connections, self.limiter, self.model, self.api_key_env = connections, limiter, model, api_key_env
        self.base_url = connections.base_url
        self.breaker = Breaker(breaker, self.base_url)
        self.dialect = Dialect()
        self.proven = self.knows_schema = self.knows_stream = False
        """It has replied to a request; to one with a schema; to one that asked for a stream."""
        self.stand_in_told = False
        """A warning has said that others stand in for it."""
        self.secret = Secret(api_key_env)
        self._suspected: Counter[Dialect] = Counter()

    def __repr__(self) -> str:
        return f"{self.model} at {self.base_url}"

    async def send(
        self,
        body: Mapping[str, Any],
        key: str,
        seconds: float,
        *,
        connect_timeout: float,
        prices: PriceConfig | None,
        stream: Stream | None = None,
    ) -> Reply | Failure:
        """One attempt.

        Args:
            body: in this server's dialect.
            key: idempotency key; a gateway that honours it charges once for all requests with the same one.
            seconds: the answer must be complete after so long.
            connect_timeout: seconds for the connection alone.
            prices: of the tokens.
            stream: where the reply is told while it comes, if the body asks for that and the server does it.
        """
        if stream is not None:
            stream.restart()
        # some servers stream unasked
        events = EventStream(lambda text: stream.write(self._whole(text)) if stream is not None else None)
        try:
            data = json.dumps({**body, "model": self.model}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return failed(Cause.REQUEST, UnscoredReason.HTTP_4XX, "not sent: the prompt is not UTF-8", status=400)
        headers = {**self.secret.headers, "Idempotency-Key": key}
        answer = await self._http("POST", "/chat/completions", headers, data, seconds, connect_timeout, events)
        if isinstance(answer, Failure):
            return answer
        try:
            if len(answer.text) < _LARGE:
                return self._read(answer, prices)
            return await asyncio.to_thread(self._read, answer, prices)
        except Exception as error:  # whatever a server sends ends as a failure, never as an exception
            return _unreadable(f"the server's answer is no chat completion ({type(error).__name__})")

    async def models(self, seconds: float, connect_timeout: float) -> list[str]:
        """Names of the models that the server says it has; empty when it keeps no list that can be read."""
        answer = await self._http("GET", "/models", self.secret.headers, None, seconds, connect_timeout)
        if isinstance(answer, Failure) or answer.status != 200:
            return []
        try:
            value = answer.json()
            entries = (value.get("data") or value.get("models") or []) if isinstance(value, dict) else value
            names = [entry.get("id") or entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
            return [self._clean(name, 100) for name in names[:1000] if isinstance(name, str)]
        except Exception:  # a list is a hint, not a promise
            return []

    def next_dialect(
        self, failure: Failure, body: Mapping[str, Any], dialect: Dialect, *, keep_schema: bool
    ) -> tuple[Dialect, bool] | None:
        """The dialect to try after a refusal, and whether the server named what is left out; ``None``: nothing to try.

        A parameter that the server names goes. Where it names none, whatever this server has never replied to is under
        suspicion, the schema first: the wordings of such refusals have no end.

        Args:
            failure: of the request.
            body: before any dialect.
            dialect: in which it was sent.
            keep_schema: the schema must not be given up.
        """
        if failure.status not in (400, 404, 405, 415, 422, 501) or failure.cause not in _MAY_BE_A_PARAMETER:
            return None
        sent, words = dialect.body(body), failure.message
        if "max_tokens" in sent and "max_completion_tokens" in words:
            return Dialect(dialect.left_out, completion_tokens=True), True
        present = [name for name in _PARAMETERS if name in sent]
        named = [name for name in present if re.search(rf"(?<!\w){name}(?!\w)", words)]
        if named == ["stream"] or (not named and "stream" in sent and _STREAMING_WORDS.search(words)):
            return dialect.without(*_STREAM), True
        if named:
            return dialect.without(named[0]), True
        schema = "response_format" in sent
        if schema and _SCHEMA_WORDS.search(words):
            return None if keep_schema else (dialect.without("response_format"), True)
        if failure.cause is not Cause.REQUEST:
            return None
        if schema and not self.knows_schema and not keep_schema:
            return dialect.without("response_format"), False
        if present and not self.proven:
            return dialect.without(*present), False
        return (dialect.without(*_STREAM), False) if "stream" in sent and not self.knows_stream else None

    def learn(self, dialect: Dialect, *, schema: bool, stream: bool = False, named: bool) -> None:
        """The server has replied to a request in this dialect.

        Args:
            dialect: what it took.
            schema: whether the request held one.
            stream: whether it asked for one.
            named: whether the server had named what is left out. If not, it takes two such replies: the first refusal
                may have been chance.
        """
        self.knows_schema |= schema
        self.knows_stream |= stream
        if dialect == self.dialect:
            self.proven = True
            return
        self._suspected[dialect] += 1
        if not named and self._suspected[dialect] < 2:
            return
        self.proven = True
        new = sorted(dialect.left_out - self.dialect.left_out)
        if new:
            logger.warning("%s refuses %s: requests go without from now on", self, " and ".join(new))
        self.dialect = Dialect(
            self.dialect.left_out | dialect.left_out, self.dialect.completion_tokens or dialect.completion_tokens
        )

    async def _http(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        data: bytes | None,
        seconds: float,
        connect: float,
        events: EventStream | None = None,
    ) -> Answer | Failure:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                return await self.connections.send(
                    method, path, headers=headers, data=data, connect_timeout=connect, events=events
                )
        except aiohttp.ServerTimeoutError:  # also a TimeoutError; aiohttp raises it for the connection alone
            return failed(Cause.UNREACHABLE, UnscoredReason.CONNECT, f"no connection within {connect:g} s")
        except TimeoutError:
            late = f"no complete answer within {max(seconds, 0.0):.3g} s"
            return failed(Cause.UNREACHABLE, UnscoredReason.TIMEOUT, late)
        except (TooLarge, Undecodable) as error:
            return _unreadable(str(error))
        except aiohttp.ClientResponseError as error:  # as a text it repeats addresses
            what = f"broken HTTP: {error.status} {error.message}"
            return failed(Cause.UNREACHABLE, UnscoredReason.CONNECT, self._clean(what))
        except aiohttp.ClientPayloadError as error:
            return failed(Cause.UNREACHABLE, UnscoredReason.CONNECT, self._clean(f"broken HTTP: {error}"))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return failed(Cause.UNREACHABLE, UnscoredReason.CONNECT, self._clean(str(error) or type(error).__name__))

    def _read(self, answer: Answer, prices: PriceConfig | None) -> Reply | Failure:
        """What an HTTP answer comes to: a status, a code inside a 200, or words alone."""
        try:
            value = answer.json()
        except ValueError:
            if answer.status == 200:  # what was left of a reply, or a gateway's page for the moment
                what = "the server's answer is not JSON"
                return failed(Cause.ABORTED, UnscoredReason.HTTP_5XX, what, status=200, answered=True)
            value = answer.text
        if answer.status != 200:
            message = self._clean(message_of(value), 4000)
            return classify(answer.status, message, retry_after=answer.retry_after)
        choice = value["choices"][0] if isinstance(value, dict) and value.get("choices") else None
        inner = choice if isinstance(choice, dict) and choice.get("error") else value
        if isinstance(inner, dict) and (choice is None or inner is choice) and (found := self._error_in(inner)):
            return found
        if not isinstance(choice, dict):
            return _unreadable("the server's answer is no chat completion")
        return self._reply(choice, usage_of(value.get("usage"), prices))

    def _error_in(self, value: dict[str, Any]) -> Failure | None:
        """The error that stands in the place of a reply."""
        status, message = status_in(value), self._clean(message_of(value), 4000)
        if not status and not message:
            return None
        return classify(status, message, detail=f"HTTP 200 with an error: {message or status}", answered=True)

    def _reply(self, choice: dict[str, Any], usage: Usage) -> Reply | Failure:
        message = choice.get("message")
        if not isinstance(message, dict):
            return _unreadable("the server's answer holds no message")
        content = _text(message.get("content"))
        if content is None:
            return _unreadable("the server's answer holds no text")
        finish = choice.get("finish_reason")
        finish = self._clean(finish, 40) if isinstance(finish, str) and finish else "stop"
        if finish.lower() in ABORTED:
            what = f"the server gave the reply up (finish_reason {finish})"
            return failed(Cause.ABORTED, UnscoredReason.HTTP_5XX, what, answered=True, usage=usage)
        if finish.lower() in FILTERED:
            what = "the server's filter ended the reply"
            return failed(Cause.FILTERED, UnscoredReason.CONTENT_FILTER, what, status=200, usage=usage)
        reasoning = next((message[name] for name in ("reasoning_content", "reasoning") if message.get(name)), "")
        refusal = message.get("refusal")
        return Reply(
            content=self._whole(content),
            finish_reason=finish,
            refusal=self._whole(refusal) if isinstance(refusal, str) else "",
            reasoning=self._whole(reasoning) if isinstance(reasoning, str) else "",
            usage=usage,
        )

    def _whole(self, text: str) -> str:
        """All of a text, fit for UTF-8, without the key."""
        return encodable(self.secret.struck_out(text))

    def _clean(self, text: str, limit: int = 300) -> str:
        """One line without the key and without terminal escapes."""
        return one_line(self.secret.struck_out(text), limit)


def _unreadable(what: str) -> Failure:
    return failed(Cause.UNREADABLE, UnscoredReason.BAD_JSON, what, status=200)


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_COUNT:
        return 0
    return int(value)


def _text(content: Any) -> str | None:
    """A message's content: a string, nothing, or typed parts of which the texts count; ``None`` for anything else."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    texts = [part for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text")]
    return "".join(str(part.get("text") or "") for part in texts)
