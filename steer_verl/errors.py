"""Errors that a user can act on. Each message is one line: what is wrong, where, and how to fix it."""

import re

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


def _one_line(message: str) -> str:
    """steer_verl/text.py cannot be used here: errors know of no other module."""
    line = _UNSHOWN.sub("\ufffd", _LINE_ENDS.sub(" ", message[: 2 * MAX_MESSAGE]))
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "\u2026"
