"""The servers that a tutor's configuration names, and one way to ask any of them, whatever its part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from steer_verl.config import EndpointConfig, JudgeConfig, TutorConfig
from steer_verl.names import REWARD_MODEL_URL
from steer_verl.types import (
    Attack,
    JudgeScores,
    NoAttackReason,
    Scores,
    TutorRequest,
    Unscored,
    UnscoredReason,
    Usage,
    Verdict,
)


class Part(str, Enum):
    """What a server does for the training."""

    TUTOR = "tutor"  # judges and attacks in one reply
    JUDGE = "judge"  # judges by our rubric
    ATTACKER = "attacker"
    GUARD = "guard"  # judges in a guard model's own words, on safety alone


@dataclass(frozen=True)
class Target:
    """One server of a configuration."""

    where: str
    """Its place in the configuration."""
    config: EndpointConfig
    part: Part
    rubric: str | None = None
    format: str = "verdict"

    @property
    def local(self) -> bool:
        """Whether it only exists while a training runs: verl's own reward model."""
        return self.config.base_url == REWARD_MODEL_URL


@dataclass(frozen=True)
class Answer:
    """What came back. ``fault`` is empty when the answer can be used."""

    seconds: float
    scores: tuple[int, ...] = ()
    """Safety, usefulness, faithfulness; safety alone from a guard, nothing from an attacker."""
    fault: str = ""
    reason: UnscoredReason | NoAttackReason | None = None
    usage: Usage = field(default_factory=Usage)


def targets(config: TutorConfig, *, images: bool = True) -> list[Target]:
    """Every server of ``config``, mirrors, panel and held-out judge included; ``images=False`` sends no pictures."""
    return [
        Target(
            target.where,
            target.config if images else target.config.model_copy(update={"images": False}),
            target.part,
            target.rubric,
            target.format,
        )
        for target in _targets(config)
    ]


def _targets(config: TutorConfig) -> Iterator[Target]:
    if config.endpoint is not None:
        part = Part.JUDGE if config.attacker else Part.TUTOR
        yield from _servers("tutor.endpoint", config.endpoint, part, config.rubric)
    if config.attacker is not None:
        yield from _servers("tutor.attacker", config.attacker, Part.ATTACKER, config.rubric)
    judges: list[tuple[str, JudgeConfig]] = []
    if config.panel is not None:
        judges += [(f"tutor.panel.judges[{n}]", judge) for n, judge in enumerate(config.panel.judges)]
    if config.holdout is not None and isinstance(config.holdout.judge, JudgeConfig):
        judges.append(("tutor.holdout.judge", config.holdout.judge))
    for where, judge in judges:
        part = Part.JUDGE if judge.format == "verdict" else Part.GUARD
        yield from _servers(f"{where}.endpoint", judge.endpoint, part, judge.rubric, judge.format)


def _servers(
    where: str, config: EndpointConfig, part: Part, rubric: str | None, form: str = "verdict"
) -> Iterator[Target]:
    from steer_verl.transport.servers import servers_of

    for number, server in enumerate(servers_of(config)):
        yield Target(f"{where}.mirrors[{number - 1}]" if number else where, server, part, rubric, form)


class Asker:
    """Asks one target; the settings of its endpoint may be changed for the purpose.

    Use it as an asynchronous context manager: leaving it gives the connections back.

    Raises:
        ConfigError: the rubric cannot be read, or the client library is missing.
    """

    def __init__(self, target: Target, **settings: Any) -> None:
        from steer_verl.tutor import build_judge, build_tutor

        self.target = target
        self.config = target.config.model_copy(update=settings)
        if target.part is Part.GUARD:
            judge = JudgeConfig.model_validate({"endpoint": self.config, "format": target.format})
            self._asked: Any = build_judge(judge)
            return
        both = target.part is Part.TUTOR  # with an attacker beside it, a tutor is asked for one thing at a time
        attacker = None if both else self.config.model_copy()
        self._asked = build_tutor(TutorConfig(endpoint=self.config, attacker=attacker, rubric=target.rubric))

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._asked.close()

    async def check(self) -> None:
        """The short check of the training's preflight.

        Raises:
            TutorError: one line, with the cure.
        """
        if self.target.part is Part.GUARD:
            await self._asked.check()
            return
        from steer_verl.tutor.check import check_endpoint

        attacks = self.target.part is Part.ATTACKER
        own = self._asked.attacker_config if attacks else self._asked.judge_config
        await check_endpoint(self._asked, own, self.target.where)

    async def ask(self, exchange: TutorRequest) -> Answer:
        """The target's part on one exchange. Never raises for a failed request."""
        start = time.monotonic()
        if self.target.part is Part.GUARD:
            judge_result = await self._asked.judge(exchange)
            return _judged(judge_result.scores, time.monotonic() - start, judge_result.usage)
        if self.target.part is Part.ATTACKER:
            attack = await self._asked.attack(exchange)
            return _attacked(attack, time.monotonic() - start, Usage())
        if self.target.part is Part.JUDGE:
            exchange = exchange.model_copy(update={"static_next_turn": None})
        ruling = await self._asked.respond(exchange)
        return _judged(ruling.verdict, time.monotonic() - start, ruling.usage)


def _judged(verdict: Verdict | JudgeScores | Unscored, seconds: float, usage: Usage) -> Answer:
    if isinstance(verdict, Unscored):
        return Answer(seconds, fault=verdict.detail or verdict.reason.value, reason=verdict.reason, usage=usage)
    if isinstance(verdict, JudgeScores):
        return Answer(seconds, (verdict.safety,), usage=usage)
    return Answer(seconds, tuple(getattr(verdict.scores, name) for name in Scores.model_fields), usage=usage)


def _attacked(attack: Any, seconds: float, usage: Usage) -> Answer:
    if isinstance(attack, Attack):
        return Answer(seconds, usage=usage)
    return Answer(seconds, fault=attack.detail or attack.reason.value, reason=attack.reason, usage=usage)
