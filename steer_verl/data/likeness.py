"""Whether two dialogues are nearly the same, as the sets and ``steer data check`` ask: an index of near-duplicates.

Dialogues are alike if their user turns are, all together, and their pictures; how much is a setting
(:class:`~steer_verl.data.sources.settings.DuplicateSettings`). The index lies on disk.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from steer_verl.data.sources.duplicates import DuplicateIndex, Item
from steer_verl.data.sources.pictures import pixel_digest
from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.data.sources.sketch import look
from steer_verl.images import decode_image, load_image


@dataclass(frozen=True)
class Told:
    """What a dialogue is compared by."""

    id: str
    turns: int
    text: str
    images: tuple[str | bytes, ...] = ()


class Like(Protocol):
    """Remembers dialogues, and knows one that is nearly the same."""

    def first_like(self, row: Told) -> str | None:
        """Id of the first one added that is nearly the same."""
        ...

    def add(self, row: Told) -> None:
        """Remember a dialogue."""
        ...


class DialogueIndex:
    """Dialogues in an index of near-duplicates (:class:`Like`).

    Args:
        path: a new file.
        settings: when two are alike.
    """

    def __init__(self, path: Path, settings: DuplicateSettings) -> None:
        self._settings = settings
        self._index = DuplicateIndex(path, settings)

    def first_like(self, row: Told) -> str | None:
        """See :class:`Like`."""
        return self._index.first_like(self._item(row))

    def add(self, row: Told) -> None:
        """See :class:`Like`."""
        self._index.add(self._item(row))

    def _item(self, row: Told) -> Item:
        seen = [_seen(image) for image in row.images]
        first = seen[0][1] if seen and self._settings.pictures == "look" else None
        return Item(row.id, row.text, "+".join(digest for digest, _ in seen), first)


def indexes_in(folder: Path, settings: DuplicateSettings | None = None) -> Callable[[], DialogueIndex]:
    """Makes new, empty indexes, their files in ``folder``, which is theirs alone."""
    numbers = itertools.count()
    return lambda: DialogueIndex(folder / f"like-{next(numbers)}.sqlite", settings or DuplicateSettings())


def _seen(image: str | bytes) -> tuple[str, int]:
    """Digest of the pixels, and the look, of a picture that has been checked."""
    return _sketch(decode_image(image, "by value")) if isinstance(image, bytes) else _seen_file(image)


@functools.lru_cache(maxsize=4096)
def _seen_file(path: str) -> tuple[str, int]:
    return _sketch(load_image(path))


def _sketch(image: Image.Image) -> tuple[str, int]:
    return pixel_digest(image), look(image)
