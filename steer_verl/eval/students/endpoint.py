"""A student at an OpenAI-compatible endpoint, asked through the models layer.

What the model wrote is its answer, be it empty, cut at the token cap or a refusal. No answer is what the transport
could not get, an image that cannot be opened, a conversation longer than the model takes, and what the server's own
filter stopped: the model did not write that.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from typing import Any

from steer_verl.config import EndpointConfig
from steer_verl.dialogue import user_message
from steer_verl.errors import StudentError
from steer_verl.eval.students.answers import KeptAnswers, Setup, conversation, digest
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.models import request
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import AgentFailed, Failure
from steer_verl.models.forms import Images
from steer_verl.models.place import Place
from steer_verl.models.request import ONLY_REASONING, Request, RequestContext
from steer_verl.tutor.check import explained, probe_image
from steer_verl.types import IMAGE_MARK, UserTurn


class EndpointStudent(KeptAnswers):
    """Asks one model, for many answers at once. With sampling, each answer has a seed of its own, made of the student's
    and of the answer's place: two dialogues with the same opening are two draws.

    Args:
        setup: of the student; the endpoint's ``temperature`` and ``max_tokens`` give way to its settings.
        config: the endpoint.
        where: its place in the configuration, for messages.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(self, setup: Setup, config: EndpointConfig, where: str = "student.endpoint") -> None:
        super().__init__(setup)
        ours = {"temperature": setup.settings.temperature, "max_tokens": setup.settings.max_answer_tokens}
        self.config = config.model_copy(update=ours)
        self._images = Images(None, sent=config.images)
        self.endpoint = Endpoint(self.config, cache=setup.cache, log=setup.log, where=where)

    async def check(self) -> None:
        """Have it answer a question about a small image, sampled as every other answer is."""
        with tempfile.TemporaryDirectory() as folder:
            context = self.endpoint.context(purpose="check")
            probe = _probe(probe_image(folder) if self.config.images else "")
            reply = await self._complete(probe, context, self._sampling("check"))
        if isinstance(reply, Failure):
            raise StudentError(await explained(reply, self.endpoint))
        if reply.reasoning.strip() and not (reply.content or reply.refusal).strip():
            where, model, url = self.endpoint.where, self.config.model, self.config.base_url
            raise StudentError(
                f"{where}: {model} at {url} answers with an empty text ({ONLY_REASONING}); serve it without "
                "--reasoning-parser, or switch its thinking off"
            )

    async def close(self) -> None:
        """Give the connections back."""
        await self.endpoint.close()

    async def asked(self, messages: Messages, place: Place, name: str) -> Reply:
        """Ask. The idempotency key and the sampling's seed are made of the place and the name."""
        key = f"{place.key}/{name}"
        # every turn of a dialogue goes where its beginning is in the server's cache
        context = self.endpoint.context(key=key, affinity=digest(messages[:1]), purpose="student")
        try:
            reply = await self._complete(messages, context, self._sampling(key))
        finally:
            place.spend(context.usage)
        if isinstance(reply, Failure):
            detail = f"student ({self.config.model}): {reply.detail}"
            raise AgentFailed(reply.reason.value, detail, transient=not reply.of_this_request)
        return Reply(
            text=reply.content or reply.refusal,
            tokens=reply.usage.completion_tokens,
            truncated=reply.truncated,
            seconds=self.config.timeout - context.deadline.left,
        )

    async def _complete(
        self, messages: Messages, context: RequestContext, sampling: dict[str, Any]
    ) -> request.Reply | Failure:
        """One reply, or why there is none. An image that cannot be opened is an ``AgentFailed``."""
        async with self.endpoint.admitted(context):
            with context.deadline.stopped():
                chat = await asyncio.to_thread(conversation, self.setup.system, messages, self._images)
            return await self.endpoint.ask(Request(chat, sampling=sampling), context)

    def _sampling(self, place: str) -> dict[str, Any]:
        """Only what changes an answer: some servers refuse what they do not know."""
        settings = self.setup.settings
        if settings.temperature == 0:
            return {}
        drawn = hashlib.sha256(f"{settings.seed}\n{place}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big") >> 1  # 31 bits: what every server takes
        return {"seed": seed, **({"top_p": settings.top_p} if settings.top_p < 1 else {})}


def _probe(image: str) -> list[dict[str, Any]]:
    """A harmless question, about an image where images are shown."""
    if not image:
        return [{"role": "user", "content": "Which colour has a ripe cherry?"}]
    return [user_message(UserTurn(text=f"{IMAGE_MARK}Which colour fills this picture?", images=(image,)))]
