"""Rows as they lie in files: parquet, JSONL, JSON, CSV. One row, or one small batch, in memory at a time; JSON whole.

What cannot be read is told and passed over: a row, a part of a shard, or a whole file.
"""

from __future__ import annotations

import csv
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.data.jsonl import MAX_LINE_BYTES, NoRows, read_json, read_jsonl, regular_file
from steer_verl.data.sources.sets import KEY, Origin, Refused
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.errors import DataError
from steer_verl.text import one_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 16
"""Rows read at once: an image of a row may have up to 64 MB."""
HEADS = 100
"""Rows of a JSON file that are looked at to know its columns: the first one may be bad."""
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z")
DELIMITERS = ",\t;"
AGAIN = "fetch the file again"
_BOOKKEEPING = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


@dataclass
class Table(ABC):
    """Rows of one file, or of one split of a dataset."""

    name: str
    """For people; of a file, its path."""
    origin: Origin
    root: Path
    """Folder that no path of an image may leave."""
    places: tuple[str, ...] = ("",)
    """Folders below ``root`` in which the paths of images may begin; the first where an image is there counts."""
    part: float = field(default=0.0, init=False)
    """How much of it is read, from 0 to 1."""

    def heads(self) -> list[set[str]]:
        """Columns: the table's, or those of its first good rows. Raises :class:`Refused` if nothing can be read."""
        first = list(islice(self.rows(set()), HEADS))
        if found := [set(row) for _, row in first if isinstance(row, dict)]:
            return found
        faults = [(f"row {number}: {row.what}", row.hint) for number, row in first if isinstance(row, Refused)]
        why, hint = faults[0] if faults else ("it is empty", AGAIN)
        raise Refused("file", f"no row can be read ({why})", hint)

    @abstractmethod
    def rows(self, wanted: set[str]) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        """Number, from 1, and every row, at least with these of its columns, or why it cannot be read."""


class JsonTable(Table):
    """A JSONL or JSON file. A row that stands under a key has it as the column :data:`KEY`."""

    def rows(self, wanted: set[str]) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        path = Path(self.name)
        size, read = max(path.stat().st_size, 1), 0
        try:
            for line in (read_json if path.suffix.lower() == ".json" else read_jsonl)(path):
                read += line.size
                self.part = read / size
                if line.value is None:
                    yield line.number, Refused("line", line.what, line.hint)
                else:
                    yield line.number, line.value if line.key is None else {**line.value, KEY: line.key}
        except DataError as error:
            what, _, hint = str(error).removeprefix(f"{path}: ").rpartition("; ")
            raise Refused("other_form" if isinstance(error, NoRows) else "file", what, hint) from None


class CsvTable(Table):
    """A CSV file with a header, in UTF-8, whose values commas, tabs or semicolons part. Values are texts, and an empty
    one is none; rows are counted after the header. Spaces before a value, and columns without a name, as pandas writes
    its index, mean nothing."""

    ended = False
    """Whether the last line was read. A row that still took it has a quote that nothing closes: what should have been
    rows is in it."""

    def heads(self) -> list[set[str]]:
        with self._open() as reader:
            return [set(reader.fieldnames or ()) - {""}]

    def rows(self, wanted: set[str]) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        with self._open() as reader:
            number = 0
            try:
                for number, row in enumerate(reader, start=1):
                    open_quote = Refused("line", "a quote that is not closed: all lines after it are in it", "close it")
                    yield number, open_quote if self.ended else self._row(row)
            except csv.Error as error:  # where the next row begins is not known any more
                yield number + 1, Refused("file", f"from here on it cannot be read ({error})", AGAIN)

    def _row(self, row: dict[str | Any, Any]) -> dict[str, Any] | Refused:
        if None in row or None in row.values():
            return Refused("line", "not as many values as columns", "put quotes around a text with commas or line ends")
        if any("\udc80" <= char <= "\udcff" for text in row.values() if not text.isascii() for char in text):
            return Refused("line", "not UTF-8", "save the file as UTF-8")
        return {name: text or None for name, text in row.items() if name}

    def _lines(self) -> Iterator[str]:
        with open(self.name, "rb") as stream:
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                if len(raw) > MAX_LINE_BYTES:
                    raise csv.Error(f"a line longer than {MAX_LINE_BYTES} bytes")
                # what is no UTF-8 is kept as surrogates, so that it is the fault of its own row only
                yield raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        self.ended = True

    @contextmanager
    def _open(self) -> Iterator[csv.DictReader[str]]:
        csv.field_size_limit(MAX_LINE_BYTES)
        with _told("not readable CSV"):
            self.ended, lines = False, self._lines()
            first = next(lines, "")
            if "\0" in first:
                raise Refused("file", "not UTF-8", "save the file as UTF-8")
            delimiter = max(DELIMITERS, key=first.count)
            reader = csv.DictReader(chain([first], lines), delimiter=delimiter, skipinitialspace=True)
            names = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            named = [name for name in names if name]
            if not named or len(set(named)) < len(named):
                raise Refused("file", "its first line does not name the columns, each once", "write them there")
            yield reader


class ParquetTable(Table):
    """A parquet file. A part that is broken is told in one line, and the next part is read."""

    def heads(self) -> list[set[str]]:
        with self._open() as file:
            return [set(file.schema_arrow.names)]

    def rows(self, wanted: set[str]) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        with self._open() as file:
            names = [name for name in file.schema_arrow.names if name in wanted]
            before, total = 0, max(file.metadata.num_rows, 1)
            for group in range(file.num_row_groups):
                size, number = file.metadata.row_group(group).num_rows, before
                try:
                    for batch in file.iter_batches(BATCH, row_groups=[group], columns=names):
                        for row in records(batch):
                            number += 1
                            yield number, row
                        self.part = number / total
                except Exception as error:  # a reader of hostile bytes raises almost anything
                    lost = f"rows {number + 1} to {before + size} cannot be read ({_first_line(error)})"
                    yield number + 1, Refused("file", lost, AGAIN)
                before += size

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        import pyarrow.parquet as pq

        with _told("not a readable parquet file"), pq.ParquetFile(self.name, buffer_size=2**20) as file:
            yield file


def file_tables(settings: SourceSettings, images: str) -> list[Table]:
    """The tables of a file, or of a folder: of the config that is asked for, and of every split.

    ``images`` is the folder that the set's authors put its images in, beside the table or beside the table's folder.
    """
    path, config = settings.path or Path(), settings.config
    if path.suffix.lower() in PACKED and not path.is_dir():
        raise DataError(f"{path}: packed; unpack it, and give the file or folder that was in it")
    if not path.is_dir():
        folder, taken = path.absolute().parent, [regular_file(path)]
        origins = [Origin(config or folder.name, settings.split or _split(path), path.stem)]
    else:
        folder, files = path.absolute(), tables_in(path, settings.files)
        taken = [file for file in files if config in (None, file.parent.name)]
        origins = [Origin(file.parent.name, _split(file), file.stem) for file in taken]
        if not taken:
            there = {f"{file.parent.name}/{_split(file)}" for file in files}
            there |= {f"{file.name}, which must be unpacked" for file in tables_in(path, settings.files, packed=True)}
            found = one_line("; ".join(sorted(there)[:20])) or "none"
            what = f"no {', '.join(SUFFIXES)} file is asked for; found: {found}"
            raise DataError(f"{path}: {what}; check config and files")
    # the folder that has the images' folder in it: the table's, or the one above; else the table's
    beside = next((place for place in (folder, folder.parent) if images and (place / images).is_dir()), folder)
    root = (settings.images or beside).absolute()
    kinds: dict[str, type[Table]] = {".parquet": ParquetTable, ".csv": CsvTable, ".tsv": CsvTable}
    tables = []
    for file, origin in zip(taken, origins, strict=True):
        own = file.absolute().parent
        below = own.relative_to(root) if own.is_relative_to(root) else Path()
        places = tuple(str(place) for place in (below, *below.parents))  # the nearest first
        places = places[::-1] if settings.images else places
        tables.append(kinds.get(file.suffix.lower(), JsonTable)(str(file), origin, root, places))
    return tables


def tables_in(folder: Path, pattern: str | None, packed: bool = False) -> list[Path]:
    """The data files of a folder in the order of their names, or those that are packed and cannot be read; raises
    DataError for a pattern that leads out of it."""
    try:
        if pattern is not None and ".." in Path(pattern).parts:
            raise ValueError("it leads out of the folder")
        found = sorted(_below(folder) if pattern is None else folder.glob(pattern))
    except (ValueError, NotImplementedError):  # also an empty one, an absolute one, and **.json
        what = f"files: {pattern!r} is no pattern of files below it"
        raise DataError(f"{folder}: {what}; write one as data/*.json or **/*.json") from None
    return [
        file
        for file in found
        if ((file.suffix.lower() in PACKED and Path(file.stem).suffix.lower()) or file.suffix.lower()) in SUFFIXES
        and (file.suffix.lower() in PACKED) == packed
        and file.name not in _BOOKKEEPING
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    ]


def _below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those in it, linked ones too; each folder once, wherever its links lead."""
    seen = set[str]()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(place, name) for name in files)


def records(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any] | Refused]:
    """The rows of a batch as objects; NaN, as pandas writes it, is no value. A row with a value that Python has no form
    for, or with more text than a line of JSONL may have, is told, not the batch."""
    try:
        rows = [{name: None if value != value else value for name, value in row.items()} for row in batch.to_pylist()]
    except Exception as error:  # a date of the year 300000 too
        if batch.num_rows > 1:
            return [row for at in range(batch.num_rows) for row in records(batch.slice(at, 1))]
        what = "a text that is not UTF-8" if isinstance(error, UnicodeError) else "a value that cannot be read"
        return [Refused("line", what, "save texts as UTF-8, and dates as texts")]
    # a table of a few kB can hold a text of any length
    what, hint = f"more than {MAX_LINE_BYTES} characters of text", "give paths or bytes, not texts, for images"
    return [Refused("line", what, hint) if _size(row) > MAX_LINE_BYTES else row for row in rows]


def _size(value: Any) -> int:
    """Characters of all texts in a row, and how many values there are. Bytes are images."""
    if isinstance(value, str):
        return 1 + len(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, inner))


def _split(file: Path) -> str:
    """``train`` of train-00000-of-00004 and train_00; ``SD_TYPO`` is a name as it is."""
    return re.sub(r"[._]\d+$", "", file.stem.partition("-")[0])


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Refused:
        raise
    except Exception as error:  # a reader of hostile bytes raises almost anything
        raise Refused("file", f"{what} ({_first_line(error)})", AGAIN) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
