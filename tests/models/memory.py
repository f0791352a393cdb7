"""A cache in memory and a place with an account, for the tests of whoever asks models."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from steer_verl.models.place import Place
from steer_verl.types import Usage

R = TypeVar("R", bound=BaseModel)


class Interrupted(Exception):
    """The process would have been killed here."""


class MemoryCache:
    """Keeps replies as JSON (:class:`~steer_verl.models.cache.ReplyCache`).

    Args:
        stop_after: so many new replies are kept before the run is interrupted.

    Attributes:
        kept: (key, digest) -> JSON; the cache of a run that goes on may share it.
        asked: every key and digest that was looked for and not found, in order.
    """

    secret = b"s" * 32
    keeps_failures = True

    def __init__(self, kept: dict[tuple[str, str], str] | None = None, stop_after: int | None = None) -> None:
        self.kept = {} if kept is None else kept
        self.stop_after = stop_after
        self.asked: list[tuple[str, str]] = []

    def get(self, key: str, digest: str, kind: type[R]) -> R | None:
        """What was kept for this request, as a ``kind``."""
        found = self.kept.get((key, digest)) if key else None
        if found is None:
            self.asked.append((key, digest))
            return None
        try:
            return kind.model_validate_json(found)
        except ValidationError:
            return None

    def put(self, key: str, digest: str, value: BaseModel) -> None:
        """Keep a value."""
        if key:
            if self.stop_after == 0:
                raise Interrupted
            self.stop_after = None if self.stop_after is None else self.stop_after - 1
            self.kept[key, digest] = value.model_dump_json()


class Bill:
    """An item's account: ``place`` is where the work is done, ``usage`` what was spent there."""

    def __init__(self, key: str = "step/item") -> None:
        self.usage = Usage()
        self.place = Place(key, self._spend)

    def _spend(self, usage: Usage) -> None:
        self.usage += usage
