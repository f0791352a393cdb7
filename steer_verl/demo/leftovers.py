"""What a killed run leaves on a machine, and taking exactly that away: processes, Ray's folder, shared memory.

Everything a stage starts carries a token of the run in its environment and lives in the session of the stage's process.
The record of both is on disk before anything heavy starts, so that the next run can clean up after a ``SIGKILL``.
Linux only, like the runtime it serves.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from steer_verl.records import write_whole

TOKEN_ENV = "STEER_DEMO_TOKEN"
SHM = Path("/dev/shm")
SHM_PREFIXES = ("psm_", "sem.mp-")
"""Names that Python's shared_memory and multiprocessing semaphores take."""

GRACE = 8.0
"""Seconds between asking a process to end and ending it."""


@dataclass(frozen=True)
class Claim:
    """What one stage may leave behind."""

    token: str
    session: int
    """Process id of the session leader; 0 before it is started."""
    boot: str
    tmp: str
    """Ray's folder: short, because the path of a Unix socket has at most 107 bytes."""

    def save(self, path: Path) -> None:
        """Write the record atomically."""
        write_whole(path, json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> Claim | None:
        """The record at ``path``, or ``None`` if there is none that can be read."""
        try:
            return Claim(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def claim() -> Claim:
    """A new claim: a token and a short temporary folder."""
    tmp = tempfile.mkdtemp(prefix="steer-", dir="/tmp")
    return Claim(f"{os.getpid()}-{time.time_ns()}", 0, boot_id(), tmp)


def boot_id() -> str:
    """Identity of this boot: process ids of an earlier one mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def clear(left: Claim, shared: AbstractSet[str] = frozenset()) -> None:
    """End the processes of a claim, by id, then remove its folder and its shared memory that nobody maps any more.

    ``shared`` are names that its processes were seen to map (:func:`shared_memory`). An entry that nobody was seen with
    may be another run's, about to be opened: it is left alone.
    """
    if left.boot == boot_id():
        ours = shared | shared_memory(left)
        end_processes(left)
        for name in ours - _mapped(_pids()):
            with suppress(OSError):
                (SHM / name).unlink()
    if Path(left.tmp).name.startswith("steer-"):
        shutil.rmtree(left.tmp, ignore_errors=True)


def end_processes(left: Claim, grace: float = GRACE) -> None:
    """Ask the session leader to end, then everything else that is ours; what stays longer than ``grace`` is killed."""
    if left.session in processes(left):
        _signal([left.session], signal.SIGTERM)
        _wait(lambda: left.session not in processes(left), grace)
    _signal(processes(left), signal.SIGTERM)
    if not _wait(lambda: not processes(left), grace):
        _signal(processes(left), signal.SIGKILL)
        _wait(lambda: not processes(left), grace)


def processes(left: Claim) -> list[int]:
    """Ids of the live processes that carry the token or belong to the session."""
    return [pid for pid in _pids() if _alive_in(pid, left)]


def _alive_in(pid: int, left: Claim) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if stat[0] == "Z" or pid == os.getpid():
            return False
        in_session = left.session > 0 and int(stat[3]) == left.session
        return in_session or f"{TOKEN_ENV}={left.token}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(
            b"\0"
        )
    except (OSError, IndexError, ValueError):  # gone meanwhile, or another user's
        return False


def _pids() -> Iterator[int]:
    yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def _signal(pids: list[int], what: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, what)


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def shared_memory(left: Claim) -> set[str]:
    """Names of Python's shared memory and semaphores that the claim's live processes map now."""
    return {name for name in _mapped(processes(left)) if name.startswith(SHM_PREFIXES)}


def _mapped(pids: Iterable[int]) -> set[str]:
    """Entries of ``/dev/shm`` that these processes map."""
    used: set[str] = set()
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                _, mark, name = line.partition(f" {SHM}/")
                if mark:
                    used.add(name.split(" ")[0])
    return used
