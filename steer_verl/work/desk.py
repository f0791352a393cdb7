"""A step's desk for one item: a result is on disk before the step sees it, and is never paid for twice.

What is asked there several times about one item, once a turn for instance, has a part of the desk each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from steer_verl.errors import DataError
from steer_verl.types import Usage
from steer_verl.work.step import Desk
from steer_verl.work.store import Store

T = TypeVar("T")

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
"""By kind: making one takes longer than a call to a rule."""

_BILL: ContextVar[list[Usage] | None] = ContextVar("bill", default=None)
"""What the ``once`` that is under way has spent. Tasks that a step starts have a bill each."""


class ItemDesk:
    """See :class:`~steer_verl.work.step.Desk`.

    Args:
        store: of the item's shard.
        step: its name.
        item: its id.
        stopping: whether no new call may be begun: who asks for one is called off.
    """

    def __init__(self, store: Store, step: str, item: str, stopping: Callable[[], bool] = lambda: False) -> None:
        self.place = f"{step}/{item}"
        self._store, self._item, self._stopping = store, item, stopping
        self._under_way: set[str] = set()

    async def once(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        """See :meth:`steer_verl.work.step.Desk.once`.

        Raises:
            DataError: the kept result is none of this kind.
            RuntimeError: the same name is under way at this desk: two different things would be one.
        """
        if name in self._under_way:
            raise RuntimeError(f"{name!r} is asked for twice at the same time")
        adapter = _adapter(kind)
        kept = self._store.result(self._item, name)
        if kept is None:
            if self._stopping():
                raise asyncio.CancelledError
            self._under_way.add(name)
            try:
                kept = await self._worked(name, adapter, work)
            finally:
                self._under_way.discard(name)
        try:
            return adapter.validate_json(kept)
        except ValidationError as error:
            what, cure = error.errors()[0]["msg"], "it was made by another version; use a new folder"
            raise DataError(f"{self.place}/{name}: the kept result cannot be read ({what}); {cure}") from None

    def spend(self, usage: Usage) -> None:
        """See :meth:`steer_verl.work.step.Desk.spend`."""
        bill = _BILL.get()
        if bill is None:
            self._store.keep(self._item, "", None, usage)
        else:
            bill.append(usage)

    async def _worked(self, name: str, adapter: TypeAdapter[T], work: Callable[[], Awaitable[T]]) -> str:
        """The JSON of a new result, which is kept; of a failure its cost is."""
        bill: list[Usage] = []
        value = None
        token = _BILL.set(bill)
        try:
            value = adapter.dump_json(await work()).decode()
            return value
        finally:
            _BILL.reset(token)
            if value is not None or bill:
                self._store.keep(self._item, name, value, sum(bill, Usage()))


class DeskPart:
    """The desk of one turn, or of one attempt, of an item (:class:`~steer_verl.work.step.Desk`).

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


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
