"""The one cache: every reply of any model, kept before it is used, so that nothing is paid for twice.

An entry's key is where it belongs (``turn_key``) and a digest of the whole request with its sampling settings and the
place in the configuration of whoever is asked. Whoever plays the same turns again with the same settings gets the same
replies, refusals included, word for word, and the first request that is not here is made for real.

:class:`Cache` is that of a training run. It keeps no failure, neither an outage nor a content filter nor a context that
is too short: whoever starts a run again has mended its cause. A step over many items keeps its replies beside the
items' state (:mod:`steer_verl.work`), and what refused a request for good as well, for it asks again at another place.
The entries lie as JSON lines in ``<folder>/<first part of the key>/<step>/``, such as ``train/12``, in one file for
each process; a step that can never be played again is deleted. Keys without a step are spread over :data:`BUCKETS`
folders. In memory is an index of the folders that were used last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from zlib import crc32

from pydantic import BaseModel, ValidationError

from steer_verl.errors import SteerError
from steer_verl.models.place import Place
from steer_verl.models.request import encodable
from steer_verl.records import append, files, lines_at, own_file
from steer_verl.types import Record

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=BaseModel)

MAX_ENTRIES = 200_000
"""Entries whose place is held in memory (about 200 bytes each); beyond, the folder that was used last stays."""
BUCKETS = 64
"""Folders among which keys without a step are spread."""


class ReplyCache(Protocol):
    """Keeps replies; one that keeps none is false."""

    keeps_failures: bool
    """Also what refused a request for good (:attr:`~steer_verl.models.failure.Failure.of_this_request`)."""

    @property
    def secret(self) -> bytes:
        """32 random bytes of whoever owns the replies; see :attr:`Cache.secret`."""
        ...

    def get(self, key: str, digest: str, kind: type[R]) -> R | None:
        """What was kept for this request, as a ``kind``; an entry of another form is none. Without a key, none is."""
        ...

    def put(self, key: str, digest: str, value: BaseModel) -> None:
        """Keep a value on disk; it is there when this returns."""
        ...


async def remembered(cache: ReplyCache, place: Place, what: str, kind: type[R], work: Callable[[], Awaitable[R]]) -> R:
    """A result that no endpoint of ours makes, such as a local model's: the kept one, or that of ``work``.

    Args:
        cache: keeps it before it is used.
        place: where it belongs.
        what: tells it from every other result at the place; it holds whatever decides the result.
        kind: of the result.
        work: not called when the result is known. What it raises is not kept.
    """
    digest = hashlib.sha256(what.encode(errors="replace")).hexdigest()[:32]
    kept = cache.get(place.key, digest, kind)
    if kept is None:
        kept = await work()
        cache.put(place.key, digest, kept)
    return kept


class _Entry(Record):
    """One line."""

    key: str
    digest: str
    value: dict[str, Any]


class _Pointer(NamedTuple):
    """Where an entry lies: replies are many, and most of them are never asked for again."""

    path: Path
    offset: int


class Cache:
    """One process's view: it reads what earlier processes left, and appends to files of its own.

    A disk that is full costs entries and one error in the log, never a reply.

    Args:
        folder: where; ``None`` keeps nothing and finds nothing.
    """

    keeps_failures = False

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = Path(folder) if folder is not None else None
        self.lost = 0
        """Entries that could not be written."""
        self._indexes: OrderedDict[Path, dict[bytes, _Pointer]] = OrderedDict()

    def __bool__(self) -> bool:
        return self.folder is not None

    @cached_property
    def secret(self) -> bytes:
        """32 random bytes, the same in every process with this folder and after a restart; its owner's alone.

        They are the key of the ids in a tutor's prompts: a request that was answered just before a kill is then the
        same request afterwards. Without a folder they are this process's own.
        """
        return kept_secret(self.folder) if self.folder is not None else secrets.token_bytes(32)

    def get(self, key: str, digest: str, kind: type[R]) -> R | None:
        """What was kept for this request, as a ``kind``; an entry of another form is none."""
        if self.folder is None or not key:
            return None
        key = encodable(key)
        pointer = self._index(self._place(key)).get(_name(key, digest))
        if pointer is None:
            return None
        try:
            with pointer.path.open("rb") as file:
                file.seek(pointer.offset)
                return kind.model_validate_json(json.dumps(_Entry.model_validate_json(file.readline()).value))
        except (OSError, ValidationError):
            return None

    def put(self, key: str, digest: str, value: BaseModel) -> None:
        """Keep a value on disk."""
        if self.folder is None or not key:
            return
        key = encodable(key)
        place = self._place(key)
        path = own_file(place)
        try:
            offset = append(path, _Entry(key=key, digest=digest, value=value.model_dump(mode="json")))
        except OSError as error:
            if not self.lost:
                logger.error("cache %s: cannot be written (%s); replies are not kept until it can", place, error)
            self.lost += 1
            return
        if place in self._indexes:
            self._indexes[place][_name(key, digest)] = _Pointer(path, offset)

    def _place(self, key: str) -> Path:
        assert self.folder is not None  # nothing is looked up or kept without one
        first, _, rest = key.partition("/")
        second = rest.partition("/")[0]
        step = second if second.lstrip("-").isdigit() and len(second) < 20 else f"{crc32(rest.encode()) % BUCKETS:02d}"
        return self.folder / _file_name(first) / step

    def _index(self, place: Path) -> dict[bytes, _Pointer]:
        if place not in self._indexes:
            self._indexes[place] = dict(_pointers(place))
            while len(self._indexes) > 1 and sum(map(len, self._indexes.values())) > MAX_ENTRIES:
                self._indexes.popitem(last=False)
        self._indexes.move_to_end(place)
        return self._indexes[place]


def _pointers(place: Path) -> Iterator[tuple[bytes, _Pointer]]:
    """Name and place of every entry; a line that a kill tore, or that is none of ours, is passed over."""
    for path in files(place):
        for offset, line in lines_at(path):
            with contextlib.suppress(ValidationError):
                entry = _Entry.model_validate_json(line)
                yield _name(entry.key, entry.digest), _Pointer(path, offset)


def _name(key: str, digest: str) -> bytes:
    """Of an entry, in 16 bytes: an index holds many."""
    return hashlib.blake2b(f"{key}\n{digest}".encode(), digest_size=16).digest()


def _file_name(part: str) -> str:
    """A part of a key as the name of a folder: no separator, never empty, never ``.`` or ``..``."""
    name = "".join(char if char.isalnum() or char in "-_=." else "_" for char in part)[:80]
    return name if name.strip(".") else f"_{name}"


def kept_secret(folder: Path) -> bytes:
    """The 32 bytes in the file ``secret`` of ``folder``, its owner's alone, drawn when they are first asked for.

    Raises:
        SteerError: the file holds something else.
    """
    path = folder / "secret"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), open(path, "xb", 0, opener=_owners) as file:  # the first one's counts
        try:
            file.write(secrets.token_bytes(32))
            os.fsync(file.fileno())
        except OSError:  # such as a full disk
            path.unlink()
            raise
    for _ in range(20):  # another process may be about to write it
        if len(secret := path.read_bytes()) == 32:
            return secret
        time.sleep(0.1)
    raise SteerError(f"{path}: it holds {len(secret)} bytes and not 32, because a write broke off; delete it")


def _owners(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
