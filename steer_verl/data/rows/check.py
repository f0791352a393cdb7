"""Checking files of the three sets, ours or somebody else's: every row is looked at, and every problem told.

The form is told by the keys (rows/played.py): of a JSONL file by its first rows, of a parquet file by its columns,
where what is no SFT set is verl's table for RL (rows/verl.py). One row is in memory at a time,
and of the earlier ones their ids and the images that they name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from steer_verl.data.jsonl import read_jsonl, regular_file
from steer_verl.data.licences import forbids_training
from steer_verl.data.rows.flaws import Flaw, Problem, RowError, first_flaws
from steer_verl.data.rows.images import Images, Opened
from steer_verl.data.rows.played import FORMS, BenchRow, SftRow, SftTableRow
from steer_verl.data.rows.schema import MAX_TURN_CHARS, RlRow, Row, Told
from steer_verl.data.rows.tokens import StudentTokens
from steer_verl.data.rows.verl import VerlRow, columns_of, read_verl_row, rows_of_table
from steer_verl.data.sources.sets import Refused
from steer_verl.types import MIN_TURNS, Seed

SNIFFED_LINES = 20
"""Lines of a JSONL file that are looked at for its form."""


@dataclass(frozen=True)
class Rules:
    """What a file is held to."""

    image_root: Path | None = None
    """Folder of the images, which no path may leave; ``None`` is the folder of the file itself, and of a parquet file,
    whose images verl opens from anywhere, any."""
    trust_paths: bool = False
    """Take image paths as they are, absolute ones too: for files that you wrote yourself."""
    require_images: bool = False
    """Refuse dialogues without any image."""
    max_turn_chars: int = MAX_TURN_CHARS
    min_turns: int = MIN_TURNS
    """1 where single questions are trained on: ``max_turns`` is 1 there too."""
    compared: bool = False
    """Whether the file is compared with others, so that its images tell a digest of their pixels."""
    student: StudentTokens | None = None
    """Whom SFT rows are for."""


DEFAULT_RULES = Rules()


class Checked(NamedTuple):
    """A row of a file, or its problems."""

    row: int
    size: int
    """Its share of the file, for progress: bytes of a JSONL file, rows of a parquet file."""
    problems: tuple[Problem, ...] = ()
    record: Row | None = None
    """``None`` if and only if there are problems."""
    images: tuple[Opened, ...] = ()
    tokens: int = 0
    """Of a row measured for a student, good or bad."""

    @property
    def told(self) -> Told | None:
        """What a good row says of itself."""
        return None if self.record is None else self.record.told

    @property
    def seed(self) -> Seed | None:
        """What is to be played, with absolute image paths; an SFT row has none."""
        if not isinstance(self.record, RlRow | BenchRow):
            return None
        return self.record.seed([image.name for image in self.images])


def check_file(file: Path, rules: Rules = DEFAULT_RULES, *, form: type[Row] | None = None) -> Iterator[Checked]:
    """Check a file row by row: parquet by its suffix, else JSONL; of the form that its keys tell, unless it is given.

    Raises:
        DataError: the file cannot be opened, is packed, or has no known columns.
    """
    check = _FileCheck(regular_file(file), rules)
    return map(check.row, _table(file, form) if file.suffix == ".parquet" else _lines(file, form))


class _Found(NamedTuple):
    """What lies in a file, not read as a row of its form yet; without a value the flaws say why."""

    row: int
    size: int
    form: type[Row] = RlRow
    value: Mapping[str, Any] | None = None
    flaws: Sequence[Flaw] = ()


def _lines(file: Path, form: type[Row] | None) -> Iterator[_Found]:
    form = form or _form_of(file)
    for line in read_jsonl(file):
        flaws = [Flaw("line", line.what, line.hint)] if line.value is None else []
        yield _Found(line.number, line.size, form, line.value, flaws)


def _table(file: Path, form: type[Row] | None) -> Iterator[_Found]:
    sft = form is SftRow or (form is None and "messages" in columns_of(file))
    needed, schema = ("messages", SftTableRow) if sft else ("extra_info", VerlRow)
    for number, value in rows_of_table(file, needed, schema.model_fields):
        if isinstance(value, Refused):
            yield _Found(number, 1, flaws=[Flaw(value.reason, value.what, value.hint)])
        elif sft:
            yield _Found(number, 1, SftTableRow, {"id": f"{file}:{number}", **value})
        else:
            yield _Found(number, 1, RlRow, *read_verl_row(value))


class _FileCheck:
    """Checks the rows of one file."""

    def __init__(self, file: Path, rules: Rules) -> None:
        self.file, self.rules = file, rules
        root = rules.image_root or (None if file.suffix == ".parquet" else file.parent)
        self.images = Images(root, trusted=rules.trust_paths, digests=rules.compared)
        self._rows_by_id: dict[str, int] = {}

    def row(self, found: _Found) -> Checked:
        """A row of its form, or everything that is wrong with it."""
        if found.value is None:
            return self._bad(found, found.flaws)
        try:
            row = found.form.parse(found.value)
        except RowError as error:
            return self._bad(found, error.flaws)
        opened, tokens = list[Opened](), 0
        around = self._image_flaws(found.row, row.told, opened), self._file_flaws(found.row, row.told)
        flaws = first_flaws(chain(row.flaws(self.rules.min_turns), found.flaws, *around))
        if self.rules.student and isinstance(row, SftRow) and len(opened) == len(row.images):
            tokens, spelled = self.rules.student.look(row, opened)
            flaws = first_flaws((*flaws, *spelled))
        if flaws:
            return self._bad(found, flaws, tokens)
        self._rows_by_id[row.told.id] = found.row  # of good rows alone: a bad one takes no id from a good one
        return Checked(found.row, found.size, record=row, images=tuple(opened), tokens=tokens)

    def _bad(self, found: _Found, flaws: Iterable[Flaw], tokens: int = 0) -> Checked:
        problems = tuple(Problem.of(flaw, self.file, found.row) for flaw in flaws)
        return Checked(found.row, found.size, problems, tokens=tokens)

    def _image_flaws(self, number: int, told: Told, opened: list[Opened]) -> Iterator[Flaw]:
        """Fills ``opened`` on the way."""
        for field, image in told.shown:
            found = self.images.open(image, f"{self.file} row {number}")
            if isinstance(found, Opened):
                opened.append(found)
                continue
            hint = found.hint
            if isinstance(image, str) and os.path.isabs(image):
                moved = "; where they were moved, write the file again with `steer data convert`"
                hint += moved if self.images.root is None else ", or pass --trust-paths for a file you wrote yourself"
            yield Flaw(field, found.what, hint)
        if self.rules.require_images and not told.shown:
            yield Flaw("images", "no image", "add one, or leave --require-images out")

    def _file_flaws(self, number: int, told: Told) -> Iterator[Flaw]:
        """What takes the rules, the file and its purpose to know."""
        for said in told.said:
            if said.role == "user" and len(said.text) > self.rules.max_turn_chars:
                what = f"{len(said.text)} characters, more than {self.rules.max_turn_chars}"
                yield Flaw(f"{said.field}.content", what, "shorten it or raise --max-chars")
        if first := self._rows_by_id.get(told.id):
            yield Flaw(told.id_field, f"{told.id!r} is row {first}'s already", "give each row its own id")
        if told.form != "bench" and forbids_training(told.source, told.license):
            what = f"rows of {told.source!r} ({told.license or 'its own licence'}) may not be trained on"
            yield Flaw("source", what, "keep them for an evaluation")


def _form_of(file: Path) -> type[Row]:
    """By the keys of the first rows; RL, whose flaws are then told, where they tell none."""
    rows = (line.value.keys() for line in islice(read_jsonl(file), SNIFFED_LINES) if line.value is not None)
    return next((form for keys in rows for key, form in FORMS.items() if key in keys), RlRow)
