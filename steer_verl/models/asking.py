"""One way for every model of data making and evaluation to be asked.

An :class:`Asker` has one endpoint and one prompt. It asks for a record (:meth:`Asker.ask`: JSON, read strictly) or for
the next message of a chat (:meth:`Asker.answer`: prose). Either ends in a result or in
:class:`~steer_verl.models.failure.AgentFailed` (``transient``: the endpoint may give it later), and its cost goes on
the account of the place.

Nothing is remembered here. The cache lies under the endpoint and keeps every reply, refusals and unreadable ones too,
before it is read. So the same work at the same place is replayed word for word, whatever became of it.

Questions, images and models' words are material: they stand quoted (steer_verl/models/prompt_file.py), a reply must
carry its request's id (steer_verl/models/forms.py), and only then is it read (steer_verl/models/replies.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from steer_verl.config import EndpointConfig
from steer_verl.models.cache import ReplyCache
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import AgentFailed, Failure
from steer_verl.models.forms import Form, Images, Said, chat, form
from steer_verl.models.log import RequestLog
from steer_verl.models.place import Place
from steer_verl.models.prompt_file import Ours, PromptFile, Value, pasted
from steer_verl.models.replies import AskFault, Fault, read_answer, read_record, reply_schema
from steer_verl.models.request import Reply, Request, RequestContext
from steer_verl.types import IMAGE_MARK, Usage

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


class EndpointFailed(Exception):
    """The cause of an ``AgentFailed`` that came from the endpoint: for checks, which explain it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class Asker:
    """Asks one model in one role. Make one per process; it may be at work on many items at once.

    Args:
        config: the endpoint; ``reasks`` bounds how often a reply of no use is asked for again.
        role: one word; it names the request's schema, and stands in keys, logs and failures.
        prompt: its words; ``None`` asks a plain chat without a system message.
        cache: keeps every reply; without one, nothing is kept.
        images: folder that the paths of images lie below.
        log: where every attempt is written down, if anywhere.
        where: the endpoint's place in the configuration, for messages; the role unless given.
    """

    def __init__(
        self,
        config: EndpointConfig,
        role: str,
        prompt: PromptFile | None,
        *,
        cache: ReplyCache | None = None,
        images: Path | None = None,
        log: RequestLog | None = None,
        where: str = "",
    ) -> None:
        self.config, self.role, self.prompt = config, role, prompt
        self.version = prompt.version if prompt else "chat"
        self.name = f"{config.model}@{role}-{self.version}"
        self.endpoint = Endpoint(config, cache=cache, log=log, where=where or role)
        self._images = Images(images, sent=config.images)
        self._under_way: set[tuple[str, object]] = set()

    async def ask(
        self,
        kind: type[R],
        values: Mapping[str, Value],
        place: Place,
        *,
        images: tuple[str, ...] = (),
        check: Callable[[R], str] = lambda record: "",
        again: str = "",
    ) -> R:
        """A record of ``kind`` for the prompt's request.

        Args:
            kind: what the reply must be; its fields' names stand in the prompt.
            values: fill the request's blanks. A ``str`` goes in as a quotation.
            place: where the record belongs, and who pays for it.
            images: paths below the folder of images, shown before the request.
            check: what else is wrong with a record, in words for the model; it is then asked again.
            again: tells a second asking of the same from the first.
        """
        if self.prompt is None:
            raise ValueError("a plain chat has no request")
        text = self.prompt.render(values)
        make = functools.partial(form, self.role, self.prompt.instructions, text, self._images, images)
        read = functools.partial(read_record, kind=kind, check=check)
        what, schema = (kind, text, images), reply_schema(kind, self.role)
        return await self._answered(what, make, read, place, again, schema)

    async def answer(
        self,
        said: tuple[Said, ...],
        place: Place,
        *,
        verbatim: bool = False,
        again: str = "",
    ) -> str:
        """The next message of a chat; a model's own refusal is an answer, and so is one that was cut at its end.

        Args:
            said: the chat so far, a user's message last.
            place: where the answer belongs, and who pays for it.
            verbatim: the answer's own ``<thinking>`` part is wanted; otherwise drafts of a reasoning model are dropped
                and a cut answer is kept.
            again: as for :meth:`ask`.
        """
        make = functools.partial(chat, self.prompt.instructions if self.prompt else "", said, self._images)
        return await self._answered(said, make, lambda reply, _: read_answer(reply, verbatim), place, again)

    async def close(self) -> None:
        """Give the connections back."""
        await self.endpoint.close()

    async def _answered(
        self,
        what: object,
        make: Callable[[], Form],
        read: Callable[[Reply, str], T | Fault],
        place: Place,
        again: str,
        schema: dict[str, Any] | None = None,
    ) -> T:
        """What ``read`` makes of the first readable reply and its request's id, at the latest after ``reasks`` more."""
        key = "/".join(filter(None, (place.key, self.role, again)))
        context = self.endpoint.context(key=key, affinity=place.key, purpose=self.role, prompt=self.version)
        fault = Fault(AskFault.EMPTY, "")
        with self._alone(key, what):
            async with self.endpoint.admitted(context):
                with context.deadline.stopped():
                    sent = await asyncio.to_thread(make)  # images are encoded only where they will be sent
                for number in range(1 + self.config.reasks):
                    request = Request(sent.messages(fault.detail), schema, again=number)
                    reply = await self._paid(request, context, place)
                    outcome = read(reply, sent.nonce)
                    if not isinstance(outcome, Fault):
                        return outcome
                    fault = outcome
                    if not fault.again:
                        break
                    if reply.truncated and self.config.json_schema == "auto":
                        schema = None  # some servers pour out white space up to the limit under a schema (vLLM #38696)
        raise AgentFailed(fault.reason.value, self._told(fault.detail))

    async def _paid(self, request: Request, context: RequestContext, place: Place) -> Reply:
        """One reply; its cost goes on the place's account at once, also when nothing came of it."""
        try:
            reply = await self.endpoint.ask(request, context)
        finally:
            place.spend(context.usage)
            context.usage = Usage()
        if isinstance(reply, Failure):
            told, transient = self._told(reply.detail), not reply.of_this_request
            raise AgentFailed(reply.reason.value, told, transient=transient) from EndpointFailed(reply)
        return reply

    @contextlib.contextmanager
    def _alone(self, key: str, what: object) -> Iterator[None]:
        """The same twice at once at one place is a fault: two replies would be one in the cache."""
        if (key, what) in self._under_way:
            raise RuntimeError(f"{key}: the same is asked for twice at the same time; tell them apart by `again`")
        self._under_way.add((key, what))
        try:
            yield
        finally:
            self._under_way.discard((key, what))

    def _told(self, detail: str) -> str:
        return f"{self.role} ({self.config.model}): {detail}"


def dialogue(said: tuple[Said, ...]) -> Ours:
    """A dialogue for a request: our numbered lines, everything said quoted."""
    lines, turn = [], 0
    for message in said:
        turn += message.role == "user"
        lines += [f"{message.role} {turn}:", pasted(message.text.replace(IMAGE_MARK, ""))]
    return Ours("\n".join(lines))
