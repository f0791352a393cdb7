"""The state of one shard: the items that it has met, what each has cost, and every reply that was made for them.

The outcomes (:mod:`~steer_verl.work.outcomes`) are the truth of what has ended. The table beside them is made again
from them, unless it was closed in order and they are as they were then; so it does not matter on which side of a line
a kill came. All of it lies in one SQLite file. A process that is killed loses nothing; a machine that loses power may
lose the last moments, and what was paid for in them is paid again.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.types import Usage
from steer_verl.work.outcomes import OutcomeLog, outcome_files, outcome_pointers, take_out
from steer_verl.work.step import Outcome

STATE = "state.sqlite"
LOCK_WAIT = 10.0
"""Seconds until a process that has just ended must have let go of the file."""
GONE, RETRIED, EARLIER = "gone.jsonl", "retried.jsonl", "earlier-{}.jsonl"
"""Where outcomes lie that count no more; see :mod:`steer_verl.work`."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS item (
    id TEXT PRIMARY KEY,
    here INTEGER NOT NULL DEFAULT 1,  -- it was in the source when that was last read
    ended INTEGER NOT NULL DEFAULT 0, content TEXT NOT NULL DEFAULT '', stage TEXT, reason TEXT,
    given_up INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0,
    usage TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reply (item TEXT, name TEXT, value BLOB NOT NULL, PRIMARY KEY (item, name));
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TEMP TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE changed (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_FACT = "SELECT value FROM fact WHERE name = ?"
_NOTHING = Usage()


class Counts(NamedTuple):
    """What lies in a shard, of the items that are in the source."""

    whole: str | None
    """The source that was last read to its end; ``None`` while one is being read."""
    ended: list[tuple[str, str | None, bool, int, float]]
    """(stage, reason, given up, items, seconds); without a reason they were kept."""
    undone: int
    usage: Usage


class Store:
    """Opened by one process at a time, as a context manager; a folder that is missing is made.

    Raises:
        ConfigError: another process has it open.
        DataError: the file or an outcome cannot be read, or an item has ended twice.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / STATE
        with self._told():
            self._db = sqlite3.connect(self.path, timeout=LOCK_WAIT, isolation_level=None)
        self._in_order = False
        """The table says what the outcomes say."""
        try:
            # Exclusive: no second run in the same folder, and no shared memory, which network disks do not have.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "cache_size=-256"):
                self._do(f"PRAGMA {pragma}")
            with self._told():
                self._db.executescript(_SCHEMA)
            if self._one(_FACT, "closed") != self._files():
                self._replay()
            self._do("DELETE FROM fact WHERE name = 'closed'")
        except BaseException:
            self._db.close()
            raise
        self._in_order = True
        self._log = OutcomeLog(folder)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._in_order:
            with contextlib.suppress(SteerError):
                self._do("INSERT INTO fact VALUES ('closed', ?)", self._files())
        self._db.close()

    # ----- reading the source

    def compare(self, item: str, content: str) -> None:
        """An item of the source holds this: note it if it has ended when it held something else."""
        changed = "SELECT id FROM item WHERE id = ? AND ended AND content != ?"
        self._do(f"INSERT OR IGNORE INTO changed {changed}", item, content)

    def take_out_changed(self) -> None:
        """Take out the outcomes of the items that were noted."""
        if self._one("SELECT COUNT(*) FROM changed"):
            self.take_out(lambda outcome: bool(self._one("SELECT 1 FROM changed WHERE id = ?", outcome.id)), GONE)
            self._do("DELETE FROM changed")

    def begin_reading(self) -> None:
        """The source is about to be read from its beginning."""
        self._do("DELETE FROM fact WHERE name = 'whole'")
        self._do("DELETE FROM seen")

    def meet(self, item: str) -> bool:
        """An item has been read from the source, for the first time in this reading: whether work is left on it."""
        if not self._do("INSERT OR IGNORE INTO seen VALUES (?)", item).rowcount:
            hint = "ids must be unique; mend the source, and the same command goes on"
            raise DataError(f"{self.folder.parent}: the id {item!r} stands twice among the items; {hint}")
        new = "INSERT INTO item (id, usage) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET here = 1 WHERE NOT here"
        self._do(new, item, _NOTHING.model_dump_json())
        return not self._one("SELECT ended FROM item WHERE id = ?", item)

    def read_whole(self, source: str) -> None:
        """The source has been read to its end; items that were not in it count no more."""
        with self._transaction():
            self._do("UPDATE item SET here = id IN (SELECT id FROM seen)")
            self._do("INSERT INTO fact VALUES ('whole', ?)", source)

    # ----- an item at work

    def reply(self, item: str, name: str) -> bytes | None:
        """The JSON of a kept reply."""
        kept = self._one("SELECT value FROM reply WHERE item = ? AND name = ?", item, name)
        return None if kept is None else zlib.decompress(kept)

    def keep(self, item: str, name: str, value: bytes) -> None:
        """Keep a reply's JSON; it is on disk when this returns."""
        self._do("INSERT OR REPLACE INTO reply VALUES (?, ?, ?)", item, name, zlib.compress(value))

    def spend(self, item: str, usage: Usage) -> None:
        """Put a cost on an item's account."""
        if usage != _NOTHING:
            total = (self.usage(item) + usage).model_dump_json()
            on = "INSERT INTO item (id, usage) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET usage = excluded.usage"
            self._do(on, item, total)

    def usage(self, item: str) -> Usage:
        """What has been spent on an item, in all runs."""
        spent = self._one("SELECT usage FROM item WHERE id = ?", item)
        return _NOTHING if spent is None else Usage.model_validate_json(spent)

    def finish(self, outcome: Outcome) -> None:
        """The final word on an item: a line, and then what the table knows of it."""
        with self._transaction():
            self._log.append(outcome)
            self._end(outcome)

    # ----- all of them

    def counts(self) -> Counts:
        """What lies here, once the outcomes of items that have left the source are taken out."""
        left = {row[0] for row in self._do("SELECT id FROM item WHERE ended AND NOT here")}
        if left:
            self.take_out(lambda outcome: outcome.id in left, GONE)
        alike = "stage, reason, given_up"
        ended = self._do(f"SELECT {alike}, COUNT(*), SUM(seconds) FROM item WHERE here AND ended GROUP BY {alike}")
        undone = self._one("SELECT COUNT(*) FROM item WHERE here AND NOT ended")
        spent = (Usage.model_validate_json(row[0]) for row in self._do("SELECT usage FROM item WHERE here"))
        return Counts(self._one(_FACT, "whole"), ended.fetchall(), undone, sum(spent, _NOTHING))

    def take_out(self, which: Callable[[Outcome], bool], aside: str) -> None:
        """Move outcomes into the file ``aside``: their items are to be worked again. Their replies stay."""
        with self._transaction():
            for item in take_out(self.folder, which, aside):
                self._do("UPDATE item SET ended = 0 WHERE id = ?", item)

    def _replay(self) -> None:
        """Make the table again from the outcomes."""
        with self._transaction():
            self._do("UPDATE item SET ended = 0 WHERE ended")
            for outcome, _ in outcome_pointers(self.folder):
                if self._one("SELECT ended FROM item WHERE id = ?", outcome.id):
                    hint = "a file was copied into it; take it away, or use a new folder"
                    raise DataError(f"{self.folder}: the item {outcome.id!r} ended twice; {hint}")
                self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        done = outcome.done
        values = ("", None, False) if done.status == "kept" else (done.stage, done.reason, done.given_up)
        end = (
            "INSERT INTO item (id, ended, content, stage, reason, given_up, seconds, usage) "
            "VALUES (?, 1, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET ended = 1, content = excluded.content, stage = excluded.stage, "
            "reason = excluded.reason, given_up = excluded.given_up, seconds = excluded.seconds"
        )
        self._do(end, outcome.id, outcome.content, *values, outcome.seconds, outcome.usage.model_dump_json())

    # ----- the database

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """A change of the table, and perhaps of the outcomes: when it fails, they may be in order no more."""
        before, self._in_order = self._in_order, False
        self._do("BEGIN")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it already
                self._do("ROLLBACK")
            raise
        self._do("COMMIT")
        self._in_order = before

    def _files(self) -> str:
        """What changes with the outcomes."""
        stats = ((path.name, path.stat()) for path in outcome_files(self.folder))
        return json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])

    def _one(self, query: str, *values: Any) -> Any:
        """The first value of the first row; ``None`` without a row."""
        row = self._do(query, *values).fetchone()
        return row[0] if row else None

    def _do(self, query: str, *values: Any) -> sqlite3.Cursor:
        with self._told():
            return self._db.execute(query, values)

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
            hint = "remove it: what has ended is in the files beside it, what was paid for the rest is paid again"
            raise DataError(f"{self.path}: {error}; {hint}") from None
