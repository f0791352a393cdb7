"""What a public set is to its reader: the columns it is known by, and how a row becomes drafts of seeds.

A set is one :class:`SourceSet` in the registry, made of forms, because some sets exist in several schemas. Adding one
is one function from a row to drafts (sets_risky.py and sets_benign.py have them) and one entry in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from steer_verl.text import one_line
from steer_verl.types import Record

KEY = "<key>"
"""Column of a row that stands under a key in its JSON file: the key."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MEND = "leave the row out, or mend it"


class BadRow(Record):
    """What became of a row instead of a seed."""

    reason: str
    """``file``: it, or a part of it, cannot be read. ``other_form``: a table in the folder that is none of the set's.
    ``line``: no row. ``field``: missing or of the wrong type. ``text``: the question. ``image``: missing, broken or
    hostile. ``duplicate``: of an earlier row. A build adds its own (steer_verl/data/collect/pool.py)."""
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
        self.unsafe: bool | None = None
        """See :class:`BadRow`."""

    def at(self, file: str, row: int) -> BadRow:
        """The account of it."""
        what, hint, unsafe = self.what, self.hint, self.unsafe
        return BadRow(reason=self.reason, what=what, hint=hint, file=one_line(file), row=row, unsafe=unsafe)


class Row(dict[str, Any]):
    """A row's columns. Each method raises :class:`Refused` for a column that holds something else than it asks for."""

    def text(self, name: str, default: str | None = None) -> str:
        """A column's text; ``default`` for a null or missing one."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        return value if isinstance(value, str) else self._not(name, "a text")

    def ident(self, *names: str, default: str | None = None) -> str:
        """An id in the first of these columns that has one; ``default`` where none has. It is a text or an integer, of
        a column with gaps perhaps written 2.0."""
        name = next((name for name in names if self.get(name) is not None), names[0])
        value = self.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int) or is_empty(value):
            self._not(name, "an id")
        if isinstance(value, int) and value.bit_length() > 64:
            raise Refused("field", f"{name}: an integer of {value.bit_length()} bits")
        return str(value).strip()

    def flag(self, name: str, yes: str = "yes", no: str = "no") -> bool | None:
        """A boolean, or one of two words; ``None`` for a null or missing one."""
        value = self.get(name)
        if isinstance(value, str):
            value = {yes: True, no: False}.get(value.strip().lower(), value)
        return value if value is None or isinstance(value, bool) else self._not(name, f"{yes} or {no}")

    def elements(self, name: str) -> list[Any]:
        """A column's list."""
        value = self.get(name)
        return value if isinstance(value, list) else self._not(name, "a list")

    def options(self, name: str) -> list[str]:
        """A column's choices, one letter each."""
        choices = [Row({name: choice}).text(name) for choice in self.elements(name)]
        if len(choices) > len(LETTERS):
            raise Refused("field", f"{name}: {len(choices)} of them")
        return choices

    def present(self, *names: str) -> dict[str, Any]:
        """Those columns that hold something, as facts."""
        return {name: value for name in names if (value := self.get(name)) is not None and value != ""}

    def joined(self, *names: str) -> str:
        """Texts of several columns, from the broad category to the narrow one."""
        return " / ".join(part for name in names if (part := self.text(name, "").strip()))

    def _not(self, name: str, wanted: str) -> NoReturn:
        value = self.get(name)
        found = repr(value[:40]) if isinstance(value, str | bytes) else f"a {type(value).__name__}"
        raise Refused("field", f"{name}: " + ("missing" if value is None else f"{found} is not {wanted}"))


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, a blank text, or an image with neither bytes nor path."""
    if isinstance(value, dict) and set(value) <= {"bytes", "path"}:
        return all(map(is_empty, value.values()))
    return value is None or (isinstance(value, str) and not value.strip())


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
    splits: tuple[str, ...] = ()
    """Those that every table of it has rows of; empty where a table's name says which one it is."""

    @property
    def wanted(self) -> str:
        """Its columns, for people."""
        return ", ".join(self.columns) + (f" (and, if at all, {', '.join(self.more)})" if self.exact else "")

    def fits(self, found: Iterable[str]) -> bool:
        """Whether these columns are its own."""
        columns = set(found)
        return columns.issuperset(self.columns) and not self.surplus(columns)

    def surplus(self, found: Iterable[str]) -> set[str]:
        """Of these columns those that should not be there."""
        return set(found) - {*self.columns, *self.more, KEY} if self.exact else set()


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
    pictured: bool = False
    """Whether every question is about an image, so that a row without one is at fault."""
    training: bool = True
    """Whether its terms let a model be trained on it."""

    @property
    def wanted(self) -> str:
        """Its columns, for people."""
        return " or ".join(form.wanted for form in self.forms)
