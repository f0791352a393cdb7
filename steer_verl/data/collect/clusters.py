"""Images that are nearly the same, in clusters: saved in another format or size, an image shows what it showed.

Two images are alike if their pixels are the same, or if their looks are: their difference hashes within ``look_bits``
bits of 64, no field of their colour sketches further apart than ``TONES_APART`` levels, and all fields together no
further than ``SHARE_APART`` of what they show. A cluster holds whatever
is alike, directly or by others between. It is found by an index: hashes within k bits share one of k + 1 blocks, and
colours that are near share a cell of a grid. All of it lies in a file that nobody else sees; memory stays the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from PIL import Image

from steer_verl.data.image_store import Look, look

TONES_APART = 24
"""Levels of 255. Another size and JPEG together move a field of a photo by 3, of a tiny drawing by up to 17."""
SHARE_APART = 0.4
"""Mean difference of the fields, by their mean distance from an image's own colour. The fields of thin drawings are all
nearly white: line drawings of one style are at 0.5 to 1, and another size and JPEG move them by 0.2."""
CELL = 3 * TONES_APART
"""Side of a grid's cell, in levels of the mean red, green and blue."""
_BITS = 64
_TABLES = """
PRAGMA journal_mode=OFF; PRAGMA cache_size=-16384;
CREATE TABLE image (number INTEGER PRIMARY KEY, pixels TEXT UNIQUE, up INTEGER, name TEXT, shape BLOB, tones BLOB);
CREATE TABLE block (key INTEGER, image INTEGER, PRIMARY KEY (key, image)) WITHOUT ROWID;
"""


class Clusters:
    """Every image that was added, and which cluster it is in."""

    def __init__(self, look_bits: int) -> None:
        self.look_bits = look_bits
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.executescript(_TABLES)

    def see(self, path: str, image: Image.Image) -> None:
        """An image, by its path in a store, whose name is the digest of its pixels."""
        if not self.has(path):
            self.add(Path(path).stem, look(image))

    def has(self, path: str) -> bool:
        """Whether an image was added."""
        return bool(self._base.execute("SELECT 1 FROM image WHERE pixels = ?", (Path(path).stem,)).fetchone())

    def add(self, pixels: str, look: Look | None) -> None:
        """An image, by the digest of its pixels and its look; one that is there is passed over."""
        shape, tones = (None, None) if look is None else (look.shape.to_bytes(8, "big"), look.tones)
        row = (pixels, pixels, shape, tones)
        added = self._base.execute("INSERT OR IGNORE INTO image (pixels, name, shape, tones) VALUES (?, ?, ?, ?)", row)
        if not added.rowcount or look is None or added.lastrowid is None:
            return
        for other, _ in self._alike(look):
            self._join(added.lastrowid, other)
        cell = [mean // CELL for mean in _means(look)]
        keys = {(hash((*block, *cell)), added.lastrowid) for block in self._blocks(look)}
        self._base.executemany("INSERT OR IGNORE INTO block VALUES (?, ?)", keys)

    def name(self, path: str) -> str:
        """The cluster of an image that was added: the first of the digests in it, whatever the order of adding."""
        (number,) = self._base.execute("SELECT number FROM image WHERE pixels = ?", (Path(path).stem,)).fetchone()
        return self._root(number)[1]

    def first_like(self, look: Look) -> str | None:
        """The digest of the first image added that is like this one by its look."""
        return min(self._alike(look), default=(0, None))[1]

    def _alike(self, look: Look) -> Iterator[tuple[int, str]]:
        """Numbers and digests."""
        near = [{(mean + step) // CELL for step in (-TONES_APART - 1, TONES_APART + 1)} for mean in _means(look)]
        keys = [hash((*block, *cell)) for cell in product(*near) for block in self._blocks(look)]
        near_by = f"SELECT image FROM block WHERE key IN ({','.join('?' * len(keys))})"
        query = f"SELECT number, pixels, shape, tones FROM image WHERE number IN ({near_by})"
        for number, pixels, shape, tones in self._base.execute(query, keys).fetchall():
            if alike(look, Look(int.from_bytes(shape, "big"), tones), self.look_bits):
                yield number, pixels

    def _blocks(self, look: Look) -> Iterator[tuple[int, int]]:
        """Parts of a hash, each with its place."""
        edges = [_BITS * block // (self.look_bits + 1) for block in range(self.look_bits + 2)]
        for low, high in pairwise(edges):
            yield low, look.shape >> low & (1 << high - low) - 1

    def _root(self, number: int) -> tuple[int, str]:
        """Number and name of the image at the top of a cluster."""
        way, up = list[int](), number
        while up is not None:
            way.append(up)
            up, name = self._base.execute("SELECT up, name FROM image WHERE number = ?", (up,)).fetchone()
        shorter = [(way[-1], below) for below in way[:-2]]
        self._base.executemany("UPDATE image SET up = ? WHERE number = ?", shorter)
        return way[-1], name

    def _join(self, one: int, other: int) -> None:
        (one, first), (other, second) = self._root(one), self._root(other)
        if one != other:
            self._base.execute("UPDATE image SET up = ? WHERE number = ?", (other, one))
            self._base.execute("UPDATE image SET name = ? WHERE number = ?", (min(first, second), other))


def alike(one: Look, other: Look, look_bits: int) -> bool:
    """Whether two images are nearly the same, by their looks."""
    if (one.shape ^ other.shape).bit_count() > look_bits:
        return False
    apart = np.abs(_tones(one) - _tones(other))
    return bool(apart.max() <= TONES_APART and apart.mean() <= SHARE_APART * (_shown(one) + _shown(other)) / 2)


def _shown(look: Look) -> float:
    """How far its fields are from its mean colour."""
    fields = _tones(look).reshape(-1, 3)
    return float(np.abs(fields - fields.mean(axis=0)).mean())


def _tones(look: Look) -> np.ndarray:
    return np.frombuffer(look.tones, dtype=np.uint8).astype(np.int16)


def _means(look: Look) -> list[int]:
    """Red, green and blue."""
    return [int(mean) for mean in _tones(look).reshape(-1, 3).mean(axis=0)]
