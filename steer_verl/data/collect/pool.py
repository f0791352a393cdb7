"""All rows of a build in one place, until it is known which of them are its seeds and what each is for.

Why a row that made a seed is left out:

===================  ==================================================================================================
``licence``          it may not be trained on, and its source does not serve the benchmark alone
``not_claimed``      no share of the three kinds of dialogue takes it
``duplicate``        another row has the same words about the same pixels
``near_duplicate``   nearly the same words about the same pixels
``benchmark_image``  its image, or one that is nearly the same, is in a source that serves the benchmark alone
===================  ==================================================================================================

Sources that serve the benchmark alone, by their name in the settings or in their rows, come first, wherever they stand:
what is the same as a row of theirs, or shows its image, is left out, even if the benchmark does not take that row.
The rows lie in a file that nobody else sees; memory stays the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from steer_verl.data.collect.clusters import Clusters
from steer_verl.data.drawn import drawn
from steer_verl.data.duplicates import DuplicateIndex, Item
from steer_verl.data.licences import forbids_training
from steer_verl.data.seed import SetName, SourceSeed
from steer_verl.data.sources.sets import BadRow
from steer_verl.data.sources.settings import DuplicateSettings, ShareSettings, SplitSettings
from steer_verl.text import one_line
from steer_verl.types import DialogueKind

PAGE = 500
_TABLES = """
PRAGMA journal_mode=OFF; PRAGMA cache_size=-16384;
CREATE TABLE row (
    number INTEGER PRIMARY KEY, bench INTEGER, id TEXT, unsafe INTEGER, claimed INTEGER, kept INTEGER, value TEXT
);
CREATE INDEX by_id ON row (id);
CREATE TABLE bench (cluster TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_COUNTS_AS = {"unsafe": True, "safe": False, "leave_out": None}


class Pool:
    """The rows of a build; ``clusters`` have the image of every seed."""

    def __init__(
        self, splits: SplitSettings, kinds: ShareSettings, duplicates: DuplicateSettings, clusters: Clusters
    ) -> None:
        self.splits, self.kinds, self.clusters = splits, kinds, clusters
        self.missing = set(splits.bench_sources)
        """Sources for the benchmark alone of which no seed was added."""
        self._index = DuplicateIndex(duplicates)
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.executescript(_TABLES)

    def add(self, item: SourceSeed | BadRow, name: str = "") -> None:
        """A row of a source, which the settings call by this name."""
        unsafe, kept = (item.unsafe, None) if isinstance(item, SourceSeed) else (None, False)
        names = {name, item.source} & set(self.splits.bench_sources)
        row = (bool(names), item.id, unsafe, kept, item.model_dump_json())
        self._base.execute("INSERT INTO row (bench, id, unsafe, kept, value) VALUES (?, ?, ?, ?, ?)", row)
        if kept is None:
            self.missing -= names

    def deal(self) -> Iterator[SourceSeed | BadRow]:
        """Every row in the order of adding: a seed with its cluster, kind and set, or why it is none."""
        for number, _, _, value in self._rows("kept IS NULL"):
            self._label(number, SourceSeed.model_validate_json(value))
        for where in ("bench AND claimed", "bench", "1"):
            for number, bench, _, value in self._rows(f"kept IS NULL AND {where}"):
                decided = self._decided(SourceSeed.model_validate_json(value), bench)
                values = (isinstance(decided, SourceSeed), decided.model_dump_json(), number)
                self._base.execute("UPDATE row SET kept = ?, value = ? WHERE number = ?", values)
        for _, bench, kept, value in self._rows("1"):
            row = (SourceSeed if kept else BadRow).model_validate_json(value)
            yield self._dealt(row, bench) if isinstance(row, SourceSeed) else row

    def _label(self, number: int, seed: SourceSeed) -> None:
        """What one row of a content calls unsafe is unsafe; that and the content decide the kind."""
        (unsafe,) = self._base.execute("SELECT max(unsafe) FROM row WHERE id = ?", (seed.id,)).fetchone()
        seed = seed.model_copy(update={"unsafe": None if unsafe is None else bool(unsafe)})
        seed = seed.model_copy(update={"kind": kind_of(seed, self.kinds)})
        row = (seed.kind is not None, seed.model_dump_json(), number)
        self._base.execute("UPDATE row SET claimed = ?, value = ? WHERE number = ?", row)

    def _decided(self, seed: SourceSeed, bench: bool) -> SourceSeed | BadRow:
        """The seed, if it is kept; what the benchmark alone may ask and show is noted even if it is not."""
        item = Item(seed.id, seed.question, Path(seed.image).stem if seed.image else "", by_line=True)
        if bench and seed.image:
            self._base.execute("INSERT OR IGNORE INTO bench VALUES (?)", (self.clusters.name(seed.image),))
        if not bench and self.splits.sft + self.splits.rl > 0 and forbids_training(seed.source, seed.license):
            return _left_out(seed, "licence", f"its terms forbid to train on it ({seed.source}, {seed.license})")
        if seed.kind is None:
            if bench:
                self._index.add(item)
            return _left_out(seed, "not_claimed", "no share of `kinds` takes it")
        same = "SELECT 1 FROM row WHERE id = ? AND (kept OR bench AND kept = 0)"
        if self._base.execute(same, (seed.id,)).fetchone():
            return _left_out(seed, "duplicate", "another row has the same question about the same pixels")
        if like := self._index.first_like(item):
            return _left_out(seed, "near_duplicate", f"nearly the same as {like}")
        self._index.add(item)
        return seed

    def _dealt(self, seed: SourceSeed, bench: bool) -> SourceSeed | BadRow:
        cluster = self.clusters.name(seed.image) if seed.image else seed.id
        side = SetName.BENCH if bench else self.splits.side(drawn("side", cluster))
        if not bench and self._base.execute("SELECT 1 FROM bench WHERE cluster = ?", (cluster,)).fetchone():
            what = "its image, or one that is nearly the same, is in a source under splits.bench_sources"
            return _left_out(seed, "benchmark_image", what)
        return seed.model_copy(update={"cluster": cluster, "side": side})

    def _rows(self, where: str) -> Iterator[tuple[int, bool, int | None, str]]:
        """Number, ``bench``, ``kept`` and value of rows, in their order; rows may be changed meanwhile."""
        query = f"SELECT number, bench, kept, value FROM row WHERE number > ? AND {where} ORDER BY number LIMIT {PAGE}"
        last = 0
        while page := self._base.execute(query, (last,)).fetchall():
            yield from page
            last = page[-1][0]


def kind_of(seed: SourceSeed, shares: ShareSettings) -> DialogueKind | None:
    """The kind of dialogue that is to be made of a seed, if any: by its id and what is said of it alone."""
    unsafe = seed.unsafe if seed.unsafe is not None else _COUNTS_AS[shares.unknown]
    lot = drawn("kind", seed.id)
    if unsafe is None:
        return None
    if not unsafe:
        return DialogueKind.BENIGN if lot < shares.benign else None
    if drawn("benign", seed.id) < shares.benign_of_unsafe:
        return DialogueKind.BENIGN
    if lot < shares.obfuscated:
        return DialogueKind.OBFUSCATED
    return DialogueKind.RED_TEAM if lot >= 1 - shares.red_team else None  # from the other end: both may grow


def _left_out(seed: SourceSeed, reason: str, what: str) -> BadRow:
    return BadRow(reason=reason, what=one_line(what), id=seed.id, source=seed.source, source_id=seed.source_id)
