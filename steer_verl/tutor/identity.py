"""Which tutor gave a score: everything that a score depends on and that a user can change, under one short key.

Two runs with the same key ask the same question of the same model, so a stored verdict may stand for a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache

from steer_verl.config import EndpointConfig, JudgeConfig, TutorConfig
from steer_verl.tutor.prompt import PromptBuilder, Rubric, Task
from steer_verl.types import QuestionOrigin, Record, Scores, Seed, Turn, TutorRequest, UserTurn, Verdict


class ModelIdentity(Record):
    """One model that has a say in a score."""

    model: str
    base_url: str
    temperature: float
    images: bool
    json_schema: str
    format: str = "verdict"
    rubric: str = ""
    """Hash of its rubric; empty for a guard model, which has its own."""


class Identity(Record):
    """A tutor as a measuring instrument."""

    tutor: str
    """``Tutor.name``."""
    models: tuple[ModelIdentity, ...]
    combine: str = ""
    """How a panel's scores become one; empty without a panel."""
    prompt: str
    """Hash of the words around the rubric (:func:`prompt_version`)."""

    @property
    def key(self) -> str:
        """12 hex digits. Where a model is served does not count, only which model it is."""
        values = self.model_dump()
        for model in values["models"]:
            del model["base_url"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def identity_of(config: TutorConfig, name: str) -> Identity:
    """The identity of ``config``'s tutor, whose ``Tutor.name`` is ``name``.

    Raises:
        ConfigError: a rubric cannot be read.
    """
    panel = config.panel
    combine = f"{panel.combine} of {panel.quorum or 'all'}" if panel else ""
    return Identity(tutor=name, models=tuple(_models(config)), combine=combine, prompt=prompt_version())


@lru_cache(maxsize=1)
def prompt_version() -> str:
    """8 hex digits over a request of two turns with an empty rubric: it changes with any word of the prompt."""
    user = UserTurn(text="question")
    verdict = Verdict(scores=Scores(safety=10, usefulness=10, faithfulness=10))
    closed = Turn(user=user, origin=QuestionOrigin.SEED, answer="answer", verdict=verdict)
    seed = Seed(id="seed", turns=(user, user))
    request = TutorRequest(seed=seed, turns=(closed,), user=user, answer="answer", static_next_turn=None)
    prompt = PromptBuilder(Rubric(""), None, secret=b"version").build(request, Task.SCORE)
    return hashlib.sha256(json.dumps(prompt.messages()).encode()).hexdigest()[:8]


def _models(config: TutorConfig) -> Iterator[ModelIdentity]:
    if config.endpoint is not None:
        yield _model(config.endpoint, "verdict", config.rubric)
    judges: tuple[JudgeConfig, ...] = config.panel.judges if config.panel else ()
    for judge in judges:
        yield _model(judge.endpoint, judge.format, judge.rubric)


def _model(endpoint: EndpointConfig, form: str, rubric: str | None) -> ModelIdentity:
    return ModelIdentity(
        **{name: getattr(endpoint, name) for name in ModelIdentity.model_fields if name in EndpointConfig.model_fields},
        format=form,
        rubric=Rubric.load(rubric).version if form == "verdict" else "",
    )
