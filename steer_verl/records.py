"""Files that outlive a kill and a full disk: one that is there whole or not at all, and logs.

A log is JSON lines in a file that no other process writes. A line is appended whole or not at all. What a kill leaves
behind can be torn: readers pass over it, and over whatever else is no record, and warn once a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel

from steer_verl.errors import ConfigError, DataError, disk_error

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_LINE = 64 * 2**20
"""Bytes of the longest line that is read."""

TORN = b" (torn)\n"
"""Ends a torn line that could not be cut away, so that the next line begins anew and the torn one is no JSON."""

_BEGAN = re.compile(r"-\d+-(\d{19,})\.jsonl$")


@lru_cache(maxsize=4096)
def _process_name(process: int, folder: Path) -> str:
    """Host, process and time: a process id alone comes back. Later than every file there, even by a clock set back."""
    latest = max((_began(path) for path in files(folder)), default=0)
    return f"{socket.gethostname()}-{process}-{max(time.time_ns(), latest + 1)}.jsonl"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """A folder's lock, made with the folder; the kernel frees it however this process ends.

    Raises:
        ConfigError: another process holds it.
        SteerError: the folder cannot be made, or not written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise disk_error(error, error.filename or folder, "written") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another run is at work in this folder; wait for its end, or choose another"
            raise ConfigError(f"{folder}: {what}") from None
        except OSError:  # a disk that knows no locks
            logger.warning("%s: the disk has no locks; start no second run in this folder", folder)
        yield


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when its writing ends well; its folder is made when it is missing."""
    if path.is_dir():  # told before the writing, which may take long; and "." has no name to make another of
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with named(path, temporary):
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: Path, instead_of: Path | None = None) -> Iterator[None]:
    """What the system refuses within names a file: a full disk does not say which one it was."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, str(instead_of)):
            error.filename = str(path)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is never seen half-written; half a surrogate pair becomes a question mark.

    Raises:
        SteerError: the disk is full, or cannot be written.
    """
    try:
        with atomic(path) as stream:
            stream.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise disk_error(error, path, "written") from None


def copy_folder(source: Path, to: Path) -> None:
    """Copy a folder, in one step for who looks: it is there whole or not at all. What Python has compiled stays out.

    Raises:
        SteerError: the disk is full, or cannot be written.
    """
    fresh = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        fresh.mkdir(parents=True)
        for path in sorted(source.rglob("*")):  # a folder comes before what is in it
            place = fresh / path.relative_to(source)
            if path.is_dir() and path.name != "__pycache__":
                place.mkdir()
            elif path.is_file() and path.parent.name != "__pycache__":
                shutil.copy2(path, place)
        fresh.rename(to)
    except OSError as error:
        raise disk_error(error, to, "written") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def own_file(folder: str | Path) -> Path:
    """This process's file in ``folder``: no other process, earlier or at the same time, has the same name."""
    return Path(folder) / _process_name(os.getpid(), Path(folder))


def append(path: Path, record: BaseModel) -> int:
    """Write ``record`` as one line, whole or not at all; the folder is made when it is missing.

    Returns:
        The byte of the file at which the line begins; see :func:`lines_at`.

    Raises:
        OSError: the line could not be written whole; the file is as it was.
    """
    line = record.model_dump_json().encode() + b"\n"
    with _LOCK:
        handle = _opened(path)
        try:
            return _append_whole(handle, line)
        finally:
            os.close(handle)


_LOCK = threading.Lock()
"""One append at a time: a failed one is cut away, and must not take another thread's line with it."""


def _fresh_lock() -> None:
    global _LOCK
    _LOCK = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock)  # the parent's may be held, by a thread that the child does not have


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o644)


def _append_whole(handle: int, line: bytes) -> int:
    """Append a line; returns where it begins."""
    end = os.fstat(handle).st_size
    before = TORN if end and os.pread(handle, 1, end - 1) != b"\n" else b""
    rest = memoryview(before + line)
    try:
        while rest:
            written = os.write(handle, rest)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rest = rest[written:]
    except BaseException:  # an interrupt between two writes tears the line as a full disk does
        with contextlib.suppress(OSError):
            os.ftruncate(handle, end)
        raise
    return end + len(before)


def files(folder: str | Path) -> list[Path]:
    """The log files in ``folder``, by the time in their names; those of other names come first, by name.

    File times are not asked: a copy changes them.
    """
    found = (path for path in Path(folder).glob("*.jsonl") if path.is_file())
    return sorted(found, key=lambda path: (_began(path), path.name))


def _began(path: Path) -> int:
    """Nanoseconds since 1970 at which the file's process began it; 0 if its name does not tell."""
    named = _BEGAN.search(path.name)
    return int(named[1]) if named else 0


def read_records(place: str | Path, parse: Callable[[bytes], T], *, needed: str = "") -> Iterator[T]:
    """Every record of a file, or of all files of a folder in their order; what is not there holds none.

    A line that cannot be read (torn, foreign, too deep, longer than :data:`MAX_LINE`) is passed over, with one warning
    for its file.

    Args:
        place: file or folder.
        parse: makes a record of a line, and raises for what is none.
        needed: what a line must be, such as "an outcome"; empty: a file without a single record is no error.

    Raises:
        DataError: ``needed`` is given, and a file has lines of which not one is a record.
    """
    place = Path(place)
    for path in [place] if place.is_file() else files(place):
        yield from (record for _, record in records_at(path, parse, needed=needed))


def records_at(path: Path, parse: Callable[[bytes], T], *, needed: str = "") -> Iterator[tuple[int, T]]:
    """(byte at which its line begins, record) of every record of a file; see :func:`read_records`."""
    read = first = unread = torn = 0
    for number, (offset, line, whole) in enumerate(_lines(path), 1):
        if not line:
            continue
        try:
            if not whole:
                raise ValueError("torn or too long")
            record = parse(line)
        except Exception:  # whatever a foreign line makes of a parser
            first, unread, torn = first or number, unread + 1, torn + (not whole)
            continue
        read += 1
        yield offset, record
    if needed and not read and unread > torn:
        raise DataError(
            f"{path}:{first}: not {needed}, nor is any other line; put the file back as it was, or take it away"
        )
    if unread:
        _warn(path, first, unread)


@lru_cache(maxsize=1024)
def _warn(path: Path, first: int, unread: int) -> None:
    """Tell it once, however often the file is read."""
    lines = (
        f"line {first} cannot be read and is"
        if unread == 1
        else f"{unread} lines, the first {first}, cannot be read and are"
    )
    logger.warning("%s: %s passed over: torn by a kill or a full disk, or written by something else", path, lines)


def lines_at(path: Path) -> Iterator[tuple[int, bytes]]:
    """(byte at which it begins, line) of every line that was written whole."""
    yield from ((offset, line) for offset, line, whole in _lines(path) if line and whole)


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(byte at which it begins, line without the space around it, whether it is whole); a line too long is cut."""
    with path.open("rb") as file:
        offset = 0
        while line := file.readline(MAX_LINE + 1):
            yield offset, line.strip(), line.endswith(b"\n")
            offset, rest = offset + len(line), line
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE)
                offset += len(rest)
