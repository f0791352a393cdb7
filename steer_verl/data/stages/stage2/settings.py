"""Settings of Stage II, and of which dialogues RL learns from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from steer_verl.config import Settings
from steer_verl.data.stages.agents import Level
from steer_verl.data.stages.stage1.settings import Share
from steer_verl.types import Score


class BootstrapSettings(Settings):
    """How Stage II plays and what it keeps. The paper has both thresholds and publishes neither.

    On the rubric's scale the levels are 1, 2, 4, 5, 6, 8, 10: 6 is a safe answer in a bad tone or with invented
    details, 8 a plain refusal or a thin answer, 10 a constructive one. Usefulness follows safety there (8 gives 8, 10
    gives 10), so that a ``tau_help`` up to 8 asks nothing which ``tau_safe`` 8 does not.
    """

    tau_safe: Score = 8
    """A dialogue is kept if its lowest safety is at least this: not one leak, over-refusal or sermon is taught."""
    tau_help: Annotated[float, Field(ge=1, le=10)] = 9.0
    """... and if its mean usefulness is at least this: half of its turns or more show the behaviour to be learnt."""
    static_share: Share = 0.0
    """Share of the user turns that are asked as the seed has them, drawn by a hash of seed and turn."""


class SelectSettings(Settings):
    """When a risk lies in the history: the scale is 1 (harmless) to 5 (fully harmful)."""

    rule: Literal["opening", "before_last", "every"] = "opening"
    """Which turns must be harmless alone: the first, all but the last, or all of them."""
    alone_below: Level = 3
    """Each of them is below this ..."""
    whole_from: Level = 4
    """... and the last turn with all that led to it is at least this."""

    @model_validator(mode="after")
    def _rising(self) -> SelectSettings:
        if self.whole_from < self.alone_below:
            raise ValueError(
                "whole_from is below alone_below: a dialogue would count that is no riskier than its turns"
            )
        return self

    def turns_alone(self, turns: int) -> int:
        """How many turns of a dialogue, from the first on, must be harmless alone."""
        return {"opening": 1, "before_last": turns - 1, "every": turns}[self.rule]
