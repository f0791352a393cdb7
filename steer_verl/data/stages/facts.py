"""What the build itself writes into a dialogue's ``facts``, beside the facts of its source."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from steer_verl.data.seed import Made
from steer_verl.data.stages.agents import Level, Probe, Quality
from steer_verl.types import Record


class Perturbed(Record):
    """How an image was changed."""

    kind: Literal["noise", "typography"]
    original: str = ""
    """The image that it was made of."""
    sigma: float | None = None
    phrase: str = ""
    box: tuple[int, ...] = ()
    """Left, top, right and bottom of the phrase, in pixels."""
    colour: str = ""


class HistoryRisk(Record):
    """Levels of harm, as the risk judge gave them."""

    alone: tuple[Level, ...]
    """Of the turns that the rule looks at, in order."""
    whole: Level


class Facts(Record):
    """Each is left out where the stage that writes it did not take part."""

    question: str = ""
    category: str = ""
    answer: str = ""
    choice: str = ""
    """The four as the source has them."""
    perturbation: Perturbed | None = None
    rewrites: Probe | None = None
    pairs: bool = False
    """The generator wrote the answers along with the questions."""
    strategy: str = ""
    attack_vector: str = ""
    complex_prompt: str = ""
    risk_curve: tuple[Level, ...] = ()
    """Of each turn, as the red team planned it."""
    breach: Level | None = None
    strategies_tried: int = Field(default=0, ge=0)
    quality: Quality | None = None
    history_risk: HistoryRisk | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Facts:
        """Ours among a dialogue's facts. A value of another form is the source's own, whatever its name: left out."""
        ours: dict[str, Any] = {}
        for name in cls.model_fields.keys() & facts.keys():
            with contextlib.suppress(ValidationError):
                one = cls.model_validate_json(json.dumps({name: facts[name]}, default=str))
                ours[name] = getattr(one, name)
        return cls(**ours)

    def beside(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """These and those of the source, as JSON."""
        return {**facts, **self.model_dump(mode="json", exclude_defaults=True)}


def with_facts(made: Made, facts: Facts) -> Made:
    """The same with these facts beside those that its dialogue has."""
    seed = made.seed.model_copy(update={"facts": facts.beside(made.seed.facts)})
    return made.model_copy(update={"seed": seed})
