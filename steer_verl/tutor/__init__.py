"""Who judges every answer and writes the next question.

A tutor is anything with the three methods of :class:`~steer_verl.tutor.protocol.Tutor`. Two are built in: a model at an
OpenAI-compatible endpoint (``kind: openai``) and the rule tutor of the miniature laboratory (``kind: mini``).
"""

from __future__ import annotations

from steer_verl.config import TutorConfig
from steer_verl.tutor.protocol import Tutor

__all__ = ["Tutor", "build_tutor"]


def build_tutor(config: TutorConfig, *, max_question_chars: int = 4000) -> Tutor:
    """The tutor that ``config`` names. Its client library is imported only now.

    Args:
        config: the parsed ``tutor`` section.
        max_question_chars: a longer question of the attacker is no usable attack.

    Raises:
        ConfigError: the rubric cannot be read, or the client library is missing.
    """
    if config.kind == "mini":
        from steer_verl.mini.tutor import MiniTutor

        return MiniTutor()
    try:
        import openai  # noqa: F401 - asked for by name, so that its absence has a cure
    except ImportError:
        from steer_verl.errors import ConfigError

        raise ConfigError("tutor.kind openai needs the openai package; pip install 'steer-verl[openai]'") from None
    from steer_verl.tutor.client import OpenAITutor

    return OpenAITutor(config, max_question_chars=max_question_chars)
