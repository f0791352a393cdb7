"""What a killed run leaves on a machine, and taking exactly that away: processes, a folder of sockets, shared memory.

Each start draws a token, which everything that it starts carries in its environment. The token is on disk, in a record,
before anything heavy starts, so that the next run can clean up after a ``SIGKILL``. A record lies in a run's folder,
which may be somebody else's: it names no path, and a process id in it is asked for the token. What goes is

- processes that carry the token, and those in a session that one of them leads;
- the folder directly in /tmp whose name is made of the token, when it is a folder of this user, no link, that holds it;
- entries of /dev/shm that these processes were seen to map, and that nobody maps any more.

Linux only, like the runtime it serves.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from steer_verl.errors import SteerError
from steer_verl.records import write_whole
from steer_verl.types import Record

TOKEN_ENV = "STEER_TOKEN"
"""The tokens of all starts that a process is a part of, with spaces between them."""
TMP = Path("/tmp")
"""Where folders of sockets lie, whatever TMPDIR says: the path of a Unix socket has at most 107 bytes."""
FOLDERS = ("RAY_TMPDIR", "TMPDIR", "VLLM_RPC_BASE_PATH")
"""Environment variables that say where temporary files and sockets go."""
MARK = ".steer"
"""In such a folder: its token."""
SHM = Path("/dev/shm")
SHM_PREFIXES = ("psm_", "sem.mp-")
"""Names that Python's shared_memory and multiprocessing semaphores take."""

GRACE = 8.0
"""Seconds between asking a process to end and ending it."""
SURVEY = 10.0
"""Seconds between two looks at the shared memory that processes hold: some never give theirs back."""


class Claim(Record):
    """What one start may leave behind; made by :func:`claim`."""

    token: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    boot: str
    maker: Annotated[int, Field(gt=0)]
    """Id of the process that made it."""
    born: Annotated[int, Field(ge=0)]
    """When that process began, in clock ticks since the boot: ids come back."""
    leader: int = 0
    """Id of the first process; 0 before it is started."""

    @property
    def folder(self) -> Path:
        """Of its sockets."""
        return TMP / f"steer-{self.token[:12]}"

    @property
    def is_at_work(self) -> bool:
        """Whether the process that made it lives, and is another one: then nothing was left behind."""
        return self.boot == boot_id() and self.maker != os.getpid() and _born(self.maker) == self.born

    def led_by(self, pid: int) -> Claim:
        """The claim once its first process has been started."""
        return self.model_copy(update={"leader": pid})

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` for a process of this claim: its token, and its folder for Ray, for sockets and for temporary files.

        What torch has compiled is no temporary file: it stays where the next run looks for it.
        """
        tokens = f"{base.get(TOKEN_ENV, '')} {self.token}".strip()
        return {
            "TORCHINDUCTOR_CACHE_DIR": os.path.join(tempfile.gettempdir(), f"torchinductor_{_user()}"),
            **base,
            TOKEN_ENV: tokens,
            "SPT_NOENV": "1",  # without it Ray and vLLM write their processes' titles over their environments
            **dict.fromkeys(FOLDERS, str(self.folder)),
        }

    def save(self, path: Path) -> None:
        """Write the record atomically."""
        write_whole(path, self.model_dump_json())

    @staticmethod
    def load(path: Path) -> Claim | None:
        """The record at ``path``, or ``None`` if there is none that can be read."""
        try:
            return Claim.model_validate_json(path.read_bytes()) if path.is_file() else None
        except (OSError, ValidationError):
            return None


def _user() -> str:
    """This user's name as torch has it in a path; a container's user may have none."""
    try:
        return re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError):
        return f"uid_{os.getuid()}"


def claim() -> Claim:
    """A new claim, with its folder.

    Raises:
        OSError: /tmp cannot be written.
    """
    me = os.getpid()
    made = Claim(token=secrets.token_hex(16), boot=boot_id(), maker=me, born=_born(me))
    made.folder.mkdir(mode=0o700)
    try:
        (made.folder / MARK).write_text(made.token)
    except OSError:
        shutil.rmtree(made.folder, ignore_errors=True)
        raise
    return made


def boot_id() -> str:
    """Identity of this boot: what an earlier one left behind is a folder, and no process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def clear_earlier(record: Path) -> bool:
    """Clean up after a run that was killed and could not; whether there was one.

    Raises:
        SteerError: the run is alive.
    """
    left = Claim.load(record)
    if left is not None and left.is_at_work:
        raise SteerError(
            f"{record}: the run that wrote it is at work (process {left.maker}), here or in a folder that this is a "
            "copy of; wait for it, or remove this file from the copy"
        )
    if left is not None:
        clear(left)
    record.unlink(missing_ok=True)
    return left is not None


def clear(left: Claim, shared: AbstractSet[str] = frozenset(), *, keep_folder: bool = False) -> None:
    """End the processes of a claim, by id, then remove its folder and its shared memory that nobody maps any more.

    ``shared`` are names that its processes were seen to map (:class:`Survey`). An entry that nobody was seen with may
    be another run's, about to be opened: it is left alone.
    """
    if left.boot == boot_id():
        ours = shared | shared_memory(left)
        end_processes(left)
        for name in ours - _mapped(_pids()):
            with suppress(OSError):
                (SHM / name).unlink()
    if _is_ours(left) and not keep_folder:
        shutil.rmtree(left.folder, ignore_errors=True)


def _is_ours(left: Claim) -> bool:
    """Whether the claim's folder is one that :func:`claim` made."""
    try:
        made = left.folder.lstat()
        marked = (left.folder / MARK).read_text() == left.token
    except (OSError, ValueError):
        return False
    return marked and stat.S_ISDIR(made.st_mode) and made.st_uid == os.getuid()


def end_processes(left: Claim, grace: float = GRACE) -> None:
    """Ask the first process to end, then everything else that is ours; what stays longer than ``grace`` is killed."""
    if left.leader in processes(left):
        _signal([left.leader], signal.SIGTERM)
        _wait(lambda: left.leader not in processes(left), grace)
    _signal(processes(left), signal.SIGTERM)
    if not _wait(lambda: not processes(left), grace):
        _signal(processes(left), signal.SIGKILL)
        _wait(lambda: not processes(left), grace)


def processes(left: Claim) -> list[int]:
    """Ids of the claim's live processes, but for the one that asks."""
    session = {pid: int(fields[3]) for pid in _pids() if pid != os.getpid() and (fields := _stat(pid))}
    carriers = {pid for pid in session if _carries(pid, left.token)}
    led = {session[pid] for pid in carriers} & (carriers | {left.leader} - {0})
    return [pid for pid, number in session.items() if pid in carriers or number in led]


def _stat(pid: int) -> list[str]:
    """What the system says of a process, from its state on (``man proc``); nothing when it is a zombie or gone.

    Its name stands before that and may be of any bytes.
    """
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode("ascii").split()
        return fields if fields[:1] != ["Z"] else []
    return []


def _born(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[19]) if fields else -1


def _carries(pid: int, token: str) -> bool:
    """Whether a process has the token in its environment; another user's is not read."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    start = f"{TOKEN_ENV}=".encode()
    return any(
        token.encode() in variable.split(b"=")[1].split(b" ") for variable in variables if variable.startswith(start)
    )


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


class Survey:
    """Names of shared memory that a claim's processes were seen to map."""

    def __init__(self, held: Claim) -> None:
        self.held, self.names = held, set[str]()
        self._next = time.monotonic() + SURVEY

    def look(self) -> None:
        """Look again if it is time."""
        if time.monotonic() > self._next:
            self.names |= shared_memory(self.held)
            self._next = time.monotonic() + SURVEY


def shared_memory(left: Claim) -> set[str]:
    """Names of Python's shared memory and semaphores that the claim's live processes map now."""
    return {name for name in _mapped(processes(left)) if name.startswith(SHM_PREFIXES)}


def _mapped(pids: Iterable[int]) -> set[str]:
    """Entries of ``/dev/shm`` that these processes map.

    By their inodes: a semaphore is made under one name and linked to another, and the first is the one that is told.
    """
    device = os.stat(SHM).st_dev
    told, used = f"{os.major(device):02x}:{os.minor(device):02x}".encode(), set[int]()
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_bytes().split(b"\n")  # they end with paths, of any bytes
            used |= {int(inode) for _, _, _, where, inode, *_ in map(bytes.split, filter(None, lines)) if where == told}
    with os.scandir(SHM) as entries:
        return {entry.name for entry in entries if entry.inode() in used}
