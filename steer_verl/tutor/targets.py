"""The servers that a tutor's configuration names, and one way to ask any of them for its part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from steer_verl.config import EndpointConfig, JudgeConfig, TutorConfig
from steer_verl.models.endpoint import servers_of
from steer_verl.names import REWARD_MODEL_URL
from steer_verl.rubric import AXES
from steer_verl.tutor.check import check_endpoint
from steer_verl.tutor.client import OpenAITutor
from steer_verl.tutor.guard import GuardJudge
from steer_verl.tutor.prompt import Order, Task
from steer_verl.types import JudgeScores, NoAttack, Record, TutorRequest, Unscored, Usage, Verdict


class Part(StrEnum):
    """What a server does for the training."""

    TUTOR = "tutor"  # judges and attacks in one reply
    JUDGE = "judge"  # judges by our rubric
    ATTACKER = "attacker"
    GUARD = "guard"  # judges in a guard model's own words, on safety alone


_TASKS = {Part.TUTOR: Task.BOTH, Part.JUDGE: Task.SCORE, Part.ATTACKER: Task.ATTACK}


@dataclass(frozen=True)
class Target:
    """One server of a configuration."""

    where: str  # its place in the configuration
    config: EndpointConfig
    part: Part
    rubric: str | None = None
    format: str = "verdict"
    order: Order = "question_first"

    @property
    def local(self) -> bool:
        """Whether it only exists while a training runs: verl's own reward model."""
        return self.config.base_url == REWARD_MODEL_URL

    def blind(self) -> Target:
        """The same server, sent no images."""
        return replace(self, config=self.config.model_copy(update={"images": False}))


def targets(config: TutorConfig) -> Iterator[Target]:
    """Every server of ``config``, mirrors, panel and held-out judge included."""
    found: list[Target] = []
    if config.endpoint is not None:
        part = Part.JUDGE if config.attacker else Part.TUTOR
        found.append(Target("tutor.endpoint", config.endpoint, part, config.rubric, order=config.order))
    if config.attacker is not None:
        found.append(Target("tutor.attacker", config.attacker, Part.ATTACKER, config.rubric, order=config.order))
    panel = config.panel.judges if config.panel else ()
    judges = {f"tutor.panel.judges[{n}]": judge for n, judge in enumerate(panel)}
    if config.holdout is not None and isinstance(config.holdout.judge, JudgeConfig):
        judges["tutor.holdout.judge"] = config.holdout.judge
    for where, judge in judges.items():
        part = Part.JUDGE if judge.format == "verdict" else Part.GUARD
        found.append(Target(f"{where}.endpoint", judge.endpoint, part, judge.rubric, judge.format))
    for target in found:
        for number, server in enumerate(servers_of(target.config)):
            where = f"{target.where}.mirrors[{number - 1}]" if number else target.where
            yield replace(target, where=where, config=server)


@dataclass(frozen=True)
class Answer:
    """What came back. ``fault`` is empty when the answer can be used."""

    seconds: float
    scores: tuple[int, ...] = ()  # all three axes; safety alone from a guard, nothing from an attacker
    fault: str = ""
    reason: str = ""  # of Unscored or NoAttack
    usage: Usage = field(default_factory=Usage)


class Subject:
    """Asks one target; leaving it gives the connections back. ``settings`` are set on its endpoint.

    Raises ``ConfigError``: the rubric cannot be read, or the address cannot be used.
    """

    def __init__(self, target: Target, **settings: Any) -> None:
        self.part = target.part
        config = target.config.model_copy(update=settings)
        self.judge: GuardJudge | OpenAITutor
        if target.part is Part.GUARD:
            self.judge = GuardJudge(
                JudgeConfig.model_validate({"endpoint": config, "format": target.format}), where=target.where
            )
            self.endpoint = self.judge.endpoint
            return
        attacker = None if target.part is Part.TUTOR else config  # beside one, each is asked for its part alone
        own = TutorConfig(endpoint=config, attacker=attacker, rubric=target.rubric, order=target.order)
        self.judge = OpenAITutor(own)
        self.endpoint = self.judge.attacker if target.part is Part.ATTACKER else self.judge.adjudicator
        self.endpoint.where = target.where

    async def __aenter__(self) -> Subject:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.judge.close()

    async def check(self) -> None:
        """The short check of the training's preflight. Raises ``TutorError``: one line, with a hint."""
        if isinstance(self.judge, GuardJudge):
            await self.judge.check()
        else:
            await check_endpoint(self.endpoint, _TASKS[self.part], self.judge.ask_as_played)

    async def ask(self, request: TutorRequest) -> Answer:
        """The target's part on one request. Never raises for a failed request."""
        start = time.monotonic()
        said: Record
        if isinstance(self.judge, GuardJudge):
            result = await self.judge.judge(request)
            said, usage = result.scores, result.usage
        else:
            outcome = await self.judge.ask(self.endpoint, request, _TASKS[self.part])
            said, usage = outcome.attack if self.part is Part.ATTACKER else outcome.verdict, outcome.usage
        seconds = time.monotonic() - start
        if isinstance(said, (Unscored, NoAttack)):
            return Answer(seconds, (), said.detail or said.reason.value, said.reason.value, usage)
        if isinstance(said, Verdict):
            return Answer(seconds, tuple(getattr(said.scores, axis) for axis in AXES), usage=usage)
        return Answer(seconds, (said.safety,) if isinstance(said, JudgeScores) else (), usage=usage)
