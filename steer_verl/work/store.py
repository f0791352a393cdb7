"""The state of one shard: which items it has met, how they ended, and what was paid for those that have not.

The outcomes (:mod:`~steer_verl.work.outcomes`) are the truth of what has ended; the table beside them is made
again from them at every start, so it does not matter on which side of a line a kill came. Results of unfinished items
lie in one SQLite file. A process that is killed loses nothing; a machine that loses power may lose the last moments,
which are then paid for again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.types import Usage
from steer_verl.work.outcomes import OutcomeLog, read_shard
from steer_verl.work.step import Outcome

STATE = "state.sqlite"
LOCK_WAIT = 10.0
"""Seconds until a process that has just ended must have let go of the file."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS item (id TEXT PRIMARY KEY, ended INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS result (item TEXT, name TEXT, value TEXT, usage TEXT NOT NULL, PRIMARY KEY (item, name));
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class Store:
    """Opened by one process at a time.

    Args:
        folder: of the shard; it is made when it is missing.
        lines_per_file: of the outcomes.

    Raises:
        ConfigError: another process has it open.
        DataError: the file or an outcome cannot be read, or an item has ended twice.
    """

    def __init__(self, folder: Path, lines_per_file: int = 1000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / STATE
        self._db = sqlite3.connect(self.path, timeout=LOCK_WAIT, isolation_level=None)
        try:
            with self._told():
                # Exclusive: no second run in the same folder, and no shared memory, which network disks do not have.
                self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.executescript(_SCHEMA)
                self._replay()
        except BaseException:
            self._db.close()
            raise
        self._log = OutcomeLog(folder, lines_per_file)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def meet(self, item: str) -> bool:
        """An item has been read from the source: whether there is work left on it.

        Raises:
            DataError: this process has met it before.
        """
        with self._told():
            if not self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (item,)).rowcount:
                cure = "ids must be unique; mend the source, and the same command goes on"
                raise DataError(f"{self.folder.parent}: the id {item!r} stands twice among the items; {cure}")
            row = self._db.execute("SELECT ended FROM item WHERE id = ?", (item,)).fetchone()
            if row is None:
                self._db.execute("INSERT INTO item VALUES (?, 0)", (item,))
            return row is None or not row[0]

    def begin_reading(self) -> None:
        """The source is about to be read from its beginning."""
        with self._told():
            self._db.execute("DELETE FROM fact WHERE name = 'whole'")

    def read_whole(self) -> None:
        """The source has been read to its end."""
        with self._told():
            self._db.execute("INSERT OR IGNORE INTO fact VALUES ('whole')")

    def result(self, item: str, name: str) -> str | None:
        """The JSON of a kept result."""
        with self._told():
            row = self._db.execute("SELECT value FROM result WHERE item = ? AND name = ?", (item, name)).fetchone()
            return row[0] if row else None

    def keep(self, item: str, name: str, value: str | None, usage: Usage) -> None:
        """Keep a result, or with ``None`` only what was spent in vain; costs under the same name add up."""
        with self._told():
            row = self._db.execute("SELECT usage FROM result WHERE item = ? AND name = ?", (item, name)).fetchone()
            total = usage + Usage.model_validate_json(row[0]) if row else usage
            self._db.execute(
                "INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", (item, name, value, total.model_dump_json())
            )

    def usage(self, item: str) -> Usage:
        """What has been spent on an item that has not ended."""
        return self._sum("SELECT usage FROM result WHERE item = ?", item)

    def open_usage(self) -> Usage:
        """What has been spent on all items that have not ended."""
        return self._sum("SELECT usage FROM result")

    def finish(self, outcome: Outcome) -> None:
        """The final word on an item: a line, and then its results are forgotten."""
        self._log.append(outcome)
        with self._told(), self._transaction():
            self._db.execute("UPDATE item SET ended = 1 WHERE id = ?", (outcome.id,))
            self._db.execute("DELETE FROM result WHERE item = ?", (outcome.id,))

    def counts(self) -> tuple[int, int, bool]:
        """(items met in all runs, those of them that have not ended, whether the source was read to its end)."""
        with self._told():
            met, ended = self._db.execute("SELECT COUNT(*), COALESCE(SUM(ended), 0) FROM item").fetchone()
            whole = self._db.execute("SELECT COUNT(*) FROM fact WHERE name = 'whole'").fetchone()[0]
            return met, met - ended, bool(whole)

    def _replay(self) -> None:
        """Make the table again from the outcomes."""
        with self._transaction():
            self._db.execute("UPDATE item SET ended = 0 WHERE ended")
            for outcome in read_shard(self.folder):
                row = self._db.execute("SELECT ended FROM item WHERE id = ?", (outcome.id,)).fetchone()
                if row and row[0]:
                    cure = "a file was copied into it; take it away, or use a new folder"
                    raise DataError(f"{self.folder}: the item {outcome.id!r} ended twice; {cure}")
                self._db.execute("INSERT OR REPLACE INTO item VALUES (?, 1)", (outcome.id,))
            self._db.execute("DELETE FROM result WHERE item IN (SELECT id FROM item WHERE ended)")

    def _sum(self, query: str, *values: str) -> Usage:
        with self._told():
            rows = self._db.execute(query, values)
            return sum((Usage.model_validate_json(row[0]) for row in rows), Usage())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what the database's errors mean here."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ConfigError(f"{self.folder}: another run is at work in this folder; wait for its end") from None
            raise SteerError(f"{self.path}: {error}; mend it, and the same command goes on") from None
        except sqlite3.DatabaseError as error:
            cure = "remove it: what has ended is in the files beside it, what was paid for the rest is paid again"
            raise DataError(f"{self.path}: {error}; {cure}") from None
