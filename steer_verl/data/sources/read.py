"""Sources -> seeds: every row of every file ends as seeds or as an account of what is wrong with it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from steer_verl.data.jsonl import check_json
from steer_verl.data.seed import SourceSeed, seed_id
from steer_verl.data.sources.hub import hub_tables, is_saved, saved_tables
from steer_verl.data.sources.images import SourceImages
from steer_verl.data.sources.questions import clean_answer, clean_question, plain_text
from steer_verl.data.sources.registry import SETS, form_of, other_set
from steer_verl.data.sources.sets import KEY, BadRow, Draft, Form, Refused, Row, is_empty
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.data.sources.tables import Table, file_tables, tables_in
from steer_verl.data.stages.facts import Facts
from steer_verl.errors import DataError
from steer_verl.text import one_line

MAX_NAME_CHARS = 300
FILE_NAME, SPLIT = "file_name", "split"
"""Columns by which the tables of image folders name their images, and rows tell which split they are of."""
_TWICE = "an earlier row asks the same about the same pixels", "its seed has what this one adds"

Found = tuple[str, int, SourceSeed | Refused]
"""File, row, and what the row became: there may be several of one row."""


def read_source(
    settings: SourceSettings, images: SourceImages, tick: Callable[[float], None] = lambda part: None
) -> Iterator[SourceSeed | BadRow]:
    """The seeds of a source in the order of its rows, and an account of every row that makes none.

    Rows of one source and licence that say the same (the same question about the same pixels) are one seed, with what
    any of them says; all but the first are told as ``duplicate``. So the whole source is read before the first seed is
    given; memory does not grow with it. ``tick`` is told at each row how much of the source is read, from 0 to 1.

    Raises:
        DataError: the source is not there, its columns are another set's, or no row of it makes a seed.
    """
    found = _Merged(settings.limit)
    for file, row, item in _Source(settings, images, tick).read():
        if not found.add(item, file, row):
            break
    if not found.seeds:
        first = f"the first of {found.bad} faults: {found.first}" if found.bad else "no row was found"
        raise DataError(f"{settings.place}: no seed; looked for {SETS[settings.set].wanted}; {first}")
    yield from found


def source_files(settings: SourceSettings) -> list[Path]:
    """The files that rows may be read from, in order; none for a dataset that is downloaded by its name."""
    place = settings.path or Path(settings.dataset or "")
    if not place.is_dir():
        return [] if settings.path is None else [place]
    if settings.path is None or is_saved(place):
        return [file for file in sorted(place.rglob("*")) if file.is_file()]
    return tables_in(place, settings.files)


class _Source:
    """Reads all tables of a source."""

    def __init__(self, settings: SourceSettings, images: SourceImages, tick: Callable[[float], None]) -> None:
        self.settings, self.images, self.tick = settings, images, tick
        self.source = SETS[settings.set]
        self.taken = 0
        self.splits: set[str] = set()
        """Rows of the split that is asked for; the splits that are not."""

    def read(self) -> Iterator[Found]:
        """Seeds and faults, in the order of the rows; then the tables of another form."""
        fitting, asked, splits, others = 0, self.settings.split, self.splits, dict[str, set[str]]()
        tables = self._tables()
        count = len(tables) if isinstance(tables, list) else 1
        for place, table in enumerate(tables):
            try:
                heads = table.heads()
                columns = set(chain(*heads)) - {KEY}
                form = form_of(self.source, [_with_image(dict.fromkeys(head)) for head in heads])
                if form is None:
                    others[table.name] = columns
                    continue
                has = form.splits or (table.origin.split,)
                if asked in (None, *has) or SPLIT in columns:
                    fitting += 1
                    table.origin = replace(table.origin, split=asked or table.origin.split)
                    yield from self._rows(form, table, min(place, count - 1), count)
                else:
                    splits.update(has)
            except Refused as refused:
                yield table.name, 0, refused
        if (splits and not self.taken) or (others and not fitting):
            raise self._nothing_fits(others, splits)
        for name, columns in others.items():
            hint = f"not read as {self.source.name}"
            yield name, 0, Refused("other_form", f"columns {_listed(columns)}", hint)
        for file in self._packed():
            yield str(file), 0, Refused("other_form", "packed", "unpack it, if its rows are to be read")

    def _packed(self) -> list[Path]:
        folder = self.settings.path
        return [] if folder is None or not folder.is_dir() else tables_in(folder, self.settings.files, packed=True)

    def _tables(self) -> Iterable[Table]:
        settings = self.settings
        if settings.dataset is not None:
            return hub_tables(settings.dataset, settings.config, settings.split, settings.images)
        if settings.path is not None and is_saved(settings.path):
            return saved_tables(settings.path, settings.config, settings.split, settings.images)
        return file_tables(settings, self.source.images)

    def _rows(self, form: Form, table: Table, place: int, count: int) -> Iterator[Found]:
        asked = self.settings.split
        for number, row in table.rows({*form.columns, *form.more, FILE_NAME, SPLIT}):
            self.tick((place + table.part) / count)
            if isinstance(row, Refused):
                yield table.name, number, row
            elif asked is not None and not is_empty(row.get(SPLIT)) and row[SPLIT] != asked:
                self.splits.add(str(row[SPLIT]))
            else:
                self.taken += 1
                for item in self._row(form, table, number, Row(_tidy(_with_image(row), form))):
                    yield table.name, number, item

    def _row(self, form: Form, table: Table, number: int, row: Row) -> Iterator[SourceSeed | Refused]:
        try:
            drafts = list(form.read(row, table.origin))
        except Refused as refused:
            yield refused
            return
        if not drafts:
            yield Refused("field", "no question in it")
        for draft in drafts:
            unsafe = self.settings.unsafe if draft.unsafe is None else draft.unsafe
            try:
                yield self._seed(draft, unsafe, table, number)
            except Refused as refused:
                refused.unsafe = unsafe
                yield refused

    def _seed(self, draft: Draft, unsafe: bool | None, table: Table, number: int) -> SourceSeed:
        question = clean_question(draft.question, self.settings.max_chars)
        names = (draft.source, self.settings.name or "", self.source.name)
        source = next(name.strip() for name in names if name.strip())
        license = one_line(draft.license or self.settings.license or self.source.license)
        _check_names(source, draft.source_id, license)
        clean = {"answer": clean_answer(draft.answer), "category": plain_text(draft.category), "unsafe": unsafe}
        try:
            check_json(draft.facts)
        except ValueError as error:
            what, hint = error.args
            raise Refused("field", f"facts: {what}", hint) from None
        if taken := sorted(draft.facts.keys() & Facts.model_fields.keys()):
            raise Refused("field", f"facts: {taken[0]}: the build writes a fact of this name", "give it another name")
        image = self.images.find(draft.image, table.root, table.places, f"{table.name} row {number}")
        if image is None and self.source.pictured:
            raise Refused("image", "image: none", "every row of this set has one: fetch the file again")
        clean |= {"question": question, "image": image, "source": source, "license": license}
        return SourceSeed(id=seed_id(question, image), **(vars(draft) | clean))

    def _nothing_fits(self, others: dict[str, set[str]], splits: set[str]) -> DataError:
        wanted, hint = f"columns {self.source.wanted}", "give the set's own files, or change `set`"
        found = "; ".join(f"{name}: columns {_listed(columns)}" for name, columns in [*others.items()][:5])
        if splits:
            wanted, found, hint = f"the split {self.settings.split}", f"splits {_listed(splits)}", "check `split`"
        elif like := other_set(_with_image(dict.fromkeys(columns)) for columns in others.values()):
            hint = f"it looks like {like.title}: set: {like.name}"
        elif surplus := set(chain(*(form.surplus(head) for form in self.source.forms for head in others.values()))):
            hint = f"take out {_listed(surplus)}, or change `set`"
        return DataError(f"{self.settings.place}: {self.source.name}: looked for {wanted}; found {found}; {hint}")


class _Merged:
    """Seeds and bad rows of one source in the order of their rows, in a file that nobody else sees; ``limit`` seeds."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.seeds = self.bad = 0
        self.first: BadRow | None = None
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode=OFF")
        self._base.execute("CREATE TABLE row (number INTEGER PRIMARY KEY, key TEXT UNIQUE, value TEXT)")

    def add(self, item: SourceSeed | Refused, file: str, row: int) -> bool:
        """Whether there was room for it. A seed that is there already takes over what the new one adds."""
        if isinstance(item, SourceSeed):
            key = json.dumps([item.id, item.source, item.license])  # what one may not be trained on stays apart
            known = self._base.execute("SELECT value FROM row WHERE key = ?", (key,)).fetchone()
            if known is None and self.seeds == self.limit:
                return False
            if known is None:
                self.seeds += 1
                self._base.execute("INSERT INTO row (key, value) VALUES (?, ?)", (key, item.model_dump_json()))
                return True
            both = merged(SourceSeed.model_validate_json(known[0]), item).model_dump_json()
            self._base.execute("UPDATE row SET value = ? WHERE key = ?", (both, key))
            item = Refused("duplicate", *_TWICE)
        bad = item.at(file, row)
        self.bad, self.first = self.bad + 1, self.first or bad
        self._base.execute("INSERT INTO row (value) VALUES (?)", (bad.model_dump_json(),))
        return True

    def __iter__(self) -> Iterator[SourceSeed | BadRow]:
        for key, value in self._base.execute("SELECT key, value FROM row ORDER BY number"):
            yield BadRow.model_validate_json(value) if key is None else SourceSeed.model_validate_json(value)


def merged(first: SourceSeed, other: SourceSeed) -> SourceSeed:
    """A seed with what another row of the same content adds; what one of them calls unsafe is unsafe."""
    update: dict[str, Any] = {name: getattr(first, name) or getattr(other, name) for name in ("category", "source_id")}
    if not first.answer:
        update |= {"answer": other.answer, "choice": other.choice}
    said = [unsafe for unsafe in (first.unsafe, other.unsafe) if unsafe is not None]
    update |= {"unsafe": any(said) if said else None, "facts": {**other.facts, **first.facts}}
    return first.model_copy(update=update)


def _with_image(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an image folder's table names its image by another column."""
    return {**row, "image": row[FILE_NAME]} if FILE_NAME in row and is_empty(row.get("image")) else row


def _tidy(row: dict[str, Any], form: Form) -> dict[str, Any]:
    """A row in which what says nothing is left out: an image, and any column that the form does not need."""
    optional = {*row} - {*form.columns} | {"image"}
    return {name: None if name in optional and is_empty(value) else value for name, value in row.items()}


def _listed(names: set[str]) -> str:
    return one_line(", ".join(sorted(names)[:20])) or "none"


def _check_names(source: str, source_id: str, license: str) -> None:
    if not license:
        raise Refused("field", "license: missing", "write it into the row, or `license` into the source's settings")
    for field, name in (("source", source), ("source_id", source_id)):
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            what = f"{field} {name[:40]!r}: not a name"
            raise Refused("field", what, f"use at most {MAX_NAME_CHARS} printable characters")
