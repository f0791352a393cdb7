"""Every row is looked at before a model is loaded, and every problem of a file is told, not only the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steer_verl.data.jsonl import read_jsonl
from steer_verl.data.rows import (
    Flaw,
    RlRow,
    RowError,
    dialogue_flaws,
    first_flaws,
    parse_structure,
    rl_row,
    seed_from_row,
    seed_of,
)
from steer_verl.errors import DataError
from steer_verl.images import Change, image_changes
from steer_verl.types import IMAGE_MARK, MIN_TURNS, Seed

AGENT_NAME = "steer_dialogue"
"""The agent loop that a row asks for."""

MAX_TURN_CHARS = 8_000
"""Characters of one user turn. Longer text is a data accident (a dumped file, a repeated string) nearly always."""


@dataclass(frozen=True)
class Rules:
    """What a file is held to."""

    image_root: Path | None = None
    """Folder of the pictures, which no path may leave; ``None`` is the folder of the file itself."""
    trust_paths: bool = False
    """Take image paths as they are, absolute ones too: for files that you wrote yourself."""
    allow_text_only: bool = False
    """Accept dialogues without any picture."""
    max_turn_chars: int = MAX_TURN_CHARS
    min_turns: int = MIN_TURNS
    """1 where single questions are trained on: ``max_turns`` is 1 there too."""


DEFAULT_RULES = Rules()


@dataclass(frozen=True)
class Problem:
    """A flaw and its place: ``row`` is the line number of a JSONL file, or the row of a parquet file, both from 1."""

    file: str
    row: int
    field: str
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}: {self.field}: {self.what}; {self.cure}"


@dataclass(frozen=True)
class Told:
    """What a good row of any form says of itself, for counting and for comparing files."""

    id: str
    turns: int
    text: str
    """Every user turn, one a line, without picture marks."""
    images: tuple[str | bytes, ...] = ()
    """Absolute paths; a set with pictures by value has their bytes."""
    kind: str = ""
    source: str = ""
    source_id: str = ""
    license: str = ""


@dataclass(frozen=True)
class Checked:
    """One row: what it says of itself, or its problems. ``size`` is its share of the file, for progress."""

    row: int
    size: int
    seed: Seed | None = None
    """A row that is to be played, with absolute image paths."""
    problems: tuple[Problem, ...] = ()
    told: Told | None = None
    """``None`` if and only if there are problems."""
    changes: Mapping[str, frozenset[Change]] = field(default_factory=dict)
    """Image of a good row, by its absolute path -> what of it models will see otherwise than it lies in the file."""
    played: bool = True
    """See :class:`Validator`."""


@dataclass
class Validator:
    """Checks the rows of one file; it remembers ids and the pictures already decoded."""

    file: Path
    rules: Rules = DEFAULT_RULES
    played: bool = True
    """Whether these rows are played, their images opened as :mod:`steer_verl.images` does; an SFT trainer opens them by
    a loader of its own."""
    _rows_by_id: dict[str, int] = field(default_factory=dict)
    _pictures: dict[str, str | Flaw] = field(default_factory=dict)
    _changes: dict[str, frozenset[Change]] = field(default_factory=dict)

    def check(self, row: int, size: int, value: dict[str, Any]) -> Checked:
        """A row of the JSONL form -> a seed, or everything that is wrong with it."""
        try:
            parsed = parse_structure(value)
        except RowError as error:
            return self.bad(row, size, *error.flaws)
        flaws = dialogue_flaws(parsed, self.rules.min_turns)
        for name, message in parsed.messages:
            flaws += self.length_flaws(f"{name}.content", message.content)
        flaws += self._picture_flaws(parsed)
        flaws += self.id_flaws("metadata.question_id", row, str(parsed.metadata.question_id))
        if flaws:
            return self.bad(row, size, *flaws)
        paths = [str(self._pictures[name]) for name in parsed.images]
        seed = seed_of(parsed.model_copy(update={"images": paths}), self.rules.min_turns)
        return self.good(row, size, _told(seed), seed)

    def good(self, row: int, size: int, told: Told, seed: Seed | None = None) -> Checked:
        """An accepted row."""
        names = [image if isinstance(image, str) else self.name_by_value(row) for image in told.images]
        changes = {name: self._changes[name] for name in names if name in self._changes}
        return Checked(row, size, seed, told=told, changes=changes, played=self.played)

    def name_by_value(self, row: int) -> str:
        """What an image without a path is called."""
        return f"{self.file} row {row}"

    def bad(self, row: int, size: int, *flaws: Flaw) -> Checked:
        """A refused row."""
        file = str(self.file)
        found = tuple(Problem(file, row, flaw.field, flaw.what, flaw.cure) for flaw in first_flaws(flaws))
        return Checked(row, size, problems=found)

    def length_flaws(self, name: str, text: str) -> list[Flaw]:
        """A user turn that is longer than the rules allow."""
        cap = self.rules.max_turn_chars
        if len(text) <= cap:
            return []
        return [Flaw(name, f"{len(text)} characters, more than {cap}", "shorten it or raise --max-chars")]

    def _picture_flaws(self, row: RlRow) -> list[Flaw]:
        if not row.images:
            if self.rules.allow_text_only or any(IMAGE_MARK in message.content for _, message in row.messages):
                return []
            return [
                Flaw("images", f"no picture and no {IMAGE_MARK}", "add one, or pass --allow-text-only if that is meant")
            ]
        seen = [(i, self.picture(name)) for i, name in enumerate(row.images)]
        return [Flaw(f"images[{i}]", found.what, found.cure) for i, found in seen if isinstance(found, Flaw)]

    def picture(self, name: str) -> str | Flaw:
        """The absolute path of a picture that decodes, or what is wrong with it; each file is decoded once."""
        if name not in self._pictures:
            folder = self.file.parent
            root = None if self.rules.trust_paths else self.rules.image_root or folder
            path = (self.rules.image_root or folder) / name if self.rules.trust_paths else Path(name)
            try:
                changes = image_changes(path, root=root)
                self._pictures[name] = str((root / path if root else path).resolve())
                self.note(str(self._pictures[name]), changes)
            except DataError as error:
                what, _, cure = str(error).partition("; ")
                if root and Path(name).is_absolute():
                    cure += ", or pass --trust-paths for a file you wrote yourself"
                self._pictures[name] = Flaw("images", what, cure)
        return self._pictures[name]

    def note(self, name: str, changes: frozenset[Change]) -> None:
        """Remember what models will see otherwise of an image."""
        if changes:
            self._changes[name] = changes | self._changes.get(name, frozenset())

    def id_flaws(self, field_name: str, row: int, name: str) -> list[Flaw]:
        """An id that is empty, or an earlier row's."""
        if not name.strip():
            return [Flaw(field_name, "empty", "give each row its own id")]
        first = self._rows_by_id.setdefault(name, row)
        if first != row:
            return [Flaw(field_name, f"{name!r} is row {first}'s already", "give each row its own id")]
        return []


def check_jsonl(file: Path, rules: Rules = DEFAULT_RULES) -> Iterator[Checked]:
    """Check a JSONL file row by row.

    Raises:
        DataError: the file cannot be opened.
    """
    validator = Validator(file, rules)
    for line in read_jsonl(file):
        if line.value is None:
            yield validator.bad(line.number, line.size, Flaw("line", line.what, line.cure))
        else:
            yield validator.check(line.number, line.size, line.value)


def check_parquet(file: Path, rules: Rules = DEFAULT_RULES) -> Iterator[Checked]:
    """Check a parquet file for verl: every row names the agent loop and holds a whole seed whose pictures are there.

    Raises:
        DataError: the file cannot be opened or has not verl's columns.
    """
    validator = Validator(file, replace(rules, trust_paths=True))
    for number, row in enumerate(parquet_rows(file, {"prompt", "extra_info"}), start=1):
        flaws = []
        if not row.get("agent_name"):
            cure = f"set it to {AGENT_NAME}, or write the file with `steer data convert`"
            flaws.append(Flaw("agent_name", "missing, so verl would silently run its single-turn loop", cure))
        elif row["agent_name"] != AGENT_NAME:
            flaws.append(Flaw("agent_name", f"{row['agent_name']!r} is another agent loop", f"set it to {AGENT_NAME}"))
        try:
            checked = validator.check(number, 1, rl_row(parquet_seed(row)))
        except RowError as error:
            flaws += error.flaws
        except DataError as error:
            what, _, cure = str(error).partition("; ")
            flaws.append(Flaw("extra_info", what.removeprefix("extra_info: "), cure))
        else:
            flaws += [Flaw(p.field, p.what, p.cure) for p in checked.problems]
        yield validator.bad(number, 1, *flaws) if flaws else checked


def check_file(file: Path, rules: Rules = DEFAULT_RULES) -> Iterator[Checked]:
    """:func:`check_parquet` or :func:`check_jsonl`, by the suffix."""
    return (check_parquet if file.suffix == ".parquet" else check_jsonl)(file, rules)


def plain_words(texts: Iterable[str]) -> str:
    """User turns as they are compared: one a line, without picture marks and doubled spaces."""
    return "\n".join(" ".join(text.replace(IMAGE_MARK, " ").split()) for text in texts)


def _told(seed: Seed) -> Told:
    return Told(
        id=seed.id,
        turns=len(seed.turns),
        text=plain_words(turn.text for turn in seed.turns),
        images=tuple(path for turn in seed.turns for path in turn.images),
        kind=seed.kind.value,
        source=seed.source,
        source_id=seed.source_id,
        license=seed.license,
    )


def parquet_seed(row: dict[str, Any]) -> Seed:
    """The seed of a raw row: the opening turn of a foreign row is its prompt, with pictures beside it.

    Raises:
        DataError: it holds none.
    """
    images = iter(row.get("images") or [])
    prompt = []
    for message in row.get("prompt") or []:
        pieces = str(message["content"]).split(IMAGE_MARK)
        parts: list[dict[str, Any]] = [{"type": "text", "text": pieces[0]}]
        for piece in pieces[1:]:
            parts += [{"type": "image", "image": next(images, None)}, {"type": "text", "text": piece}]
        prompt.append({"role": message["role"], "content": parts})
    return seed_from_row(row.get("extra_info") or {}, prompt)


def parquet_rows(file: Path, needed: set[str]) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file with all of the ``needed`` columns; few in memory at once.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]}); write it again") from None
    missing = needed - set(table.schema_arrow.names)
    if missing:
        raise DataError(f"{file}: no column {sorted(missing)[0]}; write the file with `steer data convert`")
    with table:
        for batch in table.iter_batches(batch_size=64):
            yield from batch.to_pylist()
