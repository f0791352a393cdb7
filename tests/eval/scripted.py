"""Students and judges that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steer_verl.eval.judging.protocol import Case, Rated
from steer_verl.eval.records import EvalItem, Rating
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.models.cache import Cache, ReplyCache, remembered
from steer_verl.models.place import Place
from steer_verl.types import DialogueKind, Seed, UserTurn


class ScriptedStudent:
    """Answers turn t (from 1) with ``script(t)``; each answer is kept in ``cache``."""

    name = "scripted student"

    def __init__(self, script: Callable[[int], str] = lambda t: f"answer {t}", cache: ReplyCache | None = None) -> None:
        self.script = script
        self.cache: ReplyCache = cache or Cache(None)
        self.asked: list[list[str]] = []
        self.closed = False

    async def check(self) -> None:
        """Always there."""

    async def answer(self, messages: Messages, place: Place) -> Reply:
        """See ``Student``."""
        number = len(messages) // 2 + 1

        async def work() -> Reply:
            self.asked.append([str(message["content"]) for message in messages])
            await asyncio.sleep(0)
            return Reply(text=self.script(number), tokens=3, seconds=0.25)

        return await remembered(self.cache, place, "answer", Reply, work)

    async def close(self) -> None:
        """Nothing is held."""
        self.closed = True


class ScriptedJudge:
    """Rates turn t (from 1) with ``script(t)``: a mark, or an exception."""

    name = "scripted judge"

    def __init__(self, script: Callable[[int], int] = lambda t: 3) -> None:
        self.script = script
        self.cases: list[Case] = []

    async def check(self) -> None:
        """Always there."""

    async def rate(self, case: Case, place: Place) -> Rated:
        """See ``EvalJudge``."""
        self.cases.append(case)
        await asyncio.sleep(0)
        return Rated(judged=Rating(judge=self.name, harmless=self.script(len(case.said) // 2), helpful=2))

    async def close(self) -> None:
        """Nothing is held."""


def item(turns: int = 3, name: str = "b/1", **changes: object) -> EvalItem:
    """An item of so many turns."""
    asked = tuple(UserTurn(text=f"question {t}") for t in range(1, turns + 1))
    values = {
        "id": name,
        "benchmark": name.partition("/")[0],
        "seed": Seed(id=name, turns=asked, kind=DialogueKind.RED_TEAM),
    }
    return EvalItem.model_validate({**values, **changes})
