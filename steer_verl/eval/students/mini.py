"""The laboratory's student behind the protocol: many conversations are answered in one batch.

Who asks waits until nobody else does: the event loop is let run until a few turns of it bring no more, and then all
that came is generated at once, in a thread. Rules answer at once, so that the dialogues of a run advance in lock-step.
Who shares a batch changes nothing in an answer (steer_verl/mini/student.py): it is the same in every run.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steer_verl.errors import DataError
from steer_verl.eval.students.answers import KeptAnswers, Setup, conversation, image_paths
from steer_verl.eval.students.checkpoint import resolve_checkpoint
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.models.replies import AskFault

if TYPE_CHECKING:
    from steer_verl.mini.student import Conversation, MiniStudent

QUIET = 20
"""Turns of the event loop without a new conversation after which a batch is whole."""


@dataclass(frozen=True)
class _Open:
    """A conversation that waits for its answer."""

    messages: Conversation
    place: str
    reply: asyncio.Future[Reply]


class MiniStudentAgent(KeptAnswers):
    """See the module; a merged checkpoint of it is kept."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._student: MiniStudent | None = None
        self._waiting: list[_Open] = []
        self._work: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Load the model."""
        await asyncio.to_thread(self._load)

    async def close(self) -> None:
        """Let the model go."""
        if self._work is not None:
            await asyncio.gather(self._work, return_exceptions=True)
        self._student = None

    async def asked(self, messages: Messages, place: Place, name: str) -> Reply:
        """Wait for the batch that answers it; it costs nothing."""
        from steer_verl.mini.student import open_image

        try:
            for path in image_paths(messages):
                open_image(path)  # one bad image must not fail the batch
        except DataError as error:
            raise AgentFailed(AskFault.IMAGE.value, f"student: {error}") from None
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        mine = _Open(conversation(self.setup.system, messages, None), place.key, future)
        self._waiting.append(mine)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await mine.reply

    async def _answer_all(self) -> None:
        while self._waiting:
            await self._quiet()
            batch, self._waiting = self._waiting, []
            try:
                replies = await asyncio.to_thread(self._batch, batch)
            except Exception as error:
                for one in batch:
                    if not one.reply.done():
                        one.reply.set_exception(error)
            else:
                for one, reply in zip(batch, replies, strict=True):
                    if not one.reply.done():  # called off meanwhile
                        one.reply.set_result(reply)

    async def _quiet(self) -> None:
        """Until no more conversations come."""
        known, still = 0, 0
        while still < QUIET:
            await asyncio.sleep(0)
            still = still + 1 if len(self._waiting) == known else 0
            known = len(self._waiting)

    def _batch(self, asked: list[_Open]) -> list[Reply]:
        began = time.monotonic()
        generated = self._load().generate([one.messages for one in asked], [one.place for one in asked])
        seconds = (time.monotonic() - began) / len(asked)
        return [Reply(text=one.text, tokens=one.tokens, truncated=one.truncated, seconds=seconds) for one in generated]

    def _load(self) -> MiniStudent:
        if self._student is None:
            from steer_verl.mini.student import MiniStudent

            settings = self.setup.settings
            self._student = MiniStudent.load(
                resolve_checkpoint(Path(str(settings.path)), self.setup.out, trusted=settings.trust_checkpoint),
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=settings.max_answer_tokens,
                seed=settings.seed,
            )
        return self._student
