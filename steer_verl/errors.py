"""Errors that a user can act on. Each message is one line: what is wrong, where, and how to fix it."""

import errno
import os
import re
import shlex
from importlib import metadata

MAX_MESSAGE = 4000
"""Characters of a message."""

_LINE_ENDS = re.compile(r"[\n\r\v\f\x85\u2028\u2029]\s*")
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


class SteerError(Exception):
    """Base of every error raised on purpose by this project.

    A message may quote others' words (a path, a key, a server's reply). It becomes one line here, of at most
    :data:`MAX_MESSAGE` characters, and U+FFFD stands for what a terminal would obey and for what nobody can see.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_one_line(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(SteerError):
    """A setting that cannot work."""


class DataError(SteerError):
    """A row that cannot be trained on."""


class TutorError(SteerError):
    """A tutor that cannot be used at all (unreachable, wrong model): found before any model is loaded."""


class StudentError(SteerError):
    """A student that cannot be asked: unreachable, wrong model, or a server of its own that does not run."""


class UnscoredError(SteerError):
    """A turn without scores was asked for a number."""


def disk_error(error: OSError, path: str | os.PathLike[str] = "", what: str = "read or written") -> SteerError:
    """What the system refused, such as to write to a full disk, as one line: its own words, and how to fix it.

    Args:
        error: names the file itself, unless ``path`` does.
        path: the file.
        what: that could not be done to it.
    """
    where = path or error.filename
    hint = _HINTS.get(error.errno or 0, "check the path")
    return SteerError(f"{f'{where}: ' if where else ''}cannot be {what} ({error.strerror or error}); {hint}")


def install_command(extra: str) -> str:
    """The pip command for what an extra of setup.py asks for: right however this project itself was installed."""
    try:
        needs = [need.split(";") for need in metadata.requires("steer-verl") or ()]
    except metadata.PackageNotFoundError:
        return f"install the {extra!r} extra of this project (README.md)"
    wanted = [need.strip() for need, *marker in needs if f'extra == "{extra}"' in "".join(marker)]
    return f"pip install {shlex.join(wanted)}"


_ROOM = "make room for it, and the same command goes on"
_PLACE = "name a place that you may write to"
_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _PLACE),
    errno.ENOTDIR: "part of this path is a file: name another place",
    errno.EISDIR: "it is a folder: name a file",
    errno.EEXIST: "a file of that name is in the way: name another place",
    errno.EMFILE: "too many files are open: `ulimit -n 4096` allows more",
}


def _one_line(message: str) -> str:
    """steer_verl/text.py cannot be used here: errors know of no other module."""
    line = _UNSHOWN.sub("\ufffd", _LINE_ENDS.sub(" ", message[: 2 * MAX_MESSAGE]))
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "\u2026"
