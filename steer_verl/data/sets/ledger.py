"""What is offered to the sets and what they hold, on disk: memory stays flat, however many dialogues there are.

Outcomes are written in the order in which dialogues end, which no two runs share. The ledger notes where each record
lies, not the record, and gives the places back by a hash of the ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steer_verl.data.drawn import drawn
from steer_verl.data.seed import SetName
from steer_verl.work.outcomes import Pointer

_TABLES = """
CREATE TABLE offered (side TEXT, rank REAL, id TEXT, benign INTEGER, file TEXT, offset INTEGER);
CREATE INDEX by_rank ON offered (side, rank, id, file, offset);
CREATE TABLE held (what TEXT, name TEXT, side TEXT, PRIMARY KEY (what, name, side)) WITHOUT ROWID;
"""

What = Literal["id", "seed", "image", "file"]
"""A dialogue's id, its source seed, an image that it came from, an image file beside the sets."""


@dataclass(frozen=True)
class Offer:
    """A kept dialogue that wants into its side's set."""

    id: str
    benign: bool
    pointer: Pointer


class Ledger:
    """One assembly's; it lies in a temporary file of SQLite's own, which is gone when it is closed."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("")
        self._base.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES}")

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def offer(self, side: SetName, offer: Offer) -> None:
        """Note a dialogue."""
        row = (side.value, drawn("set", offer.id), offer.id, offer.benign, str(offer.pointer.path))
        self._base.execute("INSERT INTO offered VALUES (?, ?, ?, ?, ?, ?)", (*row, offer.pointer.offset))

    def offers(self, side: SetName, benign: bool | None = None) -> Iterator[Offer]:
        """The dialogues of a side, or its benign or its other ones alone, by rank."""
        query = "SELECT id, benign, file, offset FROM offered WHERE side = ? AND coalesce(benign = ?, 1)"
        rows = self._base.execute(f"{query} ORDER BY rank, id, file, offset", (side.value, benign))
        for name, is_benign, file, offset in rows:
            yield Offer(name, bool(is_benign), Pointer(Path(file), offset))

    def count(self, side: SetName, benign: bool | None = None) -> int:
        """How many there are."""
        query = "SELECT count(*) FROM offered WHERE side = ? AND coalesce(benign = ?, 1)"
        return int(self._base.execute(query, (side.value, benign)).fetchone()[0])

    def hold(self, side: SetName, what: What, name: str) -> None:
        """Note what a set holds."""
        self._base.execute("INSERT OR IGNORE INTO held VALUES (?, ?, ?)", (what, name, side.value))

    def holders(self, what: What, name: str) -> set[SetName]:
        """The sets that hold it."""
        found = self._base.execute("SELECT side FROM held WHERE what = ? AND name = ?", (what, name))
        return {SetName(side) for (side,) in found}
