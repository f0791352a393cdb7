"""A desk for the tests of agents and steps: it keeps results as JSON, as the engine's desk does, and counts cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import TypeAdapter

from steer_verl.types import Usage

T = TypeVar("T")


class Interrupted(Exception):
    """The process would have been killed here."""


class MemoryDesk:
    """See :class:`~steer_verl.work.step.Desk`.

    Args:
        place: of the item.
        kept: results of an earlier run, to be shared with it.
        stop_after: so many new results are kept before the run is interrupted.
    """

    def __init__(
        self, place: str = "step/item", kept: dict[str, bytes] | None = None, stop_after: int | None = None
    ) -> None:
        self.place, self.stop_after = place, stop_after
        self.kept = {} if kept is None else kept
        self.usage = Usage()

    async def once(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        """The kept result, or that of ``work``."""
        adapter = TypeAdapter(kind)
        if name not in self.kept:
            if self.stop_after == 0:
                raise Interrupted
            self.stop_after = None if self.stop_after is None else self.stop_after - 1
            self.kept[name] = adapter.dump_json(await work())
        return adapter.validate_json(self.kept[name])

    def spend(self, usage: Usage) -> None:
        """Add to the item's account."""
        self.usage += usage
