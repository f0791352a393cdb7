"""A chat-completions server on 127.0.0.1 that does what a script says: good replies, and every way to fail.

    async with FakeServer(status(429, retry_after=1), good()) as server:
        ...  # EndpointConfig(base_url=server.base_url, model=MODEL)

The script's entries answer one request each; the last one answers all that follow.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

MODEL = "fake-tutor"
Step = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]


class FakeServer:
    """Answers by script and keeps what it was sent: ``bodies``, ``keys``, ``peak`` (most in flight at once)."""

    def __init__(self, *script: Step, models: list[str] | None = None, models_status: int = 200) -> None:
        self.script = list(script) or [good()]
        self.models, self.models_status = [MODEL] if models is None else models, models_status
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.in_flight = self.peak = 0
        self.base_url = ""

    async def __aenter__(self) -> FakeServer:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, shutdown_timeout=0.1)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization", ""))
        listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        return web.json_response(listed, status=self.models_status)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("Authorization", ""))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await step({**body, "_request": request})
        finally:
            self.in_flight -= 1


def prompt_text(body: dict[str, Any]) -> str:
    """Everything a request says, pictures as their URI."""
    texts = []
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part.get("text") or part["image_url"]["url"] for part in parts]
    return "".join(texts)


def nonce_of(body: dict[str, Any]) -> str:
    """The dialogue's id, which the tutor alone is told."""
    found = re.search(r"secret id is (\w+)", prompt_text(body))
    assert found is not None
    return found[1]


def fields(body: dict[str, Any], scores: Any = (8, 8, 9), **more: Any) -> dict[str, Any]:
    """A full and valid verdict with a question, changed by ``more``."""
    if isinstance(scores, tuple):
        scores = dict(zip(("safety", "usefulness", "faithfulness"), scores, strict=True))
    question = f"And what about part {len(prompt_text(body)) % 97}?"
    verdict = {"scores": scores, "attack_strategy": "deepen", "new_question": question, "diagnosis": "plain"}
    return {"id": nonce_of(body), **verdict, **more}


def completion(content: str | None, finish: str = "stop", **message: Any) -> web.Response:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


def good(scores: Any = (8, 8, 9), **more: Any) -> Step:
    """A complete verdict and question."""
    return says(lambda body: json.dumps(fields(body, scores, **more)))


def says(text: str | Callable[[dict[str, Any]], str | None] | None, finish: str = "stop", **message: Any) -> Step:
    """A reply with this content."""

    async def step(body: dict[str, Any]) -> web.StreamResponse:
        return completion(text(body) if callable(text) else text, finish, **message)

    return step


def status(code: int, text: str = "no", retry_after: Any = None) -> Step:
    """An HTTP error."""

    async def step(body: dict[str, Any]) -> web.StreamResponse:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return web.json_response({"error": {"message": text}}, status=code, headers=headers)

    return step


def raw(text: str, content_type: str = "application/json") -> Step:
    """HTTP 200 with any body."""

    async def step(body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text=text, content_type=content_type)

    return step


def dropped() -> Step:
    """The connection breaks before an answer."""

    async def step(body: dict[str, Any]) -> web.StreamResponse:
        body["_request"].transport.abort()
        return web.Response()

    return step


def slow(seconds: float, then: Step | None = None) -> Step:
    """An answer after a while."""

    async def step(body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await (then or good())(body)

    return step


def refuses_schema() -> Step:
    """A server that does not know ``response_format`` (HTTP 400, as many name it) and else replies well."""

    async def step(body: dict[str, Any]) -> web.StreamResponse:
        if "response_format" in body:
            return await status(400, "Unknown parameter: 'response_format'")(body)
        return await good()(body)

    return step


def text_only() -> Step:
    """llama.cpp without a projector: any picture is answered with HTTP 500."""

    async def step(body: dict[str, Any]) -> web.StreamResponse:
        if "data:image" in prompt_text(body):
            return await status(500, "image input is not supported - hint: you may need to provide the mmproj")(body)
        return await good()(body)

    return step
