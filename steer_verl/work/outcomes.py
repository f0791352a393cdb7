"""The final word on every item, as JSON lines in numbered files: written once, in order, and never changed.

A process begins a file of its own, so that a line that a kill has torn is always the last one of its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from steer_verl.errors import DataError, SteerError
from steer_verl.records import append, read_records
from steer_verl.types import Record
from steer_verl.work.step import Kept, Outcome

R = TypeVar("R", bound=Record)

PATTERN = "outcomes-*.jsonl"


class OutcomeLog:
    """Appends to numbered files in a folder that no other process writes to.

    Args:
        folder: of one shard.
        lines_per_file: after so many a new file is begun.
    """

    def __init__(self, folder: Path, lines_per_file: int) -> None:
        self.folder, self.lines_per_file = folder, lines_per_file
        files = outcome_files(folder)
        self._number = int(files[-1].stem.rpartition("-")[2]) + 1 if files else 0
        self._lines = 0

    def append(self, outcome: Outcome) -> None:
        """Write one line.

        Raises:
            SteerError: it could not be written whole, so that the item is not ended.
        """
        if self._lines == self.lines_per_file:
            self._number, self._lines = self._number + 1, 0
        path = self.folder / f"outcomes-{self._number:06d}.jsonl"
        try:
            append(path, outcome)
        except OSError as error:
            raise SteerError(
                f"{path}: cannot be written ({error.strerror}); mend it, the same command goes on"
            ) from None
        self._lines += 1


def outcome_files(folder: Path) -> list[Path]:
    """The files of one shard, in the order in which they were written."""
    return sorted(folder.glob(PATTERN))


def read_shard(folder: Path) -> Iterator[Outcome]:
    """Every outcome of one shard; what cannot be read is passed over, with a warning: that item is worked again.

    Raises:
        DataError: a file holds lines, and not one is an outcome.
    """
    for path in outcome_files(folder):
        yield from read_records(path, Outcome.model_validate_json, needed="an outcome")


def read_outcomes(folder: Path) -> Iterator[Outcome]:
    """Every outcome of a step, shard after shard; ``folder`` is the step's. An unfinished step has some already.

    Raises:
        DataError: as :func:`read_shard`.
    """
    for shard in shard_folders(folder):
        yield from read_shard(shard)


def read_kept(folder: Path, kind: type[R]) -> Iterator[R]:
    """What a step has kept, as records: the next step's items.

    Raises:
        DataError: as :func:`read_shard`, or a value is no such record.
    """
    for outcome in read_outcomes(folder):
        if isinstance(outcome.done, Kept):
            try:
                yield kind.model_validate_json(to_json(outcome.done.value))
            except ValidationError as error:
                what = error.errors()[0]["msg"]
                cure = "it was made by another version; use a new folder"
                raise DataError(f"{folder}: item {outcome.id!r} is no {kind.__name__} ({what}); {cure}") from None


def shard_folders(folder: Path) -> list[Path]:
    """The shards of a step, in order."""
    return sorted(path for path in folder.glob("shard-*") if path.is_dir())
