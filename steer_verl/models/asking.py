"""One way for every model of Stages I and II to be asked, on the models layer.

An :class:`Asker` has one endpoint and one prompt. It asks for a record (:meth:`Asker.ask`: JSON, read strictly) or for
the next message of a chat (:meth:`Asker.answer`: prose). Either is remembered by the item's desk with what it cost, and
either ends in a result or in :class:`~steer_verl.work.step.AgentFailed`.

Questions, pictures and models' words are material: they stand quoted (steer_verl/models/prompt_file.py), a reply must
carry its request's id (steer_verl/models/forms.py), and only then is it read (steer_verl/models/replies.py).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from steer_verl.config import EndpointConfig
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import AgentFailed, Failure
from steer_verl.models.forms import Chat, Form, Pictures, Said, chat, form
from steer_verl.models.log import RequestLog
from steer_verl.models.prompt_file import Ours, PromptFile, Value, pasted
from steer_verl.models.replies import Fault, read_answer, read_record
from steer_verl.models.reply_schema import reply_schema
from steer_verl.models.request import Reply, Request, RequestContext
from steer_verl.types import IMAGE_MARK
from steer_verl.work.step import Desk

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True)
class _Request(Generic[T]):
    """What is asked for, and how a reply to it is read."""

    kind: type[T]
    what: tuple[Any, ...]
    """Tells it from every other request of the role for the same item."""
    make: Callable[[], Form | Chat]
    schema: dict[str, Any] | None
    read: Callable[[Reply, Any], T | Fault]


class EndpointFailed(Exception):
    """The cause of an ``AgentFailed`` that came from the endpoint: for checks, which explain it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class Asker:
    """Asks one model in one role. Make one per process; it may be at work on many items at once.

    Args:
        config: the endpoint; ``reasks`` bounds how often a reply of no use is asked for again.
        role: one word; it names the request's schema, and stands in logs and failures.
        prompt: its words; ``None`` asks a plain chat without a system message.
        pictures: folder that the paths of pictures lie below.
        log: where every attempt is written down, if anywhere.
        where: the endpoint's place in the configuration, for messages; the role unless given.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(
        self,
        config: EndpointConfig,
        role: str,
        prompt: PromptFile | None,
        *,
        pictures: Path | None = None,
        log: RequestLog | None = None,
        where: str = "",
    ) -> None:
        self.config, self.role, self.prompt = config, role, prompt
        self.version = prompt.version if prompt else "chat"
        self.name = f"{config.model}@{role}-{self.version}"
        self._pictures = Pictures(pictures, sent=config.images)
        self.endpoint = Endpoint(config, log=log, where=where or role)

    async def ask(
        self,
        kind: type[R],
        values: Mapping[str, Value],
        desk: Desk,
        *,
        images: tuple[str, ...] = (),
        check: Callable[[R], str] = lambda record: "",
        again: str = "",
    ) -> R:
        """A record of ``kind`` for the prompt's request.

        Args:
            kind: what the reply must be; its fields' names stand in the prompt.
            values: fill the request's blanks. A ``str`` goes in as a quotation.
            desk: the item's.
            images: paths below ``pictures``, shown before the request.
            check: what else is wrong with a record, in words for the model; it is then asked again.
            again: tells a second asking of the same from the first.

        Raises:
            AgentFailed: there is none; ``transient`` when the endpoint may give it later.
        """
        if self.prompt is None:
            raise ValueError("a plain chat has no request")
        text = self.prompt.render(values)
        request: _Request[R] = _Request(
            kind,
            (kind.__name__, text, images, again),
            functools.partial(form, self.role, self.prompt.instructions, text, self._pictures, images),
            reply_schema(kind, self.role),
            lambda reply, sent: read_record(reply, sent.nonce, kind, check),
        )
        return await self._once(request, desk)

    async def answer(
        self,
        said: tuple[Said, ...],
        desk: Desk,
        *,
        check: Callable[[str], str] = lambda text: "",
        verbatim: bool = False,
        again: str = "",
    ) -> str:
        """The next message of a chat; a model's own refusal is an answer, and so is one that was cut at its end.

        Args:
            said: the chat so far, a user's message last.
            desk: the item's.
            check: what is wrong with an answer, in words for the model; it is then asked again.
            verbatim: the answer's own ``<thinking>`` part is wanted; otherwise drafts of a reasoning model are dropped
                and a cut answer is kept.
            again: tells a second asking of the same from the first.

        Raises:
            AgentFailed: there is none; ``transient`` when the endpoint may give it later.
        """
        shown = tuple((message.role, message.text, message.images) for message in said)
        request: _Request[str] = _Request(
            str,
            ("answer", shown, again),
            functools.partial(chat, self.prompt.instructions if self.prompt else "", said, self._pictures),
            None,
            lambda reply, _: read_answer(reply, check, verbatim),
        )
        return await self._once(request, desk)

    async def close(self) -> None:
        """Give the connections back."""
        await self.endpoint.close()

    async def _once(self, request: _Request[T], desk: Desk) -> T:
        digest = hashlib.sha256(json.dumps(request.what).encode()).hexdigest()[:12]
        name = f"{self.name}/{digest}"
        work = functools.partial(self._asked, request, f"{desk.place}/{name}", desk)
        return await desk.once(name, request.kind, work)

    async def _asked(self, request: _Request[T], place: str, desk: Desk) -> T:
        """Ask; what it cost goes on the item's account, also when nothing came of it."""
        context = self.endpoint.context(key=place, affinity=desk.place, purpose=self.role, prompt=self.version)
        try:
            outcome = await self._read(request, context)
        finally:
            desk.spend(context.usage)
        if isinstance(outcome, Failure):
            transient, detail = not outcome.of_this_request, self._told(outcome.detail)
            raise AgentFailed(outcome.reason.value, detail, transient=transient) from EndpointFailed(outcome)
        if isinstance(outcome, Fault):
            raise AgentFailed(outcome.reason.value, self._told(outcome.detail))
        return outcome

    async def _read(self, request: _Request[T], context: RequestContext) -> T | Fault | Failure:
        """What the first readable reply comes to, or the last one after ``reasks`` more."""
        config, schema, fault = self.config, request.schema, ""
        async with self.endpoint.admitted(context):
            with context.deadline.stopped():
                prompt = await asyncio.to_thread(request.make)
            for again in range(1 + config.reasks):
                reply = await self.endpoint.ask(Request(prompt.messages(fault), schema, again=again), context)
                if isinstance(reply, Failure):
                    return reply
                outcome = request.read(reply, prompt)
                if not isinstance(outcome, Fault) or not outcome.again:
                    break
                fault = outcome.detail
                if reply.truncated and config.json_schema == "auto":
                    schema = None  # some servers pour out white space up to the limit under a schema (vLLM #38696)
        return outcome

    def _told(self, detail: str) -> str:
        return f"{self.role} ({self.config.model}): {detail}"


def dialogue(said: tuple[Said, ...]) -> Ours:
    """A dialogue for a request: our numbered lines, everything said quoted."""
    lines = []
    turn = 0
    for message in said:
        turn += message.role == "user"
        lines += [f"{message.role} {turn}:", pasted(message.text.replace(IMAGE_MARK, ""))]
    return Ours("\n".join(lines))
