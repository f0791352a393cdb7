"""Exact and near-duplicates of texts with pictures, found in an index on disk.

Two items are the same if their pixels and their normalised texts are. They are alike if their texts are, by the
MinHash estimate, and their pictures are, by the setting ``pictures``. The index is one sqlite file: memory is the same
for a hundred items and for a million. Every item costs some rows, one for each band of its signature (times the blocks
of its look); items that share one are compared.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np

from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.data.sources.sketch import bands, look, normalised, signature
from steer_verl.errors import ConfigError
from steer_verl.images import load_image

_TABLES = """
CREATE TABLE IF NOT EXISTS made (settings TEXT);
CREATE TABLE IF NOT EXISTS item (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, same BLOB, pixels TEXT, look BLOB, signature BLOB
);
CREATE INDEX IF NOT EXISTS by_same ON item (same);
CREATE TABLE IF NOT EXISTS band (key INTEGER, item INTEGER, PRIMARY KEY (key, item)) WITHOUT ROWID;
"""
_LOOK_BITS = 64


@dataclass(frozen=True)
class Item:
    """What is compared."""

    id: str
    text: str
    pixels: str = ""
    """Digest of the pixels; of all pictures in their order if there are several. Empty without a picture."""
    look: int | None = None
    """Difference hash of the first picture (see :func:`~steer_verl.data.sources.sketch.look`)."""


def item_of(name: str, text: str, images: Sequence[str], pictures: Path, settings: DuplicateSettings) -> Item:
    """An item with pictures of the build's own folder, whose names are the digests of their pixels.

    Args:
        name: its id.
        text: all words that count.
        images: paths below ``pictures``.
        pictures: the folder; a picture is opened only where its look counts.
        settings: those of the index.
    """
    pixels = "+".join(Path(image).stem for image in images)
    seen = look(load_image(images[0], root=pictures)) if images and settings.pictures == "look" else None
    return Item(name, text, pixels, seen)


class DuplicateIndex:
    """All items added so far, by earlier runs too.

    Args:
        path: the file; made when it is missing.
        settings: when items are alike.
        batch: items written to disk at a time. A killed process loses those of an unfinished batch: give more than one
            where a run that is started again adds all of them again.

    Raises:
        ConfigError: the file was made with other settings.
    """

    def __init__(self, path: Path, settings: DuplicateSettings, *, batch: int = 1) -> None:
        self.settings = settings
        self._batch, self._unwritten = batch, 0
        self._bands, self._width = bands(settings.threshold, settings.permutations)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(path, check_same_thread=False)
        # a killed process loses nothing; only a machine that loses power may lose the last items
        self._base.executescript(
            f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-16384;{_TABLES}"
        )
        self._same_making(path)

    def close(self) -> None:
        """Write what is not written yet, and let go of the file."""
        self._base.commit()
        self._base.close()

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM item").fetchone()[0])

    def first_same(self, item: Item) -> str | None:
        """The id of the first item with the same pixels and the same words, added before this one."""
        query = "SELECT id FROM item WHERE same = ? AND number < ? ORDER BY number LIMIT 1"
        found = self._base.execute(query, (_same(item), self._number(item))).fetchone()
        return None if found is None else str(found[0])

    def first_like(self, item: Item) -> str | None:
        """The id of the first item that is like this one, added before it; the same one is like it too.

        An item that was added itself is compared with those before it, so that a run started again hears the same.
        """
        values = self._signature(item)
        keys = list(self._keys(item, values))
        marks = ",".join("?" * len(keys))
        query = (
            "SELECT id, pixels, look, signature FROM item WHERE number IN"
            f" (SELECT item FROM band WHERE key IN ({marks}) AND item < ?) ORDER BY number"
        )
        for name, pixels, seen, other in self._base.execute(query, (*keys, self._number(item))):
            if self._pictures_alike(item, pixels, seen) and self._texts_alike(values, other):
                return str(name)
        return None

    def add(self, item: Item) -> None:
        """Put an item into the index; nothing happens if its id is there."""
        values = self._signature(item)
        row = (item.id, _same(item), item.pixels, _bytes(item.look), values.tobytes())
        added = self._base.execute(
            "INSERT OR IGNORE INTO item (id, same, pixels, look, signature) VALUES (?, ?, ?, ?, ?)", row
        )
        if added.rowcount:
            keys = ((key, added.lastrowid) for key in self._keys(item, values))
            self._base.executemany("INSERT OR IGNORE INTO band VALUES (?, ?)", keys)
        self._unwritten += 1
        if self._unwritten >= self._batch:
            self._base.commit()
            self._unwritten = 0

    def _signature(self, item: Item) -> np.ndarray:
        return signature(item.text, self.settings.words, self.settings.permutations)

    def _number(self, item: Item) -> int:
        """The item's own, or one beyond all."""
        found = self._base.execute("SELECT number FROM item WHERE id = ?", (item.id,)).fetchone()
        return 2**62 if found is None else int(found[0])

    def _keys(self, item: Item, values: np.ndarray) -> Iterator[int]:
        """What items that are alike have in common nearly always: a band together with what their pictures share.

        That the picture is part of the key keeps "What is this?" over a thousand pictures from being compared a
        thousand times.
        """
        for band in range(self._bands):
            part = values[band * self._width : (band + 1) * self._width].tobytes()
            for shown in self._shown(item):
                digest = blake2b(b"%d|%s|%s" % (band, shown, part), digest_size=8).digest()
                yield int.from_bytes(digest, "big", signed=True)

    def _shown(self, item: Item) -> list[bytes]:
        """What two like pictures share at least one of; looks within k bits share one of k + 1 blocks."""
        if self.settings.pictures == "pixels":
            return [item.pixels.encode()]
        if self.settings.pictures == "any" or item.look is None:
            return [b""]
        blocks = self.settings.look_bits + 1
        edges = [_LOOK_BITS * block // blocks for block in range(blocks + 1)]
        return [b"%d:%d" % (low, item.look >> low & (1 << high - low) - 1) for low, high in pairwise(edges)]

    def _pictures_alike(self, item: Item, pixels: str, seen: bytes | None) -> bool:
        if self.settings.pictures == "any":
            return True
        if self.settings.pictures == "pixels":
            return item.pixels == pixels
        if item.look is None or seen is None:
            return item.look is None and seen is None
        return (item.look ^ int.from_bytes(seen, "big")).bit_count() <= self.settings.look_bits

    def _texts_alike(self, values: np.ndarray, other: bytes) -> bool:
        equal = np.count_nonzero(values == np.frombuffer(other, dtype=np.uint32))
        return bool(equal >= self.settings.threshold * len(values))

    def _same_making(self, path: Path) -> None:
        """Compare how this index was made, the library's own hashing included, and note it in a new one."""
        probe = signature("the quick brown fox jumps over the lazy dog", 3, self.settings.permutations)
        making = f"{self.settings.model_dump_json()} {blake2b(probe.tobytes(), digest_size=8).hexdigest()}"
        found = self._base.execute("SELECT settings FROM made").fetchone()
        if found is None:
            with self._base:
                self._base.execute("INSERT INTO made VALUES (?)", (making,))
        elif found[0] != making:
            self.close()
            raise ConfigError(
                f"{path}: made with {found[0]}, but now it is {making}; give the old settings, or remove the file"
            )


def _same(item: Item) -> bytes:
    text = f"{item.pixels}|{normalised(item.text)}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16).digest()


def _bytes(seen: int | None) -> bytes | None:
    return None if seen is None else seen.to_bytes(8, "big")
