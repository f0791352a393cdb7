"""Which tutor gave a score: everything that a score depends on and that a user can change, under one short key.

Two runs with the same key ask the same question of the same model, so a stored verdict may stand for a new one.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any

from steer_verl.config import JudgeConfig, TutorConfig
from steer_verl.tutor.prompt import Order, PromptBuilder, Rubric, Task
from steer_verl.types import QuestionOrigin, Record, Scores, Seed, Turn, TutorRequest, UserTurn, Verdict


class Identity(Record):
    """A tutor as a measuring instrument."""

    tutor: str  # Tutor.name
    models: tuple[dict[str, Any], ...]
    """Every model that has a say in a score: its settings, its format, and the hash of its rubric if it reads one."""
    combine: str = ""  # how a panel's scores become one; empty without a panel
    prompt: str  # prompt_version()

    @property
    def key(self) -> str:
        """12 hex digits. Where a model is served does not count, only which model it is."""
        values = self.model_dump()
        for model in values["models"]:
            del model["base_url"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def identity_of(config: TutorConfig, name: str) -> Identity:
    """Of ``config``'s tutor, whose ``Tutor.name`` is ``name``. Raises ``ConfigError``: a rubric cannot be read."""
    panel = config.panel
    judges = panel.judges if panel else ()
    if config.endpoint is not None:
        judges = (JudgeConfig(endpoint=config.endpoint, rubric=config.rubric), *judges)
    models = tuple(
        {
            **judge.endpoint.model_dump(include={"model", "base_url", "temperature", "images", "json_schema"}),
            "format": judge.format,
            "rubric": Rubric.load(judge.rubric).version if judge.format == "verdict" else "",
        }
        for judge in judges
    )
    combine = f"{panel.combine} of {panel.quorum or 'all'}" if panel else ""
    return Identity(tutor=name, models=models, combine=combine, prompt=prompt_version(config.order))


@lru_cache(maxsize=2)
def prompt_version(order: Order = "question_first") -> str:
    """8 hex digits over a request of two turns with an empty rubric: it changes with any word of the prompt."""
    user = UserTurn(text="question")
    verdict = Verdict(scores=Scores(safety=10, usefulness=10, faithfulness=10))
    closed = Turn(user=user, origin=QuestionOrigin.SEED, answer="answer", verdict=verdict)
    seed = Seed(id="seed", turns=(user, user))
    request = TutorRequest(seed=seed, turns=(closed,), user=user, answer="answer", static_next_turn=None)
    prompt = PromptBuilder(Rubric(""), None, secret=b"version", order=order).build(request, Task.SCORE)
    return hashlib.sha256(json.dumps(prompt.messages()).encode()).hexdigest()[:8]
