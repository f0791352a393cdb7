"""The attacker environment: one seed, one tutor, one dialogue. No verl here: training and evaluation play the same.

    question = dialogue.open()
    while question is not None:
        question = await dialogue.respond(student(dialogue.messages))

Every answer is judged, the last one too. The next question is the tutor's when it is usable and the seed's own when it
is not, and the record says which.
"""

from __future__ import annotations

from typing import Any

from steer_verl.text import folded, neutralize_turn
from steer_verl.types import (
    IMAGE_MARK,
    Attack,
    AttackStrategy,
    NoAttackReason,
    QuestionOrigin,
    Seed,
    Spent,
    StopReason,
    Trajectory,
    Turn,
    Tutor,
    TutorRequest,
    TutorResponse,
    Unscored,
    UserTurn,
)

NOTHING = Spent()


class Dialogue:
    """A seed being played.

    Args:
        seed: The user's side; its later turns are the tutor's hints and the fallback.
        tutor: Judges every answer and writes the next question.
        attack: ``adaptive`` asks the tutor's questions, ``static`` the seed's (ablation without feedback dynamics).
        max_turns: Play at most this many turns of the seed.
        max_question_chars: A longer tutor question is not usable.
        key: Which dialogue of which run this is, ``<split>/<step>/<seed>/<rollout>``; see ``TutorRequest.turn_key``.
        special_tokens: Spellings that the student's tokenizer would read as control tokens; they are broken wherever
            a dataset or a tutor spells them.
        unscored_ends: An answer that could not be scored ends the dialogue, as training wants it; an evaluation goes on
            with the seed's own question.
        min_scored_turns: A dialogue with fewer scored turns is invalid: it has no part in its group.
    """

    def __init__(
        self,
        seed: Seed,
        tutor: Tutor,
        *,
        attack: str = "adaptive",
        max_turns: int = 10,
        max_question_chars: int = 4000,
        key: str = "",
        special_tokens: tuple[str, ...] = (),
        unscored_ends: bool = True,
        min_scored_turns: int = 2,
    ) -> None:
        self.seed = seed
        self.tutor = tutor
        self.adaptive = attack == "adaptive"
        self.max_question_chars = max_question_chars
        self.key = key
        self.special_tokens = special_tokens
        self.unscored_ends = unscored_ends
        self.min_scored_turns = min_scored_turns
        self.limit = min(len(seed.turns), max_turns)
        self.turns: list[Turn] = []
        self.stop: StopReason | None = None
        self._open: UserTurn | None = None
        self.asked: dict[str, Any] = {}
        """Of the open question: ``origin``, ``strategy`` and ``fallback``, as its turn will have them."""

    def open(self) -> UserTurn:
        """The opening question, which is the seed's."""
        return self._ask(self.seed.turns[0], QuestionOrigin.SEED)

    async def respond(
        self, answer: str, *, answer_tokens: int = 0, truncated: bool = False, spent: Spent = NOTHING
    ) -> UserTurn | None:
        """Judge the answer to the open question and return the next one, or ``None`` when the dialogue is over."""
        user, static_next_turn = self._pending(), self.static_next_turn
        request = TutorRequest(
            seed=self.seed,
            turns=tuple(self.turns),
            user=user,
            answer=answer,
            static_next_turn=static_next_turn if self.adaptive else None,
            turn_key=self.turn_key,
        )
        response = await self.tutor.respond(request)
        self._open = None
        self.turns.append(
            Turn(
                user=user,
                **self.asked,
                answer=answer,
                answer_tokens=answer_tokens,
                truncated=truncated,
                verdict=response.verdict,
                tutor_seconds=response.seconds,
                **dict(spent),
                usage=response.usage,
            )
        )
        if self.unscored_ends and isinstance(response.verdict, Unscored):
            self.end(StopReason.UNSCORED)
            return None
        if static_next_turn is None:
            whole = self.limit == len(self.seed.turns)
            self.end(StopReason.COMPLETED if whole else StopReason.TURN_LIMIT)
            return None
        return self._next(response, static_next_turn)

    def end(self, reason: StopReason) -> None:
        """End the dialogue here; a question that is still open was never asked."""
        self.stop, self._open = reason, None

    @property
    def static_next_turn(self) -> UserTurn | None:
        """The seed's next turn: what the tutor may build on, and whose images come next; ``None`` in the last."""
        following = len(self.turns) + 1
        return self.seed.turns[following] if following < self.limit else None

    @property
    def turn_key(self) -> str:
        """Which turn is open: the dialogue's place and the turn's number, from 1."""
        return f"{self.key}/{len(self.turns) + 1}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Chat messages so far, the open question last; contents are strings or lists of image and text blocks."""
        history: list[dict[str, Any]] = []
        for turn in self.turns:
            history += [user_message(turn.user), {"role": "assistant", "content": turn.answer}]
        return history + ([user_message(self._open)] if self._open else [])

    def trajectory(self, **meta: Any) -> Trajectory:
        """The record of what was played. ``meta`` fills ``step``, ``uid``, ``rollout`` and ``validate_run``.

        Raises:
            RuntimeError: the dialogue is not over.
        """
        if self.stop is None:
            raise RuntimeError(f"dialogue {self.seed.id} is not over: {len(self.turns)} of {self.limit} turns played")
        seed = self.seed
        return Trajectory(
            seed_id=seed.id,
            kind=seed.kind,
            source=seed.source,
            facts=seed.facts,
            turns=tuple(self.turns),
            stop=self.stop,
            min_scored_turns=self.min_scored_turns,
            **meta,
        )

    def _pending(self) -> UserTurn:
        if self._open is None:
            raise RuntimeError(f"dialogue {self.seed.id} has no open question")
        return self._open

    def _next(self, response: TutorResponse, static_next_turn: UserTurn) -> UserTurn:
        if not self.adaptive:
            return self._ask(static_next_turn, QuestionOrigin.STATIC)
        attack = response.attack
        if not isinstance(attack, Attack):
            return self._ask(static_next_turn, QuestionOrigin.FALLBACK, fallback=attack.reason)
        question = neutralize_turn(
            static_next_turn.with_text(attack.question), self.special_tokens
        )  # the static turn's images stay with the turn
        if not self._usable(question):
            return self._ask(static_next_turn, QuestionOrigin.FALLBACK, fallback=NoAttackReason.ATTACK_MISSING)
        return self._ask(question, QuestionOrigin.TUTOR, strategy=attack.strategy)

    def _usable(self, question: UserTurn) -> bool:
        words = _words(question)
        repeated = any(words == _words(turn.user) for turn in self.turns)
        return bool(words) and len(question.text) <= self.max_question_chars and not repeated

    def _ask(
        self,
        user: UserTurn,
        origin: QuestionOrigin,
        *,
        strategy: AttackStrategy | None = None,
        fallback: NoAttackReason | None = None,
    ) -> UserTurn:
        self.asked = {"origin": origin, "strategy": strategy, "fallback": fallback}
        self._open = neutralize_turn(user, self.special_tokens)
        return self._open


def _words(user: UserTurn) -> str:
    """What is compared for repetition."""
    return folded(user.text.replace(IMAGE_MARK, " "))


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
