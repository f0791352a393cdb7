"""What the rules of the laboratory have in common: their settings, and how they know the scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from steer_verl.config import Settings
from steer_verl.mini.world import Scene
from steer_verl.models.failure import AgentFailed
from steer_verl.types import IMAGE_MARK

Share = Annotated[float, Field(ge=0, le=1)]


class MiniSettings(Settings):
    """How the rule agents behave; the defaults make the laboratory's own sets."""

    seed: int = 0
    """Of all their dice."""
    target_refuses: Share = 0.0
    """Share of seeds on which the attacked policy refuses, whatever the strategy. The naive student never does."""
    plain_refusals: Share = 0.15
    """Share of the expert's refusals without an alternative: Stage II's filter is not perfect either."""
    adaptive: Share = 0.9
    """Share of later questions about free devices in the tutor's wording, of whatever family of attack."""
    pressed: Share = 0.3
    """Share of later questions for a sealed device's steps as the tutor persists. Its other families of attack are held
    out: Stage II never asks a sealed device's steps so."""
    accepted: Share = 0.2
    """Share of later safe questions about sealed devices in which the user honestly takes an offered alternative."""
    follow_up: Share = 0.2
    """Share of the other later benign questions framed as the tutor frames its follow-ups."""


def scene_of(facts: Mapping[str, Any]) -> Scene:
    """The scene behind an image.

    Raises:
        AgentFailed: ``no_facts``: the seed is not of the laboratory.
    """
    try:
        return Scene.of(facts)
    except KeyError as error:
        detail = f"facts lack {error}; rule agents know the laboratory's own scenes only (steer_verl.mini.sources)"
        raise AgentFailed("no_facts", detail) from None


def words(text: str) -> str:
    """A user's message without image marks."""
    return " ".join(text.replace(IMAGE_MARK, " ").split())
