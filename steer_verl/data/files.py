"""Data files that somebody else wrote, opened so that reading them ends and fails in one line."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from steer_verl.errors import DataError

BATCH = 64
"""Rows of a parquet file in memory at once."""


class TornFile(DataError):
    """A parquet file that cannot be read to its end; ``row`` is the first one that is lost, from 1."""

    def __init__(self, file: Path, row: int, reason: str) -> None:
        self.row, self.what, self.hint = row, f"cannot be read from here on ({reason})", "fetch or write the file again"
        super().__init__(f"{file}: row {row}: {self.what}; {self.hint}")


def regular(path: Path) -> Path:
    """The path of a file that ends: reading a pipe or a device may not.

    Raises:
        DataError: there is none.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}); check the path") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: a folder, a pipe or a device; give a regular file")
    return path


def columns_of(file: Path) -> list[str]:
    """The names of a parquet file's columns.

    Raises:
        DataError: it is none.
    """
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(regular(file)).names)
    except DataError:
        raise
    except Exception as error:  # hostile files make the reader raise almost anything
        raise DataError(f"{file}: not a readable parquet file ({_first_line(error)}); write it again") from None


def parquet_rows(file: Path, needed: Collection[str], wanted: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, of any types; few in memory at once.

    Args:
        file: regular or not.
        needed: columns that must be there.
        wanted: further columns that are read where they are there.

    Raises:
        DataError: it cannot be opened, or lacks a column.
        TornFile: from some row on it cannot be read.
    """
    import pyarrow.parquet as pq

    names, number = columns_of(file), 0
    if missing := sorted(set(needed) - set(names)):
        raise DataError(f"{file}: no column {missing[0]}; write the file with `steer data convert`")
    columns = [name for name in dict.fromkeys(names) if name in needed or name in wanted]
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(BATCH, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield row
    except Exception as error:  # as above
        raise TornFile(file, number + 1, _first_line(error)) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
