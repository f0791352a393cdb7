"""What a public set is to its reader: the columns it is known by, and how a row becomes drafts of seeds.

A set is one :class:`SourceSet` in the registry, made of forms, because some sets exist in several schemas. Adding one
is one function from a row to drafts (steer_verl/data/sources/risky.py and benign.py) and one entry in registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steer_verl.data.sources.bad import Refused

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Origin:
    """Where a table stands within its set: some sets say by the folder what other sets say by a column."""

    config: str = ""
    split: str = ""


@dataclass(frozen=True)
class Draft:
    """A seed as the set has it: nothing of it is cleaned or looked at yet."""

    question: str
    image: Any = None
    """A path, the bytes of a file, ``{"bytes", "path"}``, an opened picture, or ``None``."""
    unsafe: bool | None = None
    category: str = ""
    answer: str = ""
    source_id: str = ""
    """Empty where the set has no ids: the row's place stands for it then."""
    source: str = ""
    license: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


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
    def known(self) -> tuple[str, ...]:
        """Every column that is read."""
        return self.columns + self.more

    @property
    def wanted(self) -> str:
        """Its columns, for people."""
        return ", ".join(self.columns) + (f" (and, if at all, {', '.join(self.more)})" if self.exact else "")

    def fits(self, found: set[str]) -> bool:
        """Whether these columns are its own."""
        return found.issuperset(self.columns) and not (self.exact and found - set(self.known))


@dataclass(frozen=True)
class SourceSet:
    """A public set, or our own form."""

    name: str
    """In settings, and the ``source`` of its seeds."""
    title: str
    """Its name on the Hugging Face hub."""
    license: str
    """Empty: every row, or the settings, must say it."""
    forms: tuple[Form, ...]


def text(row: Row, name: str, default: str | None = None) -> str:
    """A column's text; ``default`` for a null or missing one.

    Raises:
        Refused: neither is there, or it is no text.
    """
    value = row.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _wrong(name, value, "a text")
    return value


def ident(row: Row, name: str) -> str:
    """An id, which sets write as a text or as an integer.

    Raises:
        Refused: it is neither.
    """
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _wrong(name, value, "an id")
    return str(value)


def flag(row: Row, name: str) -> bool | None:
    """``yes``/``no`` as a text or a boolean; ``None`` for a null or missing one.

    Raises:
        Refused: it is something else.
    """
    value = row.get(name)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("yes", "no"):
        return value.strip().lower() == "yes"
    raise _wrong(name, value, "yes or no")


def items(row: Row, name: str) -> list[Any]:
    """A column's list.

    Raises:
        Refused: it is no list.
    """
    value = row.get(name)
    if not isinstance(value, list):
        raise _wrong(name, value, "a list")
    return value


def present(row: Row, *names: str) -> dict[str, Any]:
    """Those columns that hold something, as facts."""
    return {name: row[name] for name in names if row.get(name) not in (None, "")}


def joined(row: Row, *names: str) -> str:
    """Texts of several columns, from the broad category to the narrow one."""
    return " / ".join(part for name in names if (part := text(row, name, "").strip()))


def _wrong(name: str, value: Any, wanted: str) -> Refused:
    found = "missing" if value is None else f"{str(value)[:40]!r} is not {wanted}"
    return Refused("field", f"{name}: {found}", "leave the row out, or mend it")
