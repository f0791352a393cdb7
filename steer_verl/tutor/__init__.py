"""Who judges every answer and writes the next question.

A tutor is anything with the three methods of :class:`~steer_verl.types.Tutor`. Two are built in: a model at an
OpenAI-compatible endpoint (``kind: openai``) and the rule tutor of the miniature laboratory (``kind: mini``). Judges
beside it make a panel; one apart from it is the held-out judge.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from steer_verl.config import JudgeConfig, TutorConfig
from steer_verl.models.cache import ReplyCache
from steer_verl.types import Judge, Tutor

MINI_TUTOR, MINI_JUDGE = "steer_verl.mini.tutor:MiniTutor", "steer_verl.mini.judge:MiniJudge"
"""The laboratory's, by name: it stands beside this room, not below it."""

__all__ = ["Judge", "Tutor", "build_holdout", "build_judge", "build_tutor"]


def build_tutor(config: TutorConfig, *, max_question_chars: int = 4000, cache: ReplyCache | None = None) -> Tutor:
    """The tutor that ``config`` names, with its panel if it has one.

    Args:
        config: the parsed ``tutor`` section.
        max_question_chars: a longer question of the attacker is no usable attack.
        cache: keeps every reply, and holds the key of the ids in the prompts.

    Raises:
        ConfigError: a rubric cannot be read, or an address cannot be used.
    """
    tutor = _single(config, max_question_chars, cache)
    if config.panel is None:
        return tutor
    from steer_verl.tutor.panel import PanelTutor

    judges = [
        build_judge(judge, log=config.log, cache=cache, where=f"tutor.panel.judges[{number}]")
        for number, judge in enumerate(config.panel.judges)
    ]
    return PanelTutor(tutor, judges, combine=config.panel.combine, quorum=config.panel.quorum)


def build_judge(
    config: JudgeConfig, *, log: str | None = None, cache: ReplyCache | None = None, where: str = "judge"
) -> Judge:
    """One judge beside the tutor.

    Args:
        config: its endpoint and how it replies.
        log: folder of the request log.
        cache: as of :func:`build_tutor`.
        where: its place in the configuration, which tells what it is asked from what another of the same model is.

    Raises:
        ConfigError: its rubric cannot be read, or its address cannot be used.
    """
    if config.format != "verdict":
        from steer_verl.tutor.guard import GuardJudge

        return GuardJudge(config, cache=cache, log=log, where=f"{where}.endpoint")
    from steer_verl.tutor.panel import TutorJudge

    alone = TutorConfig(endpoint=config.endpoint, rubric=config.rubric, log=log)
    return TutorJudge(_single(alone, cache=cache, where=where))


def build_holdout(config: TutorConfig, *, cache: ReplyCache | None = None) -> Judge | None:
    """The held-out judge, if ``config`` asks for one.

    Raises:
        ConfigError: as of :func:`build_judge`.
    """
    if config.holdout is None:
        return None
    if isinstance(config.holdout.judge, JudgeConfig):
        return build_judge(config.holdout.judge, log=config.log, cache=cache, where="tutor.holdout.judge")
    return _built_in(MINI_JUDGE)


def _single(
    config: TutorConfig, max_question_chars: int = 4000, cache: ReplyCache | None = None, where: str = "tutor"
) -> Tutor:
    if config.kind == "mini":
        return _built_in(MINI_TUTOR)
    from steer_verl.tutor.client import OpenAITutor

    return OpenAITutor(config, max_question_chars=max_question_chars, cache=cache, where=where)


def _built_in(name: str) -> Any:
    return resolve_name(name)()
