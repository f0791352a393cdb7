"""What a student is to an evaluation: it answers one conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from steer_verl.models.place import Place
from steer_verl.types import Record

Messages = Sequence[Mapping[str, Any]]
"""Chat messages, the open question last; a content is a string or a list of ``{"type": "image", "image": <absolute
path>}`` and ``{"type": "text", "text": ...}`` blocks (steer_verl/dialogue.py, ``user_message``)."""


class Reply(Record):
    """One answer as it came; an empty one is an answer."""

    text: str
    tokens: int = 0
    """Tokens of the answer; 0 where the student does not say."""
    truncated: bool = False
    """It hit the token cap."""
    seconds: float = 0.0


class Student(Protocol):
    """Who is evaluated."""

    name: str
    """Model and settings that decide its answers: it stands in the run's plan."""

    async def check(self) -> None:
        """Prove before the first item that it can be asked.

        Raises:
            SteerError: one line, with how to fix it.
        """
        ...

    async def answer(self, messages: Messages, place: Place) -> Reply:
        """The answer to a conversation. The place is a turn's own, and it is the student that has its answer kept
        (:func:`~steer_verl.models.cache.remembered`), so that a killed run does not ask again.

        Raises:
            AgentFailed: there is none; ``transient`` when the same request may succeed later. What the model wrote, be
                it empty, cut or a refusal, is an answer and no failure.
        """
        ...

    async def close(self) -> None:
        """Give back what is held: connections, and a server that was started for it."""
        ...
