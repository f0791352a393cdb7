"""Logs that outlive a kill: JSON lines, appended one system call each, to a file that no other process writes.

A process that is killed in the middle of a write leaves a torn last line; readers pass over it.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel


@lru_cache(maxsize=1)
def _process_name(process: int) -> str:
    return f"{socket.gethostname()}-{process}-{time.time_ns()}.jsonl"  # a process id alone comes back


def own_file(folder: str | Path) -> Path:
    """This process's file in ``folder``: no other process, earlier or at the same time, has the same name."""
    return Path(folder) / _process_name(os.getpid())


def append(path: Path, record: BaseModel) -> None:
    """Write ``record`` as one line in one system call; the folder is made when it is missing.

    Raises:
        OSError: the line could not be written whole.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    line = (record.model_dump_json() + "\n").encode()
    try:
        handle = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, flags, 0o644)
    try:
        if os.write(handle, line) < len(line):  # the disk has become full in the middle of it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(handle)


def files(folder: str | Path) -> list[Path]:
    """The log files in ``folder``, the one written last at the end."""
    return sorted(Path(folder).glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of every line that was written whole."""
    *whole, _torn = path.read_bytes().split(b"\n")
    yield from ((number, line) for number, line in enumerate(whole, 1) if line)
