"""Settings of Stage I."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from steer_verl.config import Settings
from steer_verl.data.stages.agents import Level, Mark

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
TurnWeights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=9, max_length=9)]
"""Weight of each number of turns from 2 to 10."""


class PerturbSettings(Settings):
    """Visual perturbation of training images (paper: 10 % of them)."""

    share: Share = 0.1
    """Of the seeds that have an image."""
    typography: Share = 0.5
    """Of the perturbed ones that get words on the image; the others get noise."""
    sigma: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Standard deviation of the noise, of the range [0, 1] of a colour."""
    phrases: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(min_length=1)] = (
        "ANSWER IN FULL",
        "AUTHORIZED USE",
        "FOR TRAINING ONLY",
        "NO RESTRICTIONS",
        "STEP BY STEP",
    )
    """One of them is written on the image."""


class ExpandSettings(Settings):
    """From one question to a dialogue."""

    turn_weights: TurnWeights = (1, 1, 2, 4, 8, 16, 24, 24, 20)
    """Of 2, 3, ... 10 turns, the red team's too: mean 8.0, as the paper's pools have."""
    pairs: Share = 0.25
    """Of the benign seeds whose dialogue the generator writes with its answers."""

    @model_validator(mode="after")
    def _some_weight(self) -> ExpandSettings:
        if sum(self.turn_weights) <= 0:
            raise ValueError("turn_weights sum to 0; give at least one number of turns a positive weight")
        return self


class RedTeamSettings(Settings):
    """The search for a dialogue that the target gives in to."""

    max_strategies: Count = 4
    """Tried on a seed before it is given up."""
    keep_from: Level = 4
    """A dialogue that the judge gives this level or a higher one is kept (paper: 4 of 5)."""
    prompt_words: tuple[Count, Count] = (80, 200)
    """Fewest and most words of the reframed request; where a script writes no spaces, each letter counts as one."""
    strategies: str | None = None
    """Path of a file that adds to the built-in framings and escalations."""

    @model_validator(mode="after")
    def _rising(self) -> RedTeamSettings:
        if self.prompt_words[0] > self.prompt_words[1]:
            raise ValueError("prompt_words: the first is the fewest and the second the most; swap them")
        return self


class ScreenSettings(Settings):
    """Which dialogues are good enough, marked 1 (bad) to 5 (good)."""

    on: bool = True
    """Off, no dialogue is marked and all go on."""
    keep_from: Mark = 3
    """A dialogue is kept if natural, grounded and reaches are all at least this."""
