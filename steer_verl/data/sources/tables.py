"""Rows as they lie in files: parquet, JSONL, a JSON list. One row, or one small batch, in memory at a time.

What cannot be read is told and passed over: a row, a part of a shard, or a whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from steer_verl.data.jsonl import Line, read_jsonl
from steer_verl.data.sources.bad import Refused
from steer_verl.data.sources.json_list import read_json_list
from steer_verl.data.sources.sets import Origin, Row

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 16
"""Rows read at once: a picture of a row may have up to 64 MB."""

Read = tuple[int, Row | Refused]
"""Number of a row, from 1, and the row or why it cannot be read."""


class Table(Protocol):
    """Rows with the same columns: a file, or a split of a dataset."""

    name: str
    """For people."""
    part: str
    """Where its rows are within the set; ids of rows that have none begin with it."""
    origin: Origin
    root: Path
    """Folder of the pictures that its rows name."""

    def columns(self) -> list[str]:
        """Names of the columns. Raises :class:`Refused` if nothing can be read."""
        ...

    def rows(self, wanted: Iterable[str]) -> Iterator[Read]:
        """Every row, at least with these of its columns."""
        ...


class JsonTable:
    """A JSONL file or a JSON list; the columns are those of the first good row."""

    def __init__(
        self, path: Path, part: str, origin: Origin, root: Path, read: Callable[[Path], Iterator[Line]]
    ) -> None:
        self.path, self.name, self.part, self.origin, self.root = path, str(path), part, origin, root
        self._read = read

    def columns(self) -> list[str]:
        """See :class:`Table`."""
        faults = []
        for line in self._read(self.path):
            if line.value is not None:
                return list(line.value)
            faults.append(f"row {line.number}: {line.what}")
            if len(faults) == 100:
                break
        raise Refused("file", f"no row can be read ({faults[0] if faults else 'it is empty'})", "fetch the file again")

    def rows(self, wanted: Iterable[str]) -> Iterator[Read]:
        """See :class:`Table`."""
        for line in self._read(self.path):
            yield line.number, Refused("line", line.what, line.cure) if line.value is None else line.value


class ParquetTable:
    """A parquet file."""

    def __init__(self, path: Path, part: str, origin: Origin, root: Path) -> None:
        self.path, self.name, self.part, self.origin, self.root = path, str(path), part, origin, root

    def columns(self) -> list[str]:
        """See :class:`Table`."""
        with self._open() as file:
            return list(file.schema_arrow.names)

    def rows(self, wanted: Iterable[str]) -> Iterator[Read]:
        """See :class:`Table`. A part that is broken is told in one line, and the next part is read."""
        with self._open() as file:
            names = [name for name in file.schema_arrow.names if name in set(wanted)]
            before = 0
            for group in range(file.num_row_groups):
                size, number = file.metadata.row_group(group).num_rows, before
                try:
                    for batch in file.iter_batches(BATCH, row_groups=[group], columns=names):
                        for row in records(batch):
                            number += 1
                            yield number, row
                except _arrow_errors() as error:
                    lost = f"rows {number + 1} to {before + size} cannot be read ({_first_line(error)})"
                    yield number + 1, Refused("file", lost, "fetch the file again")
                before += size

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self.path, buffer_size=2**20)
        except _arrow_errors() as error:
            fault = f"not a readable parquet file ({_first_line(error)})"
            raise Refused("file", fault, "fetch the file again") from None
        with file:
            yield file


def file_tables(path: Path, config: str | None, split: str | None, pattern: str | None) -> list[Table]:
    """The tables of a file, or of a folder.

    Args:
        path: a parquet, JSONL or JSON file, or a folder of them.
        config: of a folder, only files whose own folder has this name.
        split: of a folder, only files whose name begins with it, before a ``-`` or the suffix.
        pattern: of a folder, only files that match it.

    Raises:
        Refused: there is no such file.
    """
    if not path.is_dir():
        return [_table(path, path.stem, Origin(config or path.parent.name, split or _split(path)), path.parent)]
    files = _files(path, pattern)
    taken = [
        file
        for file in files
        if (config is None or file.parent.name == config) and (split is None or _split(file) == split)
    ]
    if not taken:
        found = ", ".join(sorted({f"{file.parent.name}/{_split(file)}" for file in files})[:20]) or "none"
        raise Refused("file", f"no parquet, JSONL or JSON file is asked for; found: {found}", "check config and split")
    return [
        _table(file, str(file.relative_to(path).with_suffix("")), Origin(file.parent.name, _split(file)), path)
        for file in taken
    ]


def records(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any] | Refused]:
    """The rows of a batch as objects; a row whose text is no UTF-8 is told, not the batch."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_record(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _record(batch: pa.RecordBatch | pa.Table) -> dict[str, Any] | Refused:
    try:
        return dict(batch.to_pylist()[0])
    except UnicodeDecodeError:
        return Refused("line", "a text that is not UTF-8", "save the texts as UTF-8")


_BOOKKEEPING = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_SUFFIXES = (".parquet", ".jsonl", ".json")


def _files(folder: Path, pattern: str | None) -> list[Path]:
    """The data files of a folder, in the order of their names: all of one kind, the most exact one there is."""
    found = [
        file
        for file in sorted(folder.glob(pattern or "**/*"))
        if file.suffix in _SUFFIXES
        and file.name not in _BOOKKEEPING
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    ]
    kinds = [[file for file in found if file.suffix == suffix] for suffix in _SUFFIXES]
    return found if pattern else next((files for files in kinds if files), [])


def _table(path: Path, part: str, origin: Origin, root: Path) -> Table:
    if not path.is_file():
        raise Refused("file", "no such file", "check the path")
    if path.suffix == ".parquet":
        return ParquetTable(path, part, origin, root)
    return JsonTable(path, part, origin, root, read_json_list if path.suffix == ".json" else read_jsonl)


def _split(file: Path) -> str:
    return file.stem.partition("-")[0]


def _arrow_errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (pa.ArrowException, OSError)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
