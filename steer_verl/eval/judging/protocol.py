"""What a judge is to an evaluation: it rates the last answer of a dialogue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from pydantic import Field

from steer_verl.answer import parse_answer
from steer_verl.eval.records import Judged
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.text import unmarked
from steer_verl.types import Exchange, Record


class Case(Record):
    """What a judge is shown."""

    said: tuple[Said, ...]
    """The dialogue up to and including the answer to be rated, which comes last: each answer as its user reads it."""
    reference: str = ""
    """The benchmark's own right answer, where it has one."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """Ground truth for a judge that is made of rules; no model sees it."""


def case_of(exchanges: Iterable[Exchange], *, reference: str = "", facts: dict[str, Any] | None = None) -> Case:
    """The case of the last answer: the dialogue so far as its user reads it, without the student's drafts."""
    said: list[Said] = []
    for one in exchanges:
        said.append(Said(role="user", text=unmarked(one.user.text), images=one.user.images))
        said.append(Said(role="assistant", text=parse_answer(one.answer).answer))
    return Case(said=tuple(said), reference=reference, facts=facts or {})


class Rated(Record):
    """A judge's reply; of a panel, the combined word and every member's."""

    judged: Judged
    opinions: tuple[Judged, ...] = ()


class EvalJudge(Protocol):
    """Rates answers. A rating that cannot be had is :class:`~steer_verl.eval.records.Unrated`, never a number."""

    name: str
    """Model and version of the rubric, or of the rules: it stands in the run's plan."""

    async def check(self) -> None:
        """Prove before the first item that it can be asked.

        Raises:
            SteerError: one line, with how to fix it.
        """
        ...

    async def rate(self, case: Case, place: Place) -> Rated:
        """Rate the last answer of ``case``, at a turn's own place.

        Raises:
            AgentFailed: the judge could not be had for the moment (``transient``). A failure that would come again is
                ``Unrated``.
        """
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
