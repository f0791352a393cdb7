"""The transcript log: one JSON line per played dialogue, appended by whichever process played it.

Lines are :class:`steer_verl.types.Trajectory` records. When a resumed run plays a dialogue again, the later line
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_verl.records import append, own_file, read_records
from steer_verl.types import Trajectory, UserTurn


class TranscriptLog:
    """Appends to a file of this process's own in ``folder``."""

    def __init__(self, folder: str | Path) -> None:
        self.path = own_file(folder)

    def append(self, trajectory: Trajectory) -> None:
        """Write one line."""
        append(self.path, trajectory)


def read_transcripts(folder: str | Path) -> Iterator[Trajectory]:
    """Every complete dialogue under ``folder``, the last line of each.

    verl draws a new uid for a step that is played again, so a dialogue is told by its step, seed and rollout; as two
    files may have seeds of one id, by its source and its opening too. A line that cannot be read is passed over, with a
    warning.
    """
    latest: dict[tuple[object, ...], dict[UserTurn | None, Trajectory]] = {}
    for record in read_records(folder, Trajectory.model_validate_json):
        place = (record.step, record.validate_run, record.seed_id, record.source, record.rollout)
        found = latest.setdefault(place, {})
        found.pop(None, None)  # one that was lost before its opening, and is played again
        found[record.turns[0].user if record.turns else None] = record
    for found in latest.values():
        yield from found.values()
