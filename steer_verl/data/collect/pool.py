"""All rows of a build in one place, until it is known which of them are its seeds and what each is for.

Why a row that made a seed is left out:

===================  ==================================================================================================
``licence``          it may not be trained on, and its source does not serve the benchmark alone
``not_claimed``      no share of the three kinds of dialogue takes it
``duplicate``        an earlier row has the same words about the same pixels
``near_duplicate``   nearly the same words about the same pixels
``benchmark_image``  its image, or one that is nearly the same, is in a source that serves the benchmark alone
===================  ==================================================================================================

Sources that serve the benchmark alone come first, wherever they stand: what is the same as a row of theirs is left out.
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
CREATE TABLE row (number INTEGER PRIMARY KEY, bench INTEGER, id TEXT, kept INTEGER, value TEXT);
CREATE INDEX by_id ON row (id) WHERE kept;
CREATE TABLE bench (cluster TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_COUNTS_AS = {"unsafe": True, "safe": False, "leave_out": None}


class Pool:
    """The rows of a build; ``clusters`` have the image of every seed."""

    def __init__(
        self, splits: SplitSettings, kinds: ShareSettings, duplicates: DuplicateSettings, clusters: Clusters
    ) -> None:
        self.splits, self.kinds, self.clusters = splits, kinds, clusters
        self._index = DuplicateIndex(duplicates)
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.executescript(_TABLES)

    def add(self, item: SourceSeed | BadRow) -> None:
        """A row of a source."""
        kept = None if isinstance(item, SourceSeed) else False
        row = (item.source in self.splits.bench_sources, item.id, kept, item.model_dump_json())
        self._base.execute("INSERT INTO row (bench, id, kept, value) VALUES (?, ?, ?, ?)", row)

    def deal(self) -> Iterator[SourceSeed | BadRow]:
        """Every row in the order of adding: a seed with its cluster, kind and set, or why it is none."""
        for bench in (1, 0):
            for number, _, value in self._rows(f"kept IS NULL AND bench = {bench}"):
                seed = SourceSeed.model_validate_json(value)
                decided = self._decided(seed.model_copy(update={"kind": kind_of(seed, self.kinds)}))
                row = (isinstance(decided, SourceSeed), decided.model_dump_json(), number)
                self._base.execute("UPDATE row SET kept = ?, value = ? WHERE number = ?", row)
        for _, _, value in self._rows("kept AND bench"):
            if image := SourceSeed.model_validate_json(value).image:
                self._base.execute("INSERT OR IGNORE INTO bench VALUES (?)", (self.clusters.name(image),))
        for _, kept, value in self._rows("1"):
            yield self._dealt(SourceSeed.model_validate_json(value)) if kept else BadRow.model_validate_json(value)

    def _decided(self, seed: SourceSeed) -> SourceSeed | BadRow:
        """The seed, if it is kept."""
        item = Item(seed.id, seed.question, Path(seed.image).stem if seed.image else "", by_line=True)
        trained = self.splits.sft + self.splits.rl > 0 and seed.source not in self.splits.bench_sources
        if trained and forbids_training(seed.source, seed.license):
            return _left_out(seed, "licence", f"its terms forbid to train on it ({seed.source}, {seed.license})")
        if seed.kind is None:
            return _left_out(seed, "not_claimed", "no share of `kinds` takes it")
        if self._base.execute("SELECT 1 FROM row WHERE id = ? AND kept", (seed.id,)).fetchone():
            return _left_out(
                seed, "duplicate", "a row of an earlier source has the same question about the same pixels"
            )
        if like := self._index.first_like(item):
            return _left_out(seed, "near_duplicate", f"nearly the same as {like}")
        self._index.add(item)
        return seed

    def _dealt(self, seed: SourceSeed) -> SourceSeed | BadRow:
        cluster = self.clusters.name(seed.image) if seed.image else seed.id
        side = self.splits.side(drawn("side", cluster))
        if seed.source in self.splits.bench_sources:
            side = SetName.BENCH
        elif self._base.execute("SELECT 1 FROM bench WHERE cluster = ?", (cluster,)).fetchone():
            what = "its image, or one that is nearly the same, is in a source under splits.bench_sources"
            return _left_out(seed, "benchmark_image", what)
        return seed.model_copy(update={"cluster": cluster, "side": side})

    def _rows(self, where: str) -> Iterator[tuple[int, int, str]]:
        """Number, ``kept`` and value of rows, in their order; rows may be changed meanwhile."""
        query = f"SELECT number, kept, value FROM row WHERE number > ? AND {where} ORDER BY number LIMIT {PAGE}"
        last = 0
        while page := self._base.execute(query, (last,)).fetchall():
            yield from page
            last = page[-1][0]


def kind_of(seed: SourceSeed, shares: ShareSettings) -> DialogueKind | None:
    """The kind of dialogue that is to be made of a seed, if any: by its id and what its source says of it alone."""
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
