"""The transcript log: one JSON line per played dialogue, appended by whichever process played it.

Lines are :class:`steer_verl.types.Trajectory` records. A process killed in the middle of a write leaves a torn
last line, which readers skip. When a resumed run plays a dialogue again, the later line counts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from steer_verl.types import Trajectory


class TranscriptLog:
    """Appends to ``folder/<host>-<pid>.jsonl``, so that no two processes share a file."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, trajectory: Trajectory) -> None:
        """Write one line in one system call."""
        line = trajectory.model_dump_json() + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def read_transcripts(folder: str | Path) -> Iterator[Trajectory]:
    """Every complete dialogue under ``folder``, the last line of each (step, validate_run, uid, rollout).

    Raises:
        ValueError: a line that is not the file's last cannot be read; it names file and line.
    """
    latest: dict[tuple[int, bool, str, int], Trajectory] = {}
    for path in sorted(Path(folder).glob("*.jsonl"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        for record in _read(path):
            latest[(record.step, record.validate_run, record.uid, record.rollout)] = record
    yield from latest.values()


def _read(path: Path) -> Iterator[Trajectory]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield Trajectory.model_validate_json(line)
        except ValidationError as error:
            if number == len(lines):  # no newline after it: torn by a killed process
                return
            raise ValueError(f"{path}:{number}: not a transcript line: {error.errors()[0]['msg']}") from None
