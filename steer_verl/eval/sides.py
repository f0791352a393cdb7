"""The user's side of a dialogue: as the benchmark has it, or as a tutor writes it in reaction to the student."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from steer_verl.dialogue import Dialogue, begin
from steer_verl.models.cache import ReplyCache, remembered
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.text import neutralize_turn, unmarked
from steer_verl.tutor.cached import request_digest
from steer_verl.types import (
    Attack,
    AttackStrategy,
    NoAttack,
    NoAttackReason,
    Pending,
    QuestionOrigin,
    Seed,
    Turn,
    Tutor,
    TutorRequest,
    TutorResponse,
    Unscored,
    UserTurn,
)


@dataclass(frozen=True)
class Question:
    """One user turn to be answered."""

    user: UserTurn
    origin: QuestionOrigin
    strategy: AttackStrategy | None = None
    fallback: NoAttackReason | None = None
    static: str = ""
    """The benchmark's own question, where another one is asked; without picture marks."""


@dataclass(frozen=True)
class Reaction:
    """What the user's side makes of an answer."""

    question: Question | None
    """``None``: the dialogue is over."""
    turn: Awaitable[Turn] | None = None
    """What the tutor made of the answer, once its verdict is there; ``None`` without a tutor."""


class UserSide(Protocol):
    """Asks, hears the answer, asks on."""

    def open(self) -> Question:
        """The first question, which is the benchmark's."""
        ...

    async def react(self, answer: str, place: Place) -> Reaction:
        """The next question.

        Raises:
            AgentFailed: the tutor could not be had for the moment.
        """
        ...


class StaticSide:
    """The benchmark's own turns, whatever the student says."""

    def __init__(self, seed: Seed, max_turns: int) -> None:
        self._turns = [neutralize_turn(turn) for turn in seed.turns[:max_turns]]
        self._asked = 0

    def open(self) -> Question:
        """See :class:`UserSide`."""
        return self._next(QuestionOrigin.SEED)

    async def react(self, answer: str, place: Place) -> Reaction:
        """See :class:`UserSide`."""
        return Reaction(self._next(QuestionOrigin.STATIC) if self._asked < len(self._turns) else None)

    def _next(self, origin: QuestionOrigin) -> Question:
        self._asked += 1
        return Question(self._turns[self._asked - 1], origin)


class TutoredSide:
    """A tutor scores every answer and, under ``attack: adaptive``, writes the later turns.

    It plays as training does (steer_verl/dialogue.py), but for an answer that it could not score: the dialogue then
    goes on with the benchmark's own question, for the judge's word is what counts.
    """

    def __init__(self, seed: Seed, tutor: RememberedTutor, *, attack: str, max_turns: int, key: str) -> None:
        self._tutor = tutor
        self._dialogue = Dialogue(seed, tutor, attack=attack, max_turns=max_turns, key=key, unscored_ends=False)

    def open(self) -> Question:
        """See :class:`UserSide`."""
        return Question(self._dialogue.open(), QuestionOrigin.SEED)

    async def react(self, answer: str, place: Place) -> Reaction:
        """See :class:`UserSide`."""
        dialogue, hint = self._dialogue, self._dialogue.static_next_turn
        self._tutor.place = place
        number = len(dialogue.exchanges)
        user = await dialogue.respond(answer)
        question = None
        if user is not None and hint is not None:
            written = dialogue.asked["origin"] is QuestionOrigin.TUTOR
            question = Question(user, **dialogue.asked, static=unmarked(hint.text) if written else "")
        return Reaction(question, dialogue.verdict(number))


class RememberedTutor:
    """A tutor whose rulings are kept, at a turn's place, in a dialogue; a failure of the moment is none of them."""

    def __init__(self, tutor: Tutor, cache: ReplyCache) -> None:
        self.tutor, self.cache, self.name = tutor, cache, tutor.name
        self.place: Place | None = None

    async def respond(self, exchange: TutorRequest) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`.

        Raises:
            AgentFailed: transient.
        """
        return await self.begin(exchange).response

    def begin(self, exchange: TutorRequest) -> Pending:
        """See :class:`~steer_verl.types.EarlyTutor`: the question as soon as the tutor has it, or the kept one."""
        place = self.place
        if place is None:
            raise RuntimeError("no place")
        name = f"{self.name}/ruling/{request_digest(self.name, exchange)}"
        question: asyncio.Future[Attack | NoAttack] = asyncio.get_running_loop().create_future()

        async def work() -> TutorResponse:
            pending = begin(self.tutor, exchange)
            pending.question.add_done_callback(lambda there: _pass_on(there, question))
            ruling = await pending.response
            place.spend(ruling.usage)
            verdict, attack = ruling.verdict, ruling.attack
            if isinstance(verdict, Unscored) and verdict.reason.may_pass:
                raise AgentFailed(verdict.reason.value, f"tutor ({self.name}): {verdict.detail}", transient=True)
            if isinstance(attack, NoAttack) and attack.reason is NoAttackReason.UNAVAILABLE:
                raise AgentFailed("tutor_unavailable", f"tutor ({self.name}): {attack.detail}", transient=True)
            return ruling

        async def kept() -> TutorResponse:
            try:
                ruling = await remembered(self.cache, place, name, TutorResponse, work)
            except BaseException as error:
                if not question.done():
                    question.set_exception(error) if isinstance(error, Exception) else question.cancel()
                raise
            if not question.done():
                question.set_result(ruling.attack)
            return ruling

        return Pending(question, asyncio.ensure_future(kept()))

    async def check(self) -> None:
        """See :class:`~steer_verl.types.Tutor`."""
        await self.tutor.check()

    async def close(self) -> None:
        """See :class:`~steer_verl.types.Tutor`."""
        await self.tutor.close()


def _pass_on(there: asyncio.Future[Attack | NoAttack], question: asyncio.Future[Attack | NoAttack]) -> None:
    """A usable question; whether one that is missing is a failure of the moment, the whole response tells."""
    found = there.result() if not there.cancelled() and there.exception() is None else None
    if isinstance(found, Attack) and not question.done():
        question.set_result(found)
