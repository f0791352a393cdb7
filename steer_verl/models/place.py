"""Where a call belongs, and on whose account it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from steer_verl.types import Usage


@dataclass(frozen=True)
class Place:
    """A place in a run: an item of a step, or a part of its work such as a turn.

    The same work at the same place is the same call: the cache and a gateway's idempotency key hold the place. So
    a run that was killed and started again replays what it had, and pays for nothing twice.
    """

    key: str
    """``<step>/<item id>``, then one part after another; unique in a run's folder."""
    spend: Callable[[Usage], object] = lambda usage: None
    """Puts what a call has cost on the item's account; here nobody keeps one."""

    def part(self, name: str) -> Place:
        """A place inside this one; ``name`` is unique in it."""
        return Place(f"{self.key}/{name}", self.spend)

    def tries(self, retries: int) -> Iterator[Place]:
        """This place, and a further one for each time that what failed here for good is asked for again."""
        yield self
        yield from (self.part(f"retry{number}") for number in range(1, retries + 1))
