"""A part of a desk: what is asked there several times about one item has a name of its own each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from steer_verl.data.work.step import Desk
from steer_verl.types import Usage

T = TypeVar("T")


class DeskPart:
    """The desk of one turn, or of one attempt, of an item (:class:`~steer_verl.data.work.step.Desk`).

    Args:
        desk: of the item, or a part of it.
        part: unique on that desk; it goes before every name and behind the place.
    """

    def __init__(self, desk: Desk, part: str) -> None:
        self.place = f"{desk.place}/{part}"
        self._desk, self._part = desk, part

    async def once(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        """See :meth:`Desk.once`."""
        return await self._desk.once(f"{self._part}/{name}", kind, work)

    def spend(self, usage: Usage) -> None:
        """See :meth:`Desk.spend`."""
        self._desk.spend(usage)
