"""Every row is looked at before a model is loaded, and every problem of a file is told, not only the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer_verl.data.images import load_image
from steer_verl.data.jsonl import read_jsonl
from steer_verl.data.rows import Flaw, RlRow, RowError, dialogue_flaws, parse_structure, rl_row, seed_from_row, seed_of
from steer_verl.errors import DataError
from steer_verl.types import IMAGE_MARK, Seed

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
class Checked:
    """One row: a seed with absolute image paths, or its problems. ``size`` is its share of the file, for progress."""

    row: int
    size: int
    seed: Seed | None = None
    problems: tuple[Problem, ...] = ()


@dataclass
class Validator:
    """Checks the rows of one file; it remembers ids and the pictures already decoded."""

    file: Path
    rules: Rules = DEFAULT_RULES
    _rows_by_id: dict[str, int] = field(default_factory=dict)
    _pictures: dict[str, str | Flaw] = field(default_factory=dict)

    def check(self, row: int, size: int, value: dict[str, Any]) -> Checked:
        """A row of the JSONL form -> a seed, or everything that is wrong with it."""
        try:
            parsed = parse_structure(value)
        except RowError as error:
            return self.bad(row, size, *error.flaws)
        flaws = [*dialogue_flaws(parsed), *self._length_flaws(parsed), *self._picture_flaws(parsed)]
        flaws += self._id_flaws(row, parsed)
        if flaws:
            return self.bad(row, size, *flaws)
        paths = [str(self._pictures[name]) for name in parsed.images]
        return Checked(row, size, seed_of(parsed.model_copy(update={"images": paths})))

    def bad(self, row: int, size: int, *flaws: Flaw) -> Checked:
        """A refused row."""
        found = tuple(Problem(str(self.file), row, flaw.field, flaw.what, flaw.cure) for flaw in flaws)
        return Checked(row, size, problems=found)

    def _length_flaws(self, row: RlRow) -> list[Flaw]:
        cap = self.rules.max_turn_chars
        return [
            Flaw(
                f"{name}.content",
                f"{len(message.content)} characters, more than {cap}",
                "shorten it or raise --max-chars",
            )
            for name, message in row.messages
            if len(message.content) > cap
        ]

    def _picture_flaws(self, row: RlRow) -> list[Flaw]:
        if not row.images:
            if self.rules.allow_text_only or any(IMAGE_MARK in message.content for _, message in row.messages):
                return []
            return [
                Flaw("images", f"no picture and no {IMAGE_MARK}", "add one, or pass --allow-text-only if that is meant")
            ]
        seen = [(i, self._picture(name)) for i, name in enumerate(row.images)]
        return [Flaw(f"images[{i}]", found.what, found.cure) for i, found in seen if isinstance(found, Flaw)]

    def _picture(self, name: str) -> str | Flaw:
        """The absolute path of a picture that decodes, or what is wrong with it; each file is decoded once."""
        if name not in self._pictures:
            folder = self.file.parent
            root = None if self.rules.trust_paths else self.rules.image_root or folder
            path = (self.rules.image_root or folder) / name if self.rules.trust_paths else Path(name)
            try:
                load_image(path, root=root)
                self._pictures[name] = str((root / path if root else path).resolve())
            except DataError as error:
                what, _, cure = str(error).partition("; ")
                if root and Path(name).is_absolute():
                    cure += ", or pass --trust-paths for a file you wrote yourself"
                self._pictures[name] = Flaw("images", what, cure)
        return self._pictures[name]

    def _id_flaws(self, row: int, parsed: RlRow) -> list[Flaw]:
        name = str(parsed.metadata.question_id)
        if not name.strip():
            return [Flaw("metadata.question_id", "empty", "give each row its own id")]
        first = self._rows_by_id.setdefault(name, row)
        if first != row:
            return [Flaw("metadata.question_id", f"{name!r} is row {first}'s already", "give each row its own id")]
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
    validator = Validator(file, Rules(rules.image_root, True, rules.allow_text_only, rules.max_turn_chars))
    for number, row in enumerate(_parquet_rows(file), start=1):
        flaws = []
        if not row.get("agent_name"):
            cure = f"set it to {AGENT_NAME}, or write the file with `steer data convert`"
            flaws.append(Flaw("agent_name", "missing, so verl would silently run its single-turn loop", cure))
        elif row["agent_name"] != AGENT_NAME:
            flaws.append(Flaw("agent_name", f"{row['agent_name']!r} is another agent loop", f"set it to {AGENT_NAME}"))
        try:
            checked = validator.check(number, 1, rl_row(_parquet_seed(row)))
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


def _parquet_seed(row: dict[str, Any]) -> Seed:
    """The seed of a raw row: the opening turn of a foreign row is its prompt, with pictures beside it."""
    images = iter(row.get("images") or [])
    prompt = []
    for message in row.get("prompt") or []:
        pieces = str(message["content"]).split(IMAGE_MARK)
        parts: list[dict[str, Any]] = [{"type": "text", "text": pieces[0]}]
        for piece in pieces[1:]:
            parts += [{"type": "image", "image": next(images, None)}, {"type": "text", "text": piece}]
        prompt.append({"role": message["role"], "content": parts})
    return seed_from_row(row.get("extra_info") or {}, prompt)


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]}); write it again") from None
    missing = {"prompt", "extra_info"} - set(table.schema_arrow.names)
    if missing:
        raise DataError(f"{file}: no column {sorted(missing)[0]}; write the file with `steer data convert`")
    with table:
        for batch in table.iter_batches(batch_size=256):
            yield from batch.to_pylist()
