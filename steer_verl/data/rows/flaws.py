"""What can be wrong with a row, as it is told: which field, what, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from steer_verl.errors import DataError
from steer_verl.settings_error import given
from steer_verl.text import one_line
from steer_verl.types import IMAGE_MARK

MAX_FLAWS = 50
"""Flaws of one row that are told one by one."""


@dataclass(frozen=True)
class Flaw:
    """One thing wrong with a row. Keys, image names and values of the row may stand in it, fit for a terminal."""

    field: str
    what: str
    hint: str

    def __post_init__(self) -> None:
        for name in ("field", "what", "hint"):
            object.__setattr__(self, name, one_line(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.field}: {self.what}; {self.hint}"


@dataclass(frozen=True)
class Problem(Flaw):
    """A flaw and its place."""

    file: str
    row: int
    """Line number of a JSONL file, row of a parquet file; both from 1."""

    @classmethod
    def of(cls, flaw: Flaw, file: Path, row: int) -> Problem:
        return cls(flaw.field, flaw.what, flaw.hint, str(file), row)

    def __str__(self) -> str:
        return f"{one_line(self.file)}: row {self.row}: {super().__str__()}"


def first_flaws(flaws: Iterable[Flaw]) -> tuple[Flaw, ...]:
    """The first :data:`MAX_FLAWS`, and whether there are more; those are not looked for."""
    found = tuple(islice(flaws, MAX_FLAWS + 2))
    if len(found) <= MAX_FLAWS + 1:
        return found
    return *found[:MAX_FLAWS], Flaw("row", f"more than {MAX_FLAWS} problems", "fix these first")


class RowError(DataError):
    """A row that breaks rules; ``flaws`` tells which."""

    def __init__(self, flaws: Iterable[Flaw]) -> None:
        self.flaws = first_flaws(flaws)
        super().__init__(" | ".join(map(str, self.flaws)))

    def __reduce__(self) -> tuple[type[RowError], tuple[tuple[Flaw, ...]]]:
        return type(self), (self.flaws,)


def type_flaws(error: ValidationError) -> Iterable[Flaw]:
    """What a schema says of missing, unknown and mistyped fields, one for a field."""
    found = error.errors(include_url=False)[: 4 * MAX_FLAWS]
    return {flaw.field: flaw for flaw in map(_type_flaw, found)}.values()  # a union reports each of its members


def _type_flaw(error: ErrorDetails) -> Flaw:
    place = [part for part in error["loc"] if part not in ("str", "int", "float")]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".") or "row"
    if error["type"] == "extra_forbidden":
        return Flaw(field, "unknown key", "remove it, or put it into metadata.facts")
    if error["type"] == "missing":
        return Flaw(field, "missing", "add it (docs/formats.md shows a whole row)")
    if field == "images" and error["input"] is None:
        return Flaw(field, "null, where images are counted", "write an empty list")
    if field.endswith("content") and isinstance(error["input"], list):
        return Flaw(field, "a list of parts", f"write one string with an {IMAGE_MARK} mark for each image")
    if field.startswith("image") and isinstance(error["input"], Mapping | bytes):
        return Flaw(field, "an image by value, not a string", "give the path of an image file")
    return Flaw(field, f"{error['msg']}{given(error)}", "docs/formats.md shows a whole row")
