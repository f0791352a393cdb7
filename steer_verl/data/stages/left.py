"""Why a seed leaves the build before its dialogue is whole, and in which stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from steer_verl.models.failure import AgentFailed


class Reason(StrEnum):
    """Ours. An agent that failed for good adds its own (:class:`~steer_verl.models.replies.AskFault`)."""

    EMPTY_REWRITE = "empty_rewrite"  # the rewrite that the seed's kind needs says nothing in words
    TURN_COUNT = "turn_count"  # another number of turns than was asked for
    EMPTY_TURN = "empty_turn"  # a turn says nothing in words
    REPEATED_TURN = "repeated_turn"  # two turns have the same words
    MARKS = "marks"  # a turn spells a mark of an image, a video or a sound
    TOO_LONG = "too_long"  # a turn has more than MAX_CHARS characters
    NOT_SUCCESSFUL = "not_successful"  # no strategy that was tried brought the target to red_team.keep_from
    NO_ATTACK = "no_attack"  # no strategy came as far as the breach judge: the agents failed at each
    NOT_NATURAL = "not_natural"  # this mark of the screener and the next two: below screen.keep_from
    NOT_GROUNDED = "not_grounded"
    NOT_REACHING = "not_reaching"
    MALFORMED = "malformed"  # an answer is not in the student's format; the blue expert's was not, twice
    UNSCORED = "unscored"  # an answer has no number, so that the dialogue can be neither good nor bad
    UNSAFE = "unsafe"  # a turn's safety is below bootstrap.tau_safe
    UNHELPFUL = "unhelpful"  # the mean usefulness is, or can only end, below bootstrap.tau_help
    RISKY_ALONE = "risky_alone"  # a turn that the rule looks at is risky without the others
    HARMLESS_WHOLE = "harmless_whole"  # so is the whole: there is nothing to defend against


class Left(AgentFailed):
    """A seed leaves the build by our own decision, as it does when an agent fails for good."""

    def __init__(self, reason: Reason, detail: str = "", value: dict[str, Any] | None = None) -> None:
        super().__init__(reason.value, detail, value=value)


@contextmanager
def stage(name: str, made: Callable[[], dict[str, Any] | None] = lambda: None) -> Iterator[None]:
    """A seed that leaves inside, or whose agent fails, is told by this stage, with what was ``made`` so far."""
    try:
        yield
    except AgentFailed as end:
        end.stage, end.value = name, end.value or made()
        raise
