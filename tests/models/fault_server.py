"""A chat-completions server on 127.0.0.1 that does what a script says: good replies, and every way to fail.

    async with FaultServer(status(429, retry_after=1), good()) as server:
        ...  # EndpointConfig(base_url=server.base_url, model=MODEL)

A script's entries answer one request each; the last one answers all that follow. ``choose`` decides by the request
instead. With :meth:`FaultServer.in_thread` the server has an event loop of its own.

A completion is charged once for each ``Idempotency-Key``: a request with a known key gets the stored completion, as a
gateway does that honours it. What happens to it on its way (a delay, a broken connection) is still the script's.

:func:`streams` answers piece by piece, with pauses, where the request asks for that; every other step answers whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.models.replies import USAGE, completion, fields, prompt_text

MODEL = "fake-tutor"


@dataclass(frozen=True)
class Request:
    """A chat request as it arrived."""

    number: int
    """From 0."""
    body: dict[str, Any]
    key: str
    """``Idempotency-Key``; empty without one."""
    http: web.Request
    server: FaultServer

    @property
    def text(self) -> str:
        """Everything it says."""
        return prompt_text(self.body)


@dataclass(frozen=True)
class Step:
    """What is done to one request; ``kind`` is how it is counted."""

    kind: str
    act: Callable[[Request], Awaitable[web.StreamResponse]]


class FaultServer:
    """Answers by script.

    Args:
        script: one step for each request; the last one for all that follow.
        choose: the step for a request, in place of a script.
        models, models_status: what ``/v1/models`` says.
        keep: keep every request's body, key and headers in ``bodies``, ``keys`` and ``headers``.

    Attributes:
        injected: steps done so far, by kind.
        charges: completions made so far, by idempotency key; those without a key under ``""``.
        delivered: whole replies sent so far, by idempotency key: a second one is work that was asked for again.
        in_flight, peak: chat requests at work now, and at most.
        requests: chat requests so far.
    """

    def __init__(
        self,
        *script: Step,
        choose: Callable[[Request], Step] | None = None,
        models: list[str] | None = None,
        models_status: int = 200,
        keep: bool = True,
    ) -> None:
        self.script = list(script) or [good()]
        self.choose = choose or self._next
        self.models, self.models_status = [MODEL] if models is None else models, models_status
        self.keep = keep
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.injected, self.charges, self.delivered = Counter[str](), Counter[str](), Counter[str]()
        self.in_flight = self.peak = self.requests = 0
        self.base_url = ""
        self._completions: dict[str, bytes] = {}

    async def __aenter__(self) -> FaultServer:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[FaultServer]:
        """Serve from a thread with an event loop of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.__aenter__(), loop).result(30)
            yield self
            asyncio.run_coroutine_threadsafe(self.__aexit__(), loop).result(30)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
            loop.close()

    def complete(self, request: Request, content: str | None, finish: str, message: dict[str, Any]) -> bytes:
        """The completion's body: made and charged, or the one that was made for the same key."""
        made = self._completions.get(request.key)
        if made is None:
            self.charges[request.key] += 1
            made = completion(content, finish, **message)
            if request.key:
                self._completions[request.key] = made
        return made

    def _next(self, request: Request) -> Step:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def _models(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization", ""))
        listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        return web.json_response(listed, status=self.models_status)

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        body = json.loads(await http.read())
        request = Request(self.requests, body, http.headers.get("Idempotency-Key", ""), http, self)
        self.requests += 1
        if self.keep:
            self.bodies.append(body)
            self.keys.append(http.headers.get("Authorization", ""))
            self.headers.append(http.headers)
        step = self.choose(request)
        self.injected[step.kind] += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await step.act(request)
        finally:
            self.in_flight -= 1


def good(scores: Any = (8, 8, 9), **more: Any) -> Step:
    """A complete verdict and question."""
    return says(lambda body: json.dumps(fields(body, scores, **more)), kind="good")


def says(
    text: str | Callable[[dict[str, Any]], str | None] | None, finish: str = "stop", kind: str = "says", **message: Any
) -> Step:
    """A reply with this content."""

    async def act(request: Request) -> web.StreamResponse:
        content = text(request.body) if callable(text) else text
        made = request.server.complete(request, content, finish, message)
        request.server.delivered[request.key] += 1
        return web.Response(body=made, content_type="application/json")

    return Step(kind, act)


Part = str | bytes | float | dict[str, Any] | asyncio.Event | Callable[[dict[str, Any]], str]
"""Of a stream: words of the reply, or what makes them of the request's body; bytes as they are; a pause in seconds; a
delta with other fields; an event that is waited for."""

BREAKS = b"\0breaks"
"""A part at which the connection breaks."""


def streams(*parts: Part, finish: str = "stop", done: bool = True, kind: str = "streams", **headers: str) -> Step:
    """A reply in server-sent events, one for each part, where the request asks for a stream; else the whole of it.

    Args:
        parts: what comes, one after the other.
        finish: the finish reason, in an event of its own.
        done: end with the finish reason, the usage if it is asked for, and ``[DONE]``; else just stop.
        kind: how it is counted.
        headers: of the HTTP response, ``_`` for ``-``.
    """

    async def act(request: Request) -> web.StreamResponse:
        made = [part(request.body) if callable(part) else part for part in parts]
        content = "".join(part for part in made if isinstance(part, str))
        whole = request.server.complete(request, content, finish, {})
        if not request.body.get("stream"):
            return web.Response(body=whole, content_type="application/json")
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **given})
        await response.prepare(request.http)
        ends: list[Any] = [finished(finish)]
        if (request.body.get("stream_options") or {}).get("include_usage"):
            ends.append({"choices": [], "usage": USAGE})
        for part in [*made, *([event(value) for value in ends] + [b"data: [DONE]\n\n"] if done else [])]:
            if part == BREAKS:
                _break(request)
                break
            if isinstance(part, float):
                await asyncio.sleep(part)
            elif isinstance(part, asyncio.Event):
                await part.wait()
            else:
                await response.write(part if isinstance(part, bytes) else event(delta(part)))
        return response

    return Step(kind, act)


def event(value: Any, line: str = "\n") -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}{line}{line}".encode()


def delta(part: str | dict[str, Any]) -> dict[str, Any]:
    """The piece of a chat completion that brings these words, or these fields."""
    fields = {"content": part} if isinstance(part, str) else part
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def finished(finish: str) -> dict[str, Any]:
    """The piece that tells why a completion ended."""
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}


def question_of(scores: Any = (8, 8, 9), **more: Any) -> Callable[[dict[str, Any]], str]:
    """A good reply up to the point where its question is whole."""
    return lambda body: _cut(json.dumps(fields(body, scores, **more)))[0]


def verdict_of(scores: Any = (8, 8, 9), **more: Any) -> Callable[[dict[str, Any]], str]:
    """What follows :func:`question_of` in the same reply."""
    return lambda body: _cut(json.dumps(fields(body, scores, **more)))[1]


def _cut(text: str) -> tuple[str, str]:
    at = text.rindex('"diagnosis":') + len('"diagnosis":')
    return text[:at], text[at:]


def refuses() -> Step:
    """The model declines, in the field that the API has for it."""
    return says(None, refusal="I must decline.", kind="refusal")


def filtered() -> Step:
    """The server's filter cuts the reply."""
    return says("", "content_filter", kind="content_filter")


def flood(characters: int = 2000) -> Step:
    """White space up to the token limit (vLLM #38696)."""
    return says(" \n" * (characters // 2), "length", kind="flood")


def status(code: int, text: str = "no", retry_after: Any = None) -> Step:
    """An HTTP error."""

    async def act(request: Request) -> web.StreamResponse:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return web.json_response({"error": {"message": text}}, status=code, headers=headers)

    return Step(f"http_{code}", act)


def raw(text: str, content_type: str = "application/json") -> Step:
    """HTTP 200 with any body."""

    async def act(request: Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=content_type)

    return Step("raw", act)


def dropped() -> Step:
    """The connection breaks before an answer, and before any work was done."""

    async def act(request: Request) -> web.StreamResponse:
        _break(request)
        return web.Response()

    return Step("dropped", act)


def half_sent(scores: Any = (8, 8, 9), text: Callable[[dict[str, Any]], str] | None = None) -> Step:
    """The connection breaks in the middle of a good answer, or of this text, which has been charged."""

    async def act(request: Request) -> web.StreamResponse:
        content = text(request.body) if text else json.dumps(fields(request.body, scores))
        made = request.server.complete(request, content, "stop", {})
        response = web.StreamResponse(headers={"Content-Length": str(len(made)), "Content-Type": "application/json"})
        await response.prepare(request.http)
        await response.write(made[: len(made) // 2])
        _break(request)
        return response

    return Step("half_sent", act)


def drips(pause: float) -> Step:
    """HTTP 200 and then one blank after the other, for ever."""

    async def act(request: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request.http)
        while True:
            await response.write(b" ")
            await asyncio.sleep(pause)

    return Step("drips", act)


def slow(seconds: float, then: Step | None = None) -> Step:
    """An answer after a while."""
    after = then or good()

    async def act(request: Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await after.act(request)

    return Step("slow", act)


def refuses_schema() -> Step:
    """A server that does not know ``response_format`` (HTTP 400, as many name it) and else replies well."""

    async def act(request: Request) -> web.StreamResponse:
        refused = status(400, "Unknown parameter: 'response_format'")
        return await (refused if "response_format" in request.body else good()).act(request)

    return Step("refuses_schema", act)


def text_only() -> Step:
    """llama.cpp without a projector: any picture is answered with HTTP 500."""

    async def act(request: Request) -> web.StreamResponse:
        refused = status(500, "image input is not supported - hint: you may need to provide the mmproj")
        return await (refused if "data:image" in request.text else good()).act(request)

    return Step("text_only", act)


def _break(request: Request) -> None:
    if request.http.transport is not None:
        request.http.transport.abort()
