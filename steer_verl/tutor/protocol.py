"""What a tutor is: it judges one answer in its dialogue and, unless it was the last turn, writes the next question."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from steer_verl.types import Exchange, Ruling


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
