"""The transcript log: one JSON line per played dialogue, appended by whichever process played it.

Lines are :class:`steer_verl.types.Trajectory` records. When a resumed run plays a dialogue again, the later line
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from steer_verl.append_log import append, files, own_file, whole_lines
from steer_verl.types import Trajectory


class TranscriptLog:
    """Appends to a file of this process's own in ``folder``."""

    def __init__(self, folder: str | Path) -> None:
        self.path = own_file(folder)

    def append(self, trajectory: Trajectory) -> None:
        """Write one line."""
        append(self.path, trajectory)


def read_transcripts(folder: str | Path) -> Iterator[Trajectory]:
    """Every complete dialogue under ``folder``, the last line of each (step, validate_run, seed, rollout).

    verl draws a new uid for a step that is played again, so the seed tells which dialogue it is.

    Raises:
        ValueError: a whole line cannot be read; it names file and line.
    """
    latest: dict[tuple[int, bool, str, int], Trajectory] = {}
    for path in files(folder):
        for record in _read(path):
            latest[(record.step, record.validate_run, record.seed_id, record.rollout)] = record
    yield from latest.values()


def _read(path: Path) -> Iterator[Trajectory]:
    for number, line in whole_lines(path):
        try:
            yield Trajectory.model_validate_json(line)
        except ValidationError as error:
            raise ValueError(f"{path}:{number}: not a transcript line: {error.errors()[0]['msg']}") from None
