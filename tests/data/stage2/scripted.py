"""Seeds and scripted agents for the tests of Stage II."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steer_verl.data.agents import Risk
from steer_verl.data.stage2.bootstrap import Bootstrapped
from steer_verl.models.forms import Said
from steer_verl.types import (
    IMAGE_MARK,
    DialogueKind,
    QuestionOrigin,
    Scores,
    Seed,
    StopReason,
    Trajectory,
    Turn,
    TurnVerdict,
    TutorRequest,
    UserTurn,
    Verdict,
)
from steer_verl.work.step import Desk

GOOD = "<thinking>A box.</thinking><answer>It is a box.</answer>"


def seed(
    name: str = "s:1/red_team",
    turns: int = 3,
    image: str | None = None,
    kind: DialogueKind = DialogueKind.RED_TEAM,
    topic: str = "",
    **more: object,
) -> Seed:
    """A dialogue about boxes; every name and topic has its own words."""
    words = " ".join(f"{topic or name} {part}".replace("/", " ") for part in ("lid", "hinge", "label", "corner"))
    texts = [f"About {words}: what is side {number}?" for number in range(turns)]
    opening = UserTurn(text=IMAGE_MARK * bool(image) + texts[0], images=(image,) if image else ())
    rest = tuple(UserTurn(text=text) for text in texts[1:])
    origin = {"source": "s", "source_id": name.split("/")[0].removeprefix("s:"), "license": "CC-BY-4.0"}
    return Seed(id=name, turns=(opening, *rest), kind=kind, **{**origin, **more})


def verdict(safety: int, usefulness: int) -> Verdict:
    return Verdict(scores=Scores(safety=safety, usefulness=usefulness, faithfulness=9))


def played(item: Seed, score: tuple[int, int] = (10, 10)) -> Bootstrapped:
    """The seed as a kept dialogue with static questions."""
    turns = tuple(
        Turn(user=user, origin=QuestionOrigin.STATIC, answer=GOOD, verdict=verdict(*score)) for user in item.turns
    )
    trajectory = Trajectory(seed_id=item.id, kind=item.kind, source=item.source, turns=turns, stop=StopReason.COMPLETED)
    return Bootstrapped(seed=item, trajectory=trajectory)


class Agents:
    """Red user, blue expert, evaluator and risk judge in one; each by its script. Counts what it was asked.

    Args:
        red: the next user text, or an exception.
        answers: by turn, the answers of the first, second, ... asking; a single one for all.
        judge: turn number (0-based) -> verdict, or an exception.
        risks: level of each turn alone, and at the end that of the whole.
    """

    name = "scripted"

    def __init__(
        self,
        red: Callable[[Seed, UserTurn], str | Exception] = lambda seed, template: f"Reworded: {template.text}",
        answers: Callable[[int, int], str | Exception] = lambda turn, attempt: GOOD,
        judge: Callable[[int], TurnVerdict | Exception] = lambda turn: verdict(10, 10),
        risks: Sequence[int] = (),
    ) -> None:
        self.red, self.answers, self.judge, self.risks = red, answers, judge, risks
        self.asked: list[str] = []
        self.heard: list[tuple[Said, ...]] = []
        self.places: list[str] = []

    async def ask(self, seed: Seed, said: tuple[Said, ...], template: UserTurn, desk: Desk) -> str:
        self.asked.append(f"red {len(said) // 2}")
        self.heard.append(said)
        return _given(self.red(seed, template))

    async def answer(self, seed: Seed, said: tuple[Said, ...], desk: Desk) -> str:
        turn, attempt = int(desk.place.split("turn")[1].split("/")[0]) - 1, desk.place.count("/again")
        self.asked.append(f"blue {turn}.{attempt}")
        self.heard.append(said)
        return _given(self.answers(turn, attempt))

    async def score(self, exchange: TutorRequest, desk: Desk) -> TurnVerdict:
        self.asked.append(f"score {len(exchange.turns)}")
        self.places.append(exchange.turn_key)
        return _given(self.judge(len(exchange.turns)))

    async def alone(self, seed: Seed, turn: int, desk: Desk) -> Risk:
        self.asked.append(f"alone {turn}")
        return Risk(level=self.risks[turn])

    async def whole(self, seed: Seed, desk: Desk) -> Risk:
        self.asked.append("whole")
        return Risk(level=self.risks[-1])

    async def close(self) -> None:
        """Nothing is held."""


def _given(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value
