"""A student at an OpenAI-compatible endpoint, asked on the project's own transport.

What the model wrote is its answer, be it empty, cut at the token cap or a refusal. No answer is what the transport
could not get, a picture that cannot be opened, a conversation longer than the model takes, and what the server's own
filter stopped: the model did not write that.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from steer_verl.config import EndpointConfig
from steer_verl.data.asking import may_pass
from steer_verl.data.requests import Pictures
from steer_verl.data.work.step import AgentFailed, Desk
from steer_verl.errors import StudentError, TutorError
from steer_verl.eval.students.conversation import conversation
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.transport import reply as transport
from steer_verl.transport.asking import ask
from steer_verl.transport.endpoint import check_address
from steer_verl.transport.failure import CallFailed
from steer_verl.transport.inquiry import Deadline, Inquiry
from steer_verl.transport.lease import Lease
from steer_verl.transport.ledger import Ledger
from steer_verl.transport.pool import Pool
from steer_verl.transport.reading import was_cut, was_filtered
from steer_verl.tutor.check import find_model, told
from steer_verl.types import UnscoredReason


class EndpointStudent:
    """Asks one model (:class:`~steer_verl.eval.students.protocol.Student`). It may be asked for many answers at once.

    Args:
        config: the endpoint; its ``temperature`` and ``max_tokens`` are the student's.
        name: see the protocol.
        system: a system message; empty: none.
        top_p: nucleus of the sampling.
        seed: of the sampling. Each answer has a seed of its own, made of this one and of its place, so that two
            dialogues with the same opening are two draws.
        ledger: where every attempt is written down, if anywhere.
        where: its place in the configuration, for messages.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        name: str,
        system: str = "",
        top_p: float = 1.0,
        seed: int = 0,
        ledger: Ledger | None = None,
        where: str = "student.endpoint",
    ) -> None:
        check_address(config, where)
        self.config, self.name, self.system = config, name, system
        self._top_p, self._seed, self._where = top_p, seed, where
        self._pictures = Pictures(None, sent=config.images)
        self._lease, self._ledger = Lease(), ledger

    async def check(self) -> None:
        """Find the model at every server, and have it answer a question about a small picture."""
        try:
            for number, server in enumerate(self.pool().servers):
                await find_model(server, f"{self._where}.mirrors[{number - 1}]" if number else self._where)
            with tempfile.TemporaryDirectory() as folder:
                inquiry = Inquiry(Deadline(self.config.timeout), task="check")
                await self._complete(_probe(Path(folder), self.config.images), inquiry)
        except CallFailed as failure:
            raise StudentError(told(self.config, self._where, failure.reason, failure.detail)) from None
        except TutorError as error:
            raise StudentError(str(error)) from None

    async def answer(self, messages: Messages, desk: Desk) -> Reply:
        """See the protocol."""
        name = f"{self.name}/{digest(messages)}"
        return await desk.once(name, Reply, functools.partial(self.asked, messages, f"{desk.place}/{name}", desk))

    def pool(self) -> Pool:
        """The endpoint's shared servers, in the running event loop."""
        return self._lease.pool(self.config)

    async def close(self) -> None:
        """Give the connections back."""
        await self._lease.close()

    async def asked(self, messages: Messages, place: str, desk: Desk) -> Reply:
        """Ask, whatever the desk remembers; what it cost goes on the item's account, also when nothing came of it.

        Args:
            messages: see the protocol.
            place: which answer of which run this is; the idempotency key and the sampling's seed are made of it.
            desk: the turn's.

        Raises:
            AgentFailed: see the protocol.
        """
        inquiry = Inquiry(
            Deadline(self.config.timeout),
            seed=digest(messages[:1]),  # every turn of a dialogue goes where its beginning is in the cache
            place=place,
            task="student",
            ledger=self._ledger,
            sampling=self._sampling(place),
        )
        try:
            reply = await self._complete(messages, inquiry)
        except CallFailed as failure:
            raise AgentFailed(failure.reason.value, self._told(failure.detail), transient=may_pass(failure)) from None
        finally:
            desk.spend(inquiry.usage)
        return Reply(
            text=_whole(reply.content or reply.refusal),
            tokens=inquiry.usage.completion_tokens,
            truncated=was_cut(reply.finish_reason),
            seconds=self.config.timeout - inquiry.deadline.left,
        )

    async def _complete(self, messages: Messages, inquiry: Inquiry) -> transport.Reply:
        """One reply.

        Raises:
            AgentFailed: a picture cannot be opened.
            CallFailed: no reply came, or the server's filter ended it.
        """
        make = functools.partial(conversation, self.system, messages, self._pictures)
        reply = await ask(self.pool(), inquiry, make, None, lambda reply, _: reply, lambda reply: "")
        if was_filtered(reply.finish_reason):
            raise CallFailed(UnscoredReason.CONTENT_FILTER, "the server's filter ended the reply", status=200)
        return reply

    def _sampling(self, place: str) -> dict[str, Any]:
        """Only what changes an answer: some servers refuse what they do not know."""
        if self.config.temperature == 0:
            return {}
        drawn = hashlib.sha256(f"{self._seed}\n{place}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big") >> 1  # 31 bits: what every server takes
        return {"seed": seed, **({"top_p": self._top_p} if self._top_p < 1 else {})}

    def _told(self, detail: str) -> str:
        return f"student ({self.config.model}): {detail}"


def digest(messages: Messages) -> str:
    """Tells a conversation from every other one of its item."""
    return hashlib.sha256(json.dumps(list(messages)).encode()).hexdigest()[:12]


def _whole(text: str) -> str:
    """The text, fit for UTF-8: a lone surrogate becomes a question mark."""
    return text.encode(errors="replace").decode()


def _probe(folder: Path, picture: bool) -> list[dict[str, Any]]:
    """A harmless question, with a small picture where pictures are shown."""
    if not picture:
        return [{"role": "user", "content": "Which colour has a ripe cherry?"}]
    from PIL import Image

    path = folder / "probe.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path)
    question = {"type": "text", "text": "Which colour fills this picture?"}
    return [{"role": "user", "content": [{"type": "image", "image": str(path)}, question]}]
