"""Sources -> seeds: every row of every file ends as seeds or as an account of what is wrong with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from steer_verl.data.sources.bad import BadRow, Refused
from steer_verl.data.sources.hub import hub_tables, is_saved, saved_tables
from steer_verl.data.sources.pictures import PictureStore, picture_of
from steer_verl.data.sources.questions import clean_answer, clean_question, plain_text
from steer_verl.data.sources.registry import SETS, form_of
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.sources.sets import Draft, Form, Row
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.data.sources.tables import Table, file_tables
from steer_verl.errors import DataError

MAX_ID_CHARS = 300


def read_sources(sources: Iterable[SourceSettings], pictures: Path) -> Iterator[SourceSeed | BadRow]:
    """The seeds of a build, source by source, and an account of every row that makes none.

    Files are read as they are asked for; memory does not grow with them.

    Args:
        sources: in order; of two rows with the same id the first one counts.
        pictures: folder for the pictures (see :class:`~steer_verl.data.sources.pictures.PictureStore`).

    Raises:
        DataError: a source is not there, or its columns are another set's.
    """
    store, ids = PictureStore(pictures), Ids()
    for source in sources:
        yield from read_source(source, store, ids)


def read_source(settings: SourceSettings, store: PictureStore, ids: Ids) -> Iterator[SourceSeed | BadRow]:
    """One source's part of :func:`read_sources`.

    Raises:
        DataError: see there.
    """
    found = (item for table in _tables(settings) for item in _Reader(settings, table, store, ids).read())
    yield from _limited(found, settings.limit)


def read_table(table: Table, settings: SourceSettings, store: PictureStore, ids: Ids) -> Iterator[SourceSeed | BadRow]:
    """The same for a table of your own making, whose rows may hold opened pictures.

    Raises:
        DataError: its columns are another set's.
    """
    yield from _limited(_Reader(settings, table, store, ids).read(), settings.limit)


class Ids:
    """The ids seen so far and where, in a temporary file that nobody else sees."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode=OFF")
        self._base.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, place TEXT) WITHOUT ROWID")

    def first(self, name: str, place: str) -> str | None:
        """Where this id was seen before; otherwise it is noted."""
        if self._base.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (name, place)).rowcount:
            return None
        return str(self._base.execute("SELECT place FROM seen WHERE id = ?", (name,)).fetchone()[0])


def _limited(found: Iterator[SourceSeed | BadRow], limit: int | None) -> Iterator[SourceSeed | BadRow]:
    seeds = 0
    for item in found:
        yield item
        seeds += isinstance(item, SourceSeed)
        if seeds == limit:
            return


def _tables(settings: SourceSettings) -> Iterable[Table]:
    if settings.dataset is not None:
        return hub_tables(settings.dataset, settings.config, settings.split)
    path = settings.path or Path()
    if path.is_dir() and is_saved(path):
        return saved_tables(path, settings.config, settings.split)
    try:
        return file_tables(path, settings.config, settings.split, settings.files)
    except Refused as refused:
        raise DataError(f"{path}: {refused.what}; {refused.cure}") from None


class _Reader:
    """Reads one table."""

    def __init__(self, settings: SourceSettings, table: Table, store: PictureStore, ids: Ids) -> None:
        self.settings, self.table, self.store, self.ids = settings, table, store, ids
        self.source = SETS[settings.set]
        self.root = settings.images or table.root

    def read(self) -> Iterator[SourceSeed | BadRow]:
        """Seeds and bad rows, in the order of the rows."""
        try:
            columns = self.table.columns()
        except Refused as refused:
            yield refused.at(self.table.name, 0)
            return
        form = form_of(self.source, columns, self.table.name)
        for number, row in self.table.rows(form.known):
            yield from self._row(form, number, row)

    def _row(self, form: Form, number: int, row: Row | Refused) -> Iterator[SourceSeed | BadRow]:
        if isinstance(row, Refused):
            yield row.at(self.table.name, number)
            return
        try:
            drafts = list(form.read(row, self.table.origin))
        except Refused as refused:
            yield refused.at(self.table.name, number)
            return
        if not drafts:
            yield Refused("field", "no question in it", "leave the row out, or mend it").at(self.table.name, number)
        for draft in drafts:
            try:
                yield self._seed(draft, number)
            except Refused as refused:
                yield refused.at(self.table.name, number)

    def _seed(self, draft: Draft, number: int) -> SourceSeed:
        source = draft.source or self.settings.name or self.source.name
        source_id = draft.source_id or f"{self.table.part}/{number}"
        seed = SourceSeed(
            id=f"{source}:{source_id}",
            question=clean_question(draft.question, self.settings.max_chars),
            unsafe=self.settings.unsafe if draft.unsafe is None else draft.unsafe,
            category=plain_text(draft.category),
            answer=clean_answer(draft.answer),
            source=source,
            source_id=source_id,
            license=draft.license or self.settings.license or self.source.license,
            facts=draft.facts,
        )
        _check_names(seed)
        image = picture_of(draft.image, self.root, f"{self.table.name} row {number}")
        # last, so that a row that is refused for another fault does not stand in the way of a good one
        if first := self.ids.first(seed.id, f"{self.table.name} row {number}"):
            raise Refused("duplicate_id", f"id {seed.id} is {first}'s already", "give each row its own id")
        return seed if image is None else seed.model_copy(update={"image": self.store.add(image)})


def _check_names(seed: SourceSeed) -> None:
    if not seed.license.strip():
        raise Refused("field", "license: missing", "write it into the row, or `license` into the source's settings")
    if len(seed.id) > MAX_ID_CHARS or not seed.id.isprintable() or not seed.source_id.strip():
        raise Refused("field", f"id {seed.id[:40]!r}: not a name", f"use at most {MAX_ID_CHARS} printable characters")
