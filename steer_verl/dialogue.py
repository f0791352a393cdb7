"""The attacker environment: one seed, one tutor, one dialogue. No verl here: training and evaluation play the same.

    question = dialogue.open()
    while question is not None:
        question = await dialogue.respond(student(dialogue.messages))
    turns = await dialogue.settled()

Every answer is judged, the last one too. The next question is awaited, the verdicts are not: they are settled when the
dialogue has ended. The next question is the tutor's when it is usable and the seed's own when it is not, and the record
says which.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from steer_verl.text import folded, neutralize_turn
from steer_verl.types import (
    IMAGE_MARK,
    Attack,
    AttackStrategy,
    EarlyTutor,
    Exchange,
    Judge,
    JudgeResult,
    NoAttack,
    NoAttackReason,
    Pending,
    QuestionOrigin,
    Seed,
    Spent,
    Status,
    StopReason,
    Trajectory,
    Turn,
    Tutor,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    UserTurn,
)

T = TypeVar("T")

NOTHING = Spent()

NOBODY = TutorResponse(
    verdict=Unscored(reason=UnscoredReason.NO_TUTOR), attack=NoAttack(reason=NoAttackReason.LAST_TURN)
)
"""The response where there is no tutor."""


def begin(tutor: Tutor, request: TutorRequest) -> Pending:
    """Ask a tutor; its question is there early if it can do that (:class:`~steer_verl.types.EarlyTutor`)."""
    if isinstance(tutor, EarlyTutor):
        return tutor.begin(request)
    response = asyncio.ensure_future(tutor.respond(request))
    return Pending(asyncio.ensure_future(_attack_of(response)), response)


def following(pending: Pending, whole: Coroutine[Any, Any, TutorResponse]) -> asyncio.Future[TutorResponse]:
    """``whole``, which is made of ``pending``'s response, as a task; once it is cancelled, so is ``pending``."""
    task = asyncio.ensure_future(whole)
    task.add_done_callback(lambda done: pending.cancel() if done.cancelled() else None)  # it may not have begun
    return task


async def _attack_of(response: asyncio.Future[TutorResponse]) -> Attack | NoAttack:
    return (await response).attack


@dataclass(frozen=True)
class _Played:
    """A turn whose verdict may still be under way."""

    exchange: Exchange
    told: dict[str, Any]
    """What else its record holds."""
    pending: Pending
    audit: asyncio.Future[JudgeResult] | None

    @property
    def unscored(self) -> bool:
        """Whether it is known to have no verdict."""
        found = _result(self.pending.response)
        return found is not None and isinstance(found.verdict, Unscored)

    def cancel(self) -> None:
        """Wait for nothing."""
        self.pending.cancel()
        if self.audit is not None:
            self.audit.cancel()

    def turn(self, response: TutorResponse | None) -> Turn:
        """The record; without a response the verdict never came."""
        if response is None:
            abandoned = Unscored(reason=UnscoredReason.ABANDONED, detail="the dialogue was lost first")
            return Turn(user=self.exchange.user, answer=self.exchange.answer, verdict=abandoned, **self.told)
        return Turn(
            user=self.exchange.user,
            answer=self.exchange.answer,
            verdict=response.verdict,
            tutor_seconds=response.seconds,
            usage=response.usage,
            **self.told,
        )


class Dialogue:
    """A seed being played.

    Args:
        seed: The user's side; its later turns are the tutor's hints and the fallback.
        tutor: Judges every answer and writes the next question; ``None``: the seed's own questions are asked, and every
            answer is ``Unscored`` (``no_tutor``).
        attack: ``adaptive`` asks the tutor's questions, ``static`` the seed's (ablation without feedback dynamics).
        max_turns: Play at most this many turns of the seed.
        max_question_chars: A longer tutor question is not usable.
        key: Which dialogue of which run this is, ``<split>/<step>/<seed>/<rollout>``; see ``TutorRequest.turn_key``.
        special_tokens: Spellings that the student's tokenizer would read as control tokens; they are broken wherever
            a dataset or a tutor spells them.
        unscored_ends: An answer that could not be scored ends the dialogue, as training wants it, for a lost dialogue
            is not played on; an evaluation goes on with the seed's own question.
        holdout: The held-out judge, if this dialogue is drawn for it; it enters no reward.
    """

    def __init__(
        self,
        seed: Seed,
        tutor: Tutor | None,
        *,
        attack: str = "adaptive",
        max_turns: int = 10,
        max_question_chars: int = 4000,
        key: str = "",
        special_tokens: tuple[str, ...] = (),
        unscored_ends: bool = True,
        holdout: Judge | None = None,
    ) -> None:
        self.seed = seed
        self.tutor = tutor
        self.adaptive = attack == "adaptive" and tutor is not None
        self.max_question_chars = max_question_chars
        self.key = key
        self.special_tokens = special_tokens
        self.unscored_ends = unscored_ends and tutor is not None
        self.holdout = holdout
        self.limit = min(len(seed.turns), max_turns)
        self.stop: StopReason | None = None
        self.detail = ""
        self._played: list[_Played] = []
        self.question: UserTurn | None = None
        """The open one."""
        self._asked: dict[str, Any] = {}
        """Of the open question: ``origin``, ``strategy`` and ``fallback``, as its turn will have them."""

    def open(self) -> UserTurn:
        """The opening question, which is the seed's."""
        return self._ask(self.seed.turns[0], QuestionOrigin.SEED)

    async def respond(
        self, answer: str, *, answer_tokens: int = 0, truncated: bool = False, spent: Spent = NOTHING
    ) -> UserTurn | None:
        """Have the answer to the open question judged; return the next question, or ``None`` when the dialogue is over.

        Waits for the question alone. Verdicts come with :meth:`settled`; one that is known to be missing ends a
        dialogue here.
        """
        user, static_next_turn = self.question, self.static_next_turn
        if user is None:
            raise RuntimeError(f"dialogue {self.seed.id} has no open question")
        request = TutorRequest(
            seed=self.seed,
            turns=self.exchanges,
            user=user,
            answer=answer,
            static_next_turn=static_next_turn if self.adaptive else None,
            turn_key=self.turn_key,
        )
        told = {**self._asked, "answer_tokens": answer_tokens, "truncated": truncated, **dict(spent)}
        pending = begin(self.tutor, request) if self.tutor is not None else Pending.of(NOBODY)
        audit = None
        if self.holdout is not None:
            audit = asyncio.ensure_future(self.holdout.judge(request.model_copy(update={"static_next_turn": None})))
        self._played.append(_Played(Exchange(user=user, answer=answer), told, pending, audit))
        self.question = None
        if static_next_turn is None:
            whole = self.limit == len(self.seed.turns)
            self.end(StopReason.COMPLETED if whole else StopReason.TURN_LIMIT)
            return None
        asked_at = time.perf_counter()
        attack = await pending.question if self.adaptive else None
        told["question_seconds"] = time.perf_counter() - asked_at
        if self.unscored_ends and any(played.unscored for played in self._played):
            self.end(StopReason.UNSCORED)
            return None
        return self._next(attack, static_next_turn)

    def end(self, reason: StopReason, detail: str = "") -> None:
        """End the dialogue here; a question that is still open was never asked."""
        self.stop, self.detail, self.question = reason, detail, None

    def abandon(self) -> None:
        """Wait for no verdict any more: what is not there will not be."""
        for played in self._played:
            played.cancel()

    async def settled(self) -> tuple[Turn, ...]:
        """Every turn, once all verdicts and the held-out judge's scores are there, or have failed.

        Then a tutor's exception is raised: what was asked for beside it has come to its end.
        """
        for waited in ([p.pending.response for p in self._played], [p.audit for p in self._played if p.audit]):
            if waited:
                await asyncio.wait(waited)
        for played in self._played:
            played.pending.response.result()
        return self.turns

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Every turn as far as it is known: a verdict that is not there counts as missing."""
        return tuple(played.turn(_result(played.pending.response)) for played in self._played)

    @property
    def origin(self) -> QuestionOrigin:
        """Where the question that was asked last comes from."""
        found: QuestionOrigin = self._asked["origin"]
        return found

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """What was said in the turns that were played."""
        return tuple(played.exchange for played in self._played)

    @property
    def static_next_turn(self) -> UserTurn | None:
        """The seed's next turn: what the tutor may build on, and whose images come next; ``None`` in the last."""
        following = len(self._played) + 1
        return self.seed.turns[following] if following < self.limit else None

    @property
    def turn_key(self) -> str:
        """Which turn is open: the dialogue's place and the turn's number, from 1."""
        return f"{self.key}/{len(self._played) + 1}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Chat messages so far, the open question last; contents are strings or lists of image and text blocks."""
        history: list[dict[str, Any]] = []
        for exchange in self.exchanges:
            history += [user_message(exchange.user), {"role": "assistant", "content": exchange.answer}]
        return history + ([user_message(self.question)] if self.question else [])

    def trajectory(self, **meta: Any) -> Trajectory:
        """The record of what was played. ``meta`` fills ``step``, ``uid``, ``rollout`` and ``validate_run``.

        Raises:
            RuntimeError: the dialogue is not over.
        """
        if self.stop is None:
            raise RuntimeError(f"dialogue {self.seed.id} is not over: {len(self._played)} of {self.limit} turns played")
        seed = self.seed
        turns = self.turns
        unscored = any(isinstance(turn.verdict, Unscored) for turn in turns)
        audits = [_audited(played.audit) for played in self._played if played.audit is not None]
        return Trajectory(
            seed_id=seed.id,
            kind=seed.kind,
            source=seed.source,
            facts=seed.facts,
            turns=turns,
            stop=StopReason.UNSCORED if unscored and self.stop.status is not Status.LOST else self.stop,
            detail=self.detail,
            audit=tuple(audits),
            **meta,
        )

    def _next(self, attack: Attack | NoAttack | None, static_next_turn: UserTurn) -> UserTurn:
        if attack is None:
            return self._ask(static_next_turn, QuestionOrigin.STATIC)
        if not isinstance(attack, Attack):
            return self._ask(static_next_turn, QuestionOrigin.FALLBACK, fallback=attack.reason)
        question = neutralize_turn(
            static_next_turn.with_text(attack.question), self.special_tokens
        )  # the static turn's images stay with the turn
        if not self._usable(question):
            return self._ask(static_next_turn, QuestionOrigin.FALLBACK, fallback=NoAttackReason.ATTACK_MISSING)
        return self._ask(question, QuestionOrigin.TUTOR, strategy=attack.strategy)

    def _usable(self, question: UserTurn) -> bool:
        words = folded(question.text, signs=True)
        repeated = any(words == folded(exchange.user.text, signs=True) for exchange in self.exchanges)
        return bool(words) and len(question.text) <= self.max_question_chars and not repeated

    def _ask(
        self,
        user: UserTurn,
        origin: QuestionOrigin,
        *,
        strategy: AttackStrategy | None = None,
        fallback: NoAttackReason | None = None,
    ) -> UserTurn:
        self._asked = {"origin": origin, "strategy": strategy, "fallback": fallback}
        self.question = neutralize_turn(user, self.special_tokens)
        return self.question


def _audited(audit: asyncio.Future[JudgeResult]) -> JudgeResult:
    """What the held-out judge said; one that raises has said nothing, for it is no part of any reward."""
    raised = audit.exception() if audit.done() and not audit.cancelled() else None
    missing = Unscored(reason=UnscoredReason.ABANDONED, detail=f"{type(raised).__name__}: {raised}" if raised else "")
    return _result(audit) or JudgeResult(scores=missing)


def _result(future: asyncio.Future[T]) -> T | None:
    """What a future has come to; ``None`` while there is nothing, and where there never will be."""
    there = future.done() and not future.cancelled() and future.exception() is None
    return future.result() if there else None


def user_message(user: UserTurn) -> dict[str, Any]:
    """The chat message of a user turn: a plain string, or image and text blocks in the order of the marks."""
    if not user.images:
        return {"role": "user", "content": user.text}
    parts = user.text.split(IMAGE_MARK)
    blocks: list[dict[str, Any]] = [{"type": "text", "text": parts[0]}] if parts[0] else []
    for image, text in zip(user.images, parts[1:], strict=True):
        blocks.append({"type": "image", "image": image})
        if text:
            blocks.append({"type": "text", "text": text})
    return {"role": "user", "content": blocks}
