"""The final word on every item, as JSON lines in numbered files below the shards of a step's folder.

Lines are written once and in order. A process begins a file of its own, so that a line that a kill has torn is always
the last one of its file. What cannot be read is passed over, with a warning, and its item is worked again; a file of
which not one line is an outcome is a ``DataError``. An unfinished step has some outcomes already.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from steer_verl.errors import DataError, disk_error
from steer_verl.records import append, records_at
from steer_verl.work.step import Outcome


class Pointer(NamedTuple):
    """Where an outcome lies, for whoever holds many of them; good until the step is worked again."""

    path: Path
    offset: int


def outcome_files(folder: Path) -> list[Path]:
    """The files of a step or of one of its shards, in the order in which they were written."""
    return sorted([*folder.glob("outcomes-*.jsonl"), *folder.glob("shard-*/outcomes-*.jsonl")])


def read_outcomes(folder: Path) -> Iterator[Outcome]:
    """Every outcome of a step, shard after shard."""
    return (outcome for outcome, _ in outcome_pointers(folder))


def outcome_pointers(folder: Path) -> Iterator[tuple[Outcome, Pointer]]:
    """Every outcome of a step or of a shard with where it lies, so that :func:`read_at` finds it again."""
    for path in outcome_files(folder):
        for offset, outcome in records_at(path, Outcome.model_validate_json, needed="an outcome"):
            yield outcome, Pointer(path, offset)


def read_at(pointer: Pointer) -> Outcome:
    """The outcome at a place, or a ``DataError`` when there is none any more."""
    try:
        with pointer.path.open("rb") as file:
            file.seek(pointer.offset)
            return Outcome.model_validate_json(file.readline())
    except (OSError, ValidationError):
        raise DataError(f"{pointer.path}: was changed while it was read; run the same command again") from None


def shard_of(item: str, shards: int) -> int:
    """The shard of an item, the same in every process and run."""
    return int.from_bytes(hashlib.blake2b(item.encode(), digest_size=8).digest(), "big") % shards


class OutcomeLog:
    """Appends to the next numbered file of a shard's folder, to which no other process writes."""

    def __init__(self, folder: Path) -> None:
        files = outcome_files(folder)
        number = int(files[-1].stem.rpartition("-")[2]) + 1 if files else 0
        self.path = folder / f"outcomes-{number:06d}.jsonl"

    def append(self, outcome: Outcome) -> None:
        """Write one line; if it cannot be written whole, that is a ``SteerError``, and the item is not ended."""
        with _told(self.path):
            append(self.path, outcome)


def take_out(folder: Path, which: Callable[[Outcome], bool], aside: str) -> list[str]:
    """Move some outcomes of a shard, each file at once, into the file ``aside``; the ids of those that went.

    A kill on the way leaves an outcome in both places; then it goes again. So ``aside`` may hold one twice.
    """
    gone: list[str] = []
    for path in outcome_files(folder):
        draft = path.with_name(f".{path.name}")
        with _told(path), draft.open("wb") as rest:
            for _, outcome in records_at(path, Outcome.model_validate_json, needed="an outcome"):
                if which(outcome):
                    append(folder / aside, outcome)
                    gone.append(outcome.id)
                else:
                    rest.write(outcome.model_dump_json().encode() + b"\n")
        os.replace(draft, path)
    return gone


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, "written") from None
