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
from contextlib import closing
from pathlib import Path

from steer_verl.data.clusters import Clusters
from steer_verl.data.drawn import drawn
from steer_verl.data.duplicates import DuplicateIndex, Item
from steer_verl.data.licences import forbids_training
from steer_verl.data.seed import SetName, SourceSeed
from steer_verl.data.sources.sets import BadRow
from steer_verl.data.sources.settings import DuplicateSettings, ShareSettings, SplitSettings
from steer_verl.text import one_line
from steer_verl.types import DialogueKind, Record

PAGE = 500
_TABLES = """
CREATE TABLE row (number INTEGER PRIMARY KEY, bench INTEGER, id TEXT, image TEXT, kept INTEGER, value TEXT);
CREATE INDEX by_id ON row (id) WHERE kept;
CREATE TABLE bench (cluster TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_COUNTS_AS = {"unsafe": True, "safe": False, "leave_out": None}


class Pool:
    """The rows of a build.

    Args:
        splits: which sources serve the benchmark alone, and how the seeds of the others are dealt to sets.
    """

    def __init__(self, splits: SplitSettings) -> None:
        self.splits = splits
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.executescript(f"PRAGMA journal_mode=OFF; PRAGMA cache_size=-16384; {_TABLES}")

    def add(self, item: SourceSeed | BadRow) -> None:
        """A row of a source."""
        bench = item.source in self.splits.bench_sources
        image: str | None = None
        kept: int | None = 0
        if isinstance(item, SourceSeed):
            image, kept = item.image, None
        row = (bench, item.id, image, kept, item.model_dump_json())
        self._base.execute("INSERT INTO row (bench, id, image, kept, value) VALUES (?, ?, ?, ?, ?)", row)

    def deal(
        self, kinds: ShareSettings, duplicates: DuplicateSettings, clusters: Clusters
    ) -> Iterator[SourceSeed | BadRow]:
        """Every row in the order of adding: a seed with its cluster, kind and set, or why it is none.

        Args:
            kinds: how seeds are dealt to kinds.
            duplicates: what counts as one.
            clusters: have the image of every seed.
        """
        with closing(DuplicateIndex(None, duplicates)) as index:
            for bench in (1, 0):
                for number, _, value in self._rows(f"kept IS NULL AND bench = {bench}"):
                    self._decide(number, SourceSeed.model_validate_json(value), kinds, index)
        for _, _, image in self._rows("kept AND bench AND image IS NOT NULL", "image"):
            self._base.execute("INSERT OR IGNORE INTO bench VALUES (?)", (clusters.name(image),))
        for _, kept, value in self._rows("1"):
            yield self._dealt(SourceSeed.model_validate_json(value), clusters) if kept else _bad(value)

    def _decide(self, number: int, seed: SourceSeed, kinds: ShareSettings, index: DuplicateIndex) -> None:
        """Keep a row, with its kind, or leave it out."""
        kind = kind_of(seed, kinds)
        item = Item(seed.id, seed.question, Path(seed.image).stem if seed.image else "", by_line=True)
        value: Record = seed.model_copy(update={"kind": kind})
        if why := self._why_not(seed, kind, item, index):
            value = _left_out(seed, *why)
        else:
            index.add(item)
        row = (not why, value.model_dump_json(), number)
        self._base.execute("UPDATE row SET kept = ?, value = ? WHERE number = ?", row)

    def _why_not(
        self, seed: SourceSeed, kind: DialogueKind | None, item: Item, index: DuplicateIndex
    ) -> tuple[str, str] | None:
        trained = self.splits.sft + self.splits.rl > 0 and seed.source not in self.splits.bench_sources
        if trained and forbids_training(seed.source, seed.license):
            return "licence", f"its terms forbid to train on it ({seed.source}, {seed.license})"
        if kind is None:
            return "not_claimed", "no share of `kinds` takes it"
        if self._base.execute("SELECT 1 FROM row WHERE id = ? AND kept", (seed.id,)).fetchone():
            return "duplicate", "a row of an earlier source has the same question about the same pixels"
        if like := index.first_like(item):
            return "near_duplicate", f"nearly the same as {like}"
        return None

    def _dealt(self, seed: SourceSeed, clusters: Clusters) -> SourceSeed | BadRow:
        cluster = clusters.name(seed.image) if seed.image else seed.id
        side = self.splits.side(drawn("side", cluster))
        if seed.source in self.splits.bench_sources:
            side = SetName.BENCH
        elif self._base.execute("SELECT 1 FROM bench WHERE cluster = ?", (cluster,)).fetchone():
            what = "its image, or one that is nearly the same, is in a source under splits.bench_sources"
            return _left_out(seed, "benchmark_image", what)
        return seed.model_copy(update={"cluster": cluster, "side": side})

    def _rows(self, where: str, column: str = "value") -> Iterator[tuple[int, int, str]]:
        """Number, ``kept`` and a column of rows, in their order; rows may be changed meanwhile."""
        query = f"SELECT number, kept, {column} FROM row WHERE number > ? AND {where} ORDER BY number LIMIT {PAGE}"
        last = 0
        while page := self._base.execute(query, (last,)).fetchall():
            yield from page
            last = page[-1][0]


def kind_of(seed: SourceSeed, shares: ShareSettings) -> DialogueKind | None:
    """The kind of dialogue that is to be made of a seed; ``None``: none.

    It depends on the seed's id and on what its source says of it, and on nothing else: not on other seeds, their order
    or the machine.
    """
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


def _bad(value: str) -> BadRow:
    return BadRow.model_validate_json(value)
