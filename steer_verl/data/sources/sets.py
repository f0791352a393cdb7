"""What a public set is to its reader: the columns it is known by, and how a row becomes drafts of seeds.

A set is one :class:`SourceSet` in the registry, made of forms, because some sets exist in several schemas. Adding one
is one function from a row to drafts (sets_risky.py and sets_benign.py have them) and one entry in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steer_verl.text import one_line
from steer_verl.types import Record

Row = Mapping[str, Any]
KEY = "<key>"
"""Column of a row that stands under a key in its JSON file: the key."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MEND = "leave the row out, or mend it"


class BadRow(Record):
    """What became of a row instead of a seed."""

    reason: str
    """``file``: it, or a part of it, cannot be read. ``other_form``: a table in the folder that is none of the set's.
    ``line``: no row. ``field``: missing or of the wrong type. ``text``: the question. ``image``: missing, broken or
    hostile. ``duplicate``: of an earlier row. A build adds its own (steer_verl/data/pool.py)."""
    what: str
    hint: str = ""
    file: str = ""
    row: int = 0
    """Counted from 1: lines of JSONL, elements of a JSON file, rows of a table. 0: the file."""
    id: str = ""
    source: str = ""
    source_id: str = ""
    """The three of a row that made a seed, which the build has left out."""
    unsafe: bool | None = None
    """What the row says of its question, where so much of it could be read."""

    def __str__(self) -> str:
        place = f"{self.file}: row {self.row}" if self.row else self.file
        return f"{place}: {self.what}; {self.hint}"


class Refused(Exception):
    """Raised where a fault is seen; whoever knows the place makes a :class:`BadRow` of it.

    ``what`` and ``hint`` may quote the row: both are made fit for a terminal.
    """

    def __init__(self, reason: str, what: str, hint: str = MEND) -> None:
        what, hint = one_line(what), one_line(hint)
        super().__init__(reason, what, hint)
        self.reason, self.what, self.hint = reason, what, hint

    def at(self, file: str, row: int, unsafe: bool | None = None) -> BadRow:
        """The account of it."""
        return BadRow(reason=self.reason, what=self.what, hint=self.hint, file=one_line(file), row=row, unsafe=unsafe)


@dataclass(frozen=True)
class Origin:
    """Where a table stands within its set: some sets say by the folder what other sets say by a column."""

    config: str = ""
    split: str = ""
    file: str = ""
    """Its name without the suffix."""


@dataclass(frozen=True)
class Draft:
    """A seed as the set has it: nothing of it is cleaned or looked at yet."""

    question: str
    image: Any = None
    """A path, a tuple of paths of which the first that is there counts, the bytes of a file, ``{"bytes", "path"}``, an
    opened image, or ``None``."""
    unsafe: bool | None = None
    category: str = ""
    answer: str = ""
    """A good one: an unsafe response is none."""
    source_id: str = ""
    source: str = ""
    license: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    choice: str = ""
    """Letter of the right choice, where the question has choices."""


@dataclass(frozen=True)
class Form:
    """One schema of a set."""

    columns: tuple[str, ...]
    """Without these it is another set."""
    read: Callable[[Row, Origin], Iterable[Draft]]
    """Raises :class:`Refused` for a row that is not what the columns promise."""
    more: tuple[str, ...] = ()
    """Read where they are there."""
    exact: bool = False
    """Any further column is a mistake."""

    @property
    def wanted(self) -> str:
        """Its columns, for people."""
        return ", ".join(self.columns) + (f" (and, if at all, {', '.join(self.more)})" if self.exact else "")

    def fits(self, found: Iterable[str]) -> bool:
        """Whether these columns are its own."""
        columns = set(found) - {KEY}
        return columns.issuperset(self.columns) and not (self.exact and columns - {*self.columns, *self.more})


@dataclass(frozen=True)
class SourceSet:
    """A public set, or our own form."""

    name: str
    """In settings, and the ``source`` of its seeds."""
    title: str
    """Its name on the Hugging Face hub, or of its authors' repository."""
    license: str
    """Empty: every row, or the settings, must say it."""
    forms: tuple[Form, ...]
    images: str = ""
    """Folder that the authors' layout has its images in, beside the table or beside the table's folder."""
    training: bool = True
    """Whether its terms let a model be trained on it."""

    @property
    def wanted(self) -> str:
        """Its columns, for people."""
        return " or ".join(form.wanted for form in self.forms)


# Each of these raises Refused for a column that holds something else.


def text(row: Row, name: str, default: str | None = None) -> str:
    """A column's text; ``default`` for a null or missing one."""
    value = row.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _wrong(name, value, "a text")
    return value


def ident(row: Row, *names: str) -> str:
    """An id, a text or an integer, in the first of these columns that has one."""
    name = next((name for name in names if row.get(name) is not None), names[0])
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _wrong(name, value, "an id")
    if isinstance(value, int) and value.bit_length() > 64:
        raise Refused("field", f"{name}: an integer of {value.bit_length()} bits")
    return str(value)


def maybe_ident(row: Row, *names: str) -> str:
    """The same; empty where no column has one."""
    return ident(row, *names) if any(row.get(name) is not None for name in names) else ""


def flag(row: Row, name: str) -> bool | None:
    """``yes``/``no`` as a text or a boolean; ``None`` for a null or missing one."""
    value = row.get(name)
    if isinstance(value, str):
        value = {"yes": True, "no": False}.get(value.strip().lower(), value)
    if not (value is None or isinstance(value, bool)):
        raise _wrong(name, value, "yes or no")
    return value


def items(row: Row, name: str) -> list[Any]:
    """A column's list."""
    value = row.get(name)
    if not isinstance(value, list):
        raise _wrong(name, value, "a list")
    return value


def present(row: Row, *names: str) -> dict[str, Any]:
    """Those columns that hold something, as facts."""
    return {name: value for name in names if (value := row.get(name)) is not None and value != ""}


def joined(row: Row, *names: str) -> str:
    """Texts of several columns, from the broad category to the narrow one."""
    return " / ".join(part for name in names if (part := text(row, name, "").strip()))


def options(row: Row, name: str) -> list[str]:
    """A column's choices, one letter each."""
    choices = [text({name: choice}, name) for choice in items(row, name)]
    if len(choices) > len(LETTERS):
        raise Refused("field", f"{name}: {len(choices)} of them")
    return choices


def _wrong(name: str, value: Any, wanted: str) -> Refused:
    found = "missing" if value is None else f"{shown(value)} is not {wanted}"
    return Refused("field", f"{name}: {found}")


def shown(value: Any) -> str:
    """A short look at anything."""
    return repr(value[:40]) if isinstance(value, str | bytes) else f"a {type(value).__name__}"
