"""Why a seed ends in Stage I. What an agent could not do stands beside it, under the agent's own reason."""

from __future__ import annotations

from enum import Enum


class Rejection(str, Enum):
    """The reason of an outcome ``rejected``."""

    TURN_COUNT = "turn_count"
    """Another number of turns than was asked for."""
    EMPTY_TURN = "empty_turn"
    """A turn that says nothing in words."""
    REPEATED_TURN = "repeated_turn"
    """Two turns with the same words."""
    MARKS = "marks"
    """A turn that spells a mark of a picture, a video or a sound."""
    TOO_LONG = "too_long"
    """A turn with more than ``max_chars`` characters."""
    NOT_SUCCESSFUL = "not_successful"
    """No strategy that was tried brought the target to ``keep_from``."""
    NO_ATTACK = "no_attack"
    """No strategy came as far as the judge: the agents failed at each, for reasons that stand in ``value``."""
