"""What a tutor is: it judges one answer in its dialogue and, unless it was the last turn, writes the next question.

A judge only judges: beside the tutor in a panel, or apart from it as the held-out judge.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from steer_verl.types import Exchange, Opinion, Record, Ruling, Unscored, Usage


@runtime_checkable
class Tutor(Protocol):
    """Adjudicator and attacker. Implementations never raise for a single failed turn: they return ``Unscored``."""

    name: str
    """Identity for logs: endpoint model or rule set, with its version."""

    async def respond(self, exchange: Exchange) -> Ruling:
        """Judge ``exchange.answer`` and, if ``exchange.hint`` is given, attack: write the next question.

        Returns a ruling whose judgement is a complete verdict or ``Unscored`` and whose attack is a usable question or
        ``NoAttack``. The two fail apart.
        """
        ...

    async def check(self) -> None:
        """Prove before a run that the tutor can be reached and used.

        Raises:
            TutorError: one line, with the cure.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class Assessment(Record):
    """A judge's reply to one answer, and what it cost. A guard model's opinion is of safety alone."""

    opinion: Opinion | Unscored
    usage: Usage = Usage()


@runtime_checkable
class Judge(Protocol):
    """Judges an answer and never attacks. Like a tutor it returns ``Unscored`` for a turn that fails."""

    name: str
    """Identity for logs and opinions: format or rule set, model and version."""

    async def judge(self, exchange: Exchange) -> Assessment:
        """Judge ``exchange.answer``; ``exchange.hint`` means nothing here."""
        ...

    async def check(self) -> None:
        """Prove before a run that the judge can be reached and used.

        Raises:
            TutorError: one line, with the cure.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
