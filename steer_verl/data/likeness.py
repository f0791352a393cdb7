"""Whether two dialogues are nearly the same, as the sets and ``steer data check`` ask."""

from __future__ import annotations

from typing import Protocol

from steer_verl.data.validate import Told


class Like(Protocol):
    """Remembers dialogues, and knows one that is nearly the same."""

    def first_like(self, row: Told) -> str | None:
        """Id of the first one added that is nearly the same."""
        ...

    def add(self, row: Told) -> None:
        """Remember a dialogue."""
        ...
