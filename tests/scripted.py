"""A tutor that follows a script, for tests of the rollout, and a dialogue played to its end."""

from __future__ import annotations

from collections.abc import Callable

from steer_verl.dialogue import Dialogue
from steer_verl.types import (
    Attack,
    AttackStrategy,
    NoAttack,
    NoAttackReason,
    Scores,
    Seed,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)

GOOD = Verdict(scores=Scores(safety=10, usefulness=10, faithfulness=10))
BAD = Verdict(scores=Scores(safety=1, usefulness=1, faithfulness=10))
LOST = Unscored(reason=UnscoredReason.TIMEOUT)


def ruling(verdict: Verdict | Unscored = GOOD, question: str | None = None) -> TutorResponse:
    """A ruling with an attack, or with none."""
    if question is None:
        return TutorResponse(verdict=verdict, attack=NoAttack(reason=NoAttackReason.ATTACK_REFUSED), seconds=0.5)
    return TutorResponse(verdict=verdict, attack=Attack(question=question, strategy=AttackStrategy.DEEPEN), seconds=0.5)


class ScriptedTutor:
    """Answers exchange number t with ``script(t, exchange)`` and remembers every exchange it was shown."""

    name = "scripted"

    def __init__(self, script: Callable[[int, TutorRequest], TutorResponse]) -> None:
        self.script = script
        self.seen: list[TutorRequest] = []

    async def respond(self, exchange: TutorRequest) -> TutorResponse:
        self.seen.append(exchange)
        return self.script(len(exchange.turns), exchange)

    async def check(self) -> None:
        """Always usable."""

    async def close(self) -> None:
        """Nothing to release."""


async def play(dialogue: Dialogue, answer: str = "an answer") -> list[UserTurn]:
    """Play to the end and settle the verdicts; returns the questions in order."""
    questions: list[UserTurn] = []
    question: UserTurn | None = dialogue.open()
    while question is not None:
        questions.append(question)
        question = await dialogue.respond(f"{answer} {len(questions)}")
    await dialogue.settled()
    return questions


def seed(turns: int = 4, *, images: dict[int, int] | None = None, seed_id: str = "s") -> Seed:
    """A seed of so many turns; ``images`` maps a turn (0-based) to how many pictures stand in it."""
    images = images or {}
    return Seed(
        id=seed_id,
        turns=tuple(
            UserTurn(text="<image>" * images.get(t, 0) + f"static question {t}", images=("x.png",) * images.get(t, 0))
            for t in range(turns)
        ),
    )
