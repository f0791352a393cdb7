"""Who judges every answer and writes the next question.

A tutor is anything with the three methods of :class:`~steer_verl.types.Tutor`. Two are built in: a model at an
OpenAI-compatible endpoint (``kind: openai``) and the rule tutor of the miniature laboratory (``kind: mini``). Judges
beside it make a panel; one apart from it is the held-out judge.
"""

from __future__ import annotations

from steer_verl.config import JudgeConfig, TutorConfig
from steer_verl.errors import ConfigError
from steer_verl.types import Judge, Tutor

__all__ = ["Judge", "Tutor", "build_holdout", "build_judge", "build_tutor"]


def build_tutor(config: TutorConfig, *, max_question_chars: int = 4000, secret: bytes | None = None) -> Tutor:
    """The tutor that ``config`` names, with its panel if it has one. Its client library is imported only now.

    Args:
        config: the parsed ``tutor`` section.
        max_question_chars: a longer question of the attacker is no usable attack.
        secret: key of the ids in the prompts; one per process unless given.

    Raises:
        ConfigError: a rubric cannot be read, or the client library is missing.
    """
    tutor = _single(config, max_question_chars, secret)
    if config.panel is None:
        return tutor
    from steer_verl.tutor.panel import PanelTutor

    judges = [build_judge(judge, log=config.log, secret=secret) for judge in config.panel.judges]
    return PanelTutor(tutor, judges, combine=config.panel.combine, quorum=config.panel.quorum)


def build_judge(config: JudgeConfig, *, log: str | None = None, secret: bytes | None = None) -> Judge:
    """One judge beside the tutor.

    Args:
        config: its endpoint and how it replies.
        log: folder for the log of every attempt.
        secret: as of :func:`build_tutor`.

    Raises:
        ConfigError: its rubric cannot be read, or the client library is missing.
    """
    require_client()
    if config.format != "verdict":
        from steer_verl.tutor.guard import GuardJudge

        return GuardJudge(config, log=log)
    from steer_verl.tutor.panel import TutorJudge

    alone = TutorConfig(endpoint=config.endpoint, rubric=config.rubric, log=log)
    return TutorJudge(_single(alone, secret=secret))


def build_holdout(config: TutorConfig, *, secret: bytes | None = None) -> Judge | None:
    """The held-out judge, if ``config`` asks for one.

    Raises:
        ConfigError: as of :func:`build_judge`.
    """
    if config.holdout is None:
        return None
    if isinstance(config.holdout.judge, JudgeConfig):
        return build_judge(config.holdout.judge, log=config.log, secret=secret)
    from steer_verl.mini.judge import MiniJudge

    return MiniJudge()


def _single(config: TutorConfig, max_question_chars: int = 4000, secret: bytes | None = None) -> Tutor:
    if config.kind == "mini":
        from steer_verl.mini.tutor import MiniTutor

        return MiniTutor()
    require_client()
    from steer_verl.tutor.client import OpenAITutor
    from steer_verl.tutor.prompt import PROCESS_SECRET

    return OpenAITutor(config, max_question_chars=max_question_chars, secret=secret or PROCESS_SECRET)


def require_client(what: str = "tutor.kind openai") -> None:
    """Raise a ConfigError with the cure unless the client library is there; ``what`` needs it."""
    try:
        import openai  # noqa: F401 - asked for by name, so that its absence has a cure
    except ImportError:
        raise ConfigError(f"{what} needs the openai package; pip install 'steer-verl[openai]'") from None
