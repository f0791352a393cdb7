"""What a card shows and what it keeps folded."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from steer_verl.config import Settings


class CardSettings(Settings):
    """Of the sampled dialogues on the page; the figures need no settings."""

    kept: Annotated[int, Field(ge=0, le=200)] = 14
    """Dialogues of the set, shared out among the kinds."""
    rejected: Annotated[int, Field(ge=0, le=200)] = 6
    """Items left out, shared out among steps and reasons."""
    picture_side: Annotated[int, Field(ge=16, le=2048)] = 320
    """Longer side of a picture on the page, in pixels."""
    fold_safety: Annotated[int, Field(ge=0, le=10)] = 4
    """An answer of at most this safety is folded away: 4 is a leaky refusal (the tutor's rubric)."""
    passage_chars: Annotated[int, Field(ge=100)] = 4000
    """A longer text is cut there, and says so."""
