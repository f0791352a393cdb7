"""Why a setting was refused, in one line that repeats no secret.

pydantic's own messages hold the values that were given, and a key may stand at any place it does not belong to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from steer_verl.address import KEYS_BELONG, looks_like_key

SHOWN = 80
"""Characters of a value that are repeated at most."""

HIDDEN = "(not shown)"

_UNION_MARK = re.compile(r"[A-Z]\w*Config|literal\[.*\]", re.DOTALL)
"""What pydantic puts into a location for each member of a union."""
_PLAIN_NAME = re.compile(r"[^\W\d][\w./+-]{0,79}")
_KEY_NAME = re.compile(
    r"(?!max_|min_)(?:.*[_-])?(?:api[_-]?)?(?:key|token|secret|password|passwd|pwd|auth|authorization|headers?|bearer"
    r"|credentials?)(?:[_-].*)?",
    re.IGNORECASE,
)
_SECRET_PLACE = re.compile(r"url|address|server|endpoint|header|auth|credential|secret|passw|token$|key|env$", re.I)
_CONTAINERS = re.compile(r"model_|dict_|mapping_|list_|tuple_|set_|dataclass_")
"""Types of errors where a mapping or a list was wanted: a text may be one that was quoted, key and all."""


def refusal(error: ValidationError, known: Callable[[Sequence[int | str]], str]) -> tuple[str, str]:
    """(dotted key, what is wrong with it) of the first error.

    Args:
        error: pydantic's.
        known: location of a section -> words that tell which keys it has.
    """
    first = error.errors(include_url=False)[0]
    if first["type"] == "extra_forbidden":
        *section, name = first["loc"]
        hint = f"; {KEYS_BELONG}" if _KEY_NAME.fullmatch(str(name)) else ""
        return dotted(first["loc"]), f"unknown key; {known(section)}{hint}"
    return dotted(first["loc"]), f"{reason(first)}{given(first)}"


def dotted(location: Iterable[int | str]) -> str:
    """A location as users write it, without a union's marks; a key that may itself be a secret is not repeated."""
    written = [part for part in location if isinstance(part, int) or not _UNION_MARK.fullmatch(part)]
    return ".".join(str(part) if isinstance(part, int) or plain_name(part) else HIDDEN for part in written)


def plain_name(text: str) -> bool:
    """Whether it is a name like those of settings, and so may be repeated."""
    return bool(_PLAIN_NAME.fullmatch(text)) and not looks_like_key(text)


def reason(error: ErrorDetails) -> str:
    """The message alone."""
    return error["msg"].removeprefix("Value error, ")


def given(error: ErrorDetails) -> str:
    """`` (given: ...)``, or nothing where the value tells nothing or may be a secret."""
    value, names = error["input"], [part for part in error["loc"] if isinstance(part, str)]
    if error["type"] in ("missing", "value_error") or (names and _SECRET_PLACE.search(names[-1])):
        return ""
    if isinstance(value, str) and _CONTAINERS.match(error["type"]):
        return " (given: a text)"
    return f" (given: {shown(value)})"


def shown(value: Any) -> str:
    """A value in a message: short, and neither a container nor what may be a secret."""
    if isinstance(value, str):
        if "://" in value or "@" in value or any(map(looks_like_key, value[: 10 * SHOWN].split())):
            return HIDDEN
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}..."
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() < 64):
        return repr(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, Sequence | Set) else f"of type {type(value).__name__}"
