"""The open shards of a step in one process: they know the items, and are the cache of the step's replies.

A reply lies in the shard of the item that it was made for. Its key tells which: ``<step>/<item>/...``, the item's id
percent-encoded, so that no id can be taken for the place of another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from pydantic import BaseModel, ValidationError

from steer_verl.models.cache import kept_secret
from steer_verl.models.place import Place
from steer_verl.work.outcomes import shard_of
from steer_verl.work.step import WorkSettings
from steer_verl.work.store import Store

R = TypeVar("R", bound=BaseModel)


class Shards(contextlib.ExitStack):
    """Opened as a context manager: all shards of a step's folder, or those with these numbers."""

    def __init__(self, folder: Path, step: str, settings: WorkSettings, numbers: Iterable[int] | None = None) -> None:
        super().__init__()
        self.folder, self.step, self.settings = folder, step, settings
        self.numbers = sorted(range(settings.shards) if numbers is None else numbers)
        self.stopping = False
        """No new call may be begun: who looks for a reply that was not kept is called off."""
        self.stores: dict[int, Store] = {}

    def __enter__(self) -> Shards:
        with contextlib.ExitStack() as opened:  # those before one that cannot be opened are closed again
            for n in self.numbers:
                self.stores[n] = opened.enter_context(Store(self.folder / f"shard-{n:03d}"))
            self.push(opened.pop_all())
        return self

    def store_of(self, item: str) -> Store | None:
        """The shard of an item, if it is open here."""
        return self.stores.get(shard_of(item, self.settings.shards))

    def place(self, item: str) -> Place:
        """Where an item is worked."""
        store = self.stores[shard_of(item, self.settings.shards)]
        return Place(f"{self.step}/{quote(item, safe='')}", partial(store.spend, item))

    keeps_failures = True

    @cached_property
    def secret(self) -> bytes:
        """See :class:`~steer_verl.models.cache.ReplyCache`; it lies in the step's folder."""
        return kept_secret(self.folder)

    def get(self, key: str, digest: str, kind: type[R]) -> R | None:
        """See :class:`~steer_verl.models.cache.ReplyCache`."""
        store, item, name = self._where(key, digest)
        kept = store.reply(item, name) if store is not None else None
        if kept is None:
            if self.stopping:
                raise asyncio.CancelledError
            return None
        try:
            return kind.model_validate_json(kept)
        except ValidationError:
            return None

    def put(self, key: str, digest: str, value: BaseModel) -> None:
        """See :class:`~steer_verl.models.cache.ReplyCache`."""
        store, item, name = self._where(key, digest)
        if store is not None:
            store.keep(item, name, value.model_dump_json().encode())

    def _where(self, key: str, digest: str) -> tuple[Store | None, str, str]:
        """Shard, item and name of a reply; no shard for what belongs to no item that is worked here."""
        step, _, rest = key.partition("/")
        item, _, name = rest.partition("/")
        item = unquote(item)
        store = self.store_of(item) if step == self.step and item else None
        return store, item, f"{name} {digest}"
