"""Everything that is offered to the sets, on disk: read back in an order that does not depend on how it came.

Shards are written in the order in which dialogues end, which no two runs share. The pile gives rows back by a hash of
their ids, notes what becomes of each, and counts; memory stays flat however many there are.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from steer_verl.data.stage2.splits import SetName

_TABLES = """
CREATE TABLE offered
  (number INTEGER PRIMARY KEY, name TEXT, rank TEXT, id TEXT, kind TEXT, source_seed TEXT, value TEXT);
CREATE INDEX by_rank ON offered (name, rank);
CREATE TABLE fate (number INTEGER PRIMARY KEY, name TEXT, source_seed TEXT, reason TEXT, detail TEXT);
CREATE INDEX by_source_seed ON fate (source_seed, name) WHERE reason = '';
"""


@dataclass(frozen=True)
class Offered:
    """One row of the pile."""

    name: SetName
    """The set it is offered to."""
    id: str
    kind: str
    source_seed: str
    """The source seed that it was made of."""
    value: str
    """The record, as JSON."""
    number: int = -1
    """Its place in the pile."""


class Pile:
    """One build's pile.

    Args:
        path: a new file for it; remove it when the sets are written.
    """

    def __init__(self, path: Path) -> None:
        self._base = sqlite3.connect(path)
        self._base.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _TABLES)

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def offer(self, rows: Iterable[Offered]) -> None:
        """Put rows on the pile."""
        self._base.executemany(
            "INSERT INTO offered (name, rank, id, kind, source_seed, value) VALUES (?, ?, ?, ?, ?, ?)",
            ((row.name.value, _rank(row.id), row.id, row.kind, row.source_seed, row.value) for row in rows),
        )

    def rows(self, name: SetName, *, last_kind: str = "") -> Iterator[Offered]:
        """The rows offered to a set; those of ``last_kind`` after all others."""
        yield from self._read(
            "SELECT {} FROM offered WHERE name = ? ORDER BY kind = ?, rank, id, value", name, last_kind
        )

    def kept(self, name: SetName) -> Iterator[Offered]:
        """The rows of a finished set."""
        query = "SELECT {} FROM offered WHERE name = ? AND number IN (SELECT number FROM fate WHERE reason = '')"
        yield from self._read(f"{query} ORDER BY rank, id, value", name)

    def offered(self, name: SetName, kind: str) -> int:
        """How many rows of a kind were offered."""
        query = "SELECT count(*) FROM offered WHERE name = ? AND kind = ?"
        return int(self._base.execute(query, (name.value, kind)).fetchone()[0])

    def offers(self, name: SetName) -> bool:
        """Whether a row was offered to a set."""
        query = "SELECT EXISTS (SELECT 1 FROM offered WHERE name = ?)"
        return bool(self._base.execute(query, (name.value,)).fetchone()[0])

    def decide(self, row: Offered, reason: str = "", detail: str = "") -> None:
        """Keep a row, or leave it out for a reason."""
        fate = (row.number, row.name.value, row.source_seed, reason, detail)
        self._base.execute("INSERT INTO fate VALUES (?, ?, ?, ?, ?)", fate)

    def other_set(self, row: Offered) -> str | None:
        """Another set that keeps a row of the same source seed."""
        query = "SELECT name FROM fate WHERE source_seed = ? AND name <> ? AND reason = '' LIMIT 1"
        found = self._base.execute(query, (row.source_seed, row.name.value)).fetchone()
        return None if found is None else str(found[0])

    def fates(self, name: SetName) -> dict[str, int]:
        """Rows by what became of them; kept ones under ``""``."""
        query = "SELECT reason, count(*) FROM fate WHERE name = ? GROUP BY reason ORDER BY reason"
        return dict(self._base.execute(query, (name.value,)))

    def left_out(self) -> Iterator[tuple[str, str, str, str]]:
        """(set, id, reason, detail) of every row that no set has."""
        query = "SELECT fate.name, id, reason, detail FROM fate JOIN offered USING (number) WHERE reason <> ''"
        yield from self._base.execute(f"{query} ORDER BY fate.name, rank, id")

    def _read(self, query: str, name: SetName, *values: str) -> Iterator[Offered]:
        columns = "id, kind, source_seed, value, number"
        for row in self._base.execute(query.format(columns), (name.value, *values)):
            yield Offered(name, *row)


def _rank(name: str) -> str:
    return hashlib.sha256(f"rank/{name}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
