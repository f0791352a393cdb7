"""Files of the three sets, ours or somebody else's: which form a file has, and every row checked.

=================== ============================================================== =====================================
form                told by                                                        checked as
=================== ============================================================== =====================================
RL, JSONL           ``question``                                                   steer_verl/data/rows.py
RL, parquet         no column ``messages``                                         steer_verl/data/parquet.py
SFT, JSONL, parquet ``messages``                                                   here
bench, JSONL        ``messages_fixed``                                             steer_verl/data/bench_rows.py
=================== ============================================================== =====================================

Several files at once must be disjoint: no id, no source seed and no nearly equal dialogue in two of them
(:class:`Overlaps`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from steer_verl.answer import parse_answer
from steer_verl.data.bench_rows import BENCH_KEY, bench_row_from
from steer_verl.data.jsonl import read_jsonl
from steer_verl.data.likeness import Like
from steer_verl.data.rows import FOREIGN_MARKS, Flaw, RowError
from steer_verl.data.validate import (
    DEFAULT_RULES,
    Checked,
    Problem,
    Rules,
    Told,
    Validator,
    check_jsonl,
    check_parquet,
    parquet_rows,
    plain_words,
)
from steer_verl.errors import DataError
from steer_verl.images import image_changes
from steer_verl.text import neutralize
from steer_verl.types import IMAGE_MARK, MAX_TURNS

SNIFFED_LINES = 20
"""Lines of a JSONL file that are looked at for its form."""


def check_set(file: Path, rules: Rules = DEFAULT_RULES) -> Iterator[Checked]:
    """Check a file of any form row by row.

    Raises:
        DataError: the file cannot be opened, or has no known columns.
    """
    if file.suffix == ".parquet":
        return _check_sft_parquet(file, rules) if "messages" in _columns(file) else check_parquet(file, rules)
    form = next((_FORMS[key] for key in _first_keys(file) if key in _FORMS), None)
    return check_jsonl(file, rules) if form is None else _check_lines(file, rules, form)


class Overlaps:
    """What stands in more than one of several files.

    Args:
        index: a new, empty memory for near-duplicates of one file.
    """

    def __init__(self, index: Callable[[], Like]) -> None:
        self._index = index
        self._files: dict[Path, Like] = {}
        self._ids: dict[str, tuple[Path, int]] = {}
        self._seeds: dict[tuple[str, str], tuple[Path, int]] = {}

    def add(self, file: Path, row: int, told: Told) -> tuple[Problem, ...]:
        """Remember a good row; what it shares with a row of another file, the plainest thing alone."""
        index = self._files.setdefault(file, self._index())
        problem = self._shared(file, told)
        index.add(told)
        self._ids.setdefault(told.id, (file, row))
        if told.source_id:
            self._seeds.setdefault((told.source, told.source_id), (file, row))
        return () if problem is None else (Problem(str(file), row, problem.field, problem.what, problem.cure),)

    def _shared(self, file: Path, told: Told) -> Flaw | None:
        cure = "take it out of one of the two files"
        if (found := self._ids.get(told.id)) and found[0] != file:
            return Flaw("id", f"{told.id!r} is row {found[1]} of {found[0].name} too", cure)
        if (found := self._seeds.get((told.source, told.source_id))) and found[0] != file:
            what = f"{told.source}:{told.source_id} is the source of row {found[1]} of {found[0].name} too"
            return Flaw("source_id", what, cure)
        for other, index in self._files.items():
            if other != file and (like := index.first_like(told)):
                return Flaw("turns", f"nearly the same dialogue and picture as {like!r} of {other.name}", cure)
        return None


Form = Callable[[Validator, int, Mapping[str, Any]], "Told | list[Flaw]"]
"""Reads one row."""


def _check_lines(file: Path, rules: Rules, form: Form) -> Iterator[Checked]:
    validator = Validator(file, rules, played=form is not _sft_row)
    for line in read_jsonl(file):
        if line.value is None:
            yield validator.bad(line.number, line.size, Flaw("line", line.what, line.cure))
        else:
            yield _checked(validator, line.number, line.size, form(validator, line.number, line.value))


def _check_sft_parquet(file: Path, rules: Rules) -> Iterator[Checked]:
    """Pictures stand in the rows, or their paths do, as whoever wrote the file knows them."""
    validator = Validator(
        file, Rules(rules.image_root, True, rules.allow_text_only, rules.max_turn_chars), played=False
    )
    for number, row in enumerate(parquet_rows(file, {"messages"}), start=1):
        yield _checked(validator, number, 1, _sft_row(validator, number, {"id": f"{file}:{number}", **row}))


def _checked(validator: Validator, row: int, size: int, read: Told | list[Flaw]) -> Checked:
    return validator.good(row, size, read) if isinstance(read, Told) else validator.bad(row, size, *read)


def _bench_row(validator: Validator, number: int, value: Mapping[str, Any]) -> Told | list[Flaw]:
    try:
        row = bench_row_from(value)
    except RowError as error:
        return list(error.flaws)
    flaws = validator.id_flaws("question_id", number, row.question_id)
    flaws += [
        flaw for index, text in enumerate(row.turns) for flaw in validator.length_flaws(f"{BENCH_KEY}[{index}]", text)
    ]
    picture = validator.picture(row.image) if row.image else None
    if isinstance(picture, Flaw):
        flaws.append(Flaw("image", picture.what, picture.cure))
    if flaws:
        return flaws
    return Told(
        id=row.question_id,
        turns=len(row.turns),
        text=plain_words(row.turns),
        images=() if picture is None else (str(picture),),
        kind=row.kind or row.category,
        source=row.source,
        source_id=row.source_id,
        license=row.license,
    )


def _sft_row(validator: Validator, number: int, value: Mapping[str, Any]) -> Told | list[Flaw]:
    messages, images = value.get("messages"), value.get("images") or []
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        return [Flaw("messages", "no list of {role, content} with texts", "write the dialogue as chat messages")]
    dialogue = messages[1:] if messages and messages[0]["role"] == "system" else messages
    name = str(value.get("id") or "")
    flaws = validator.id_flaws("id", number, name)
    flaws += [*_role_flaws(dialogue), *_text_flaws(validator, messages), *_count_flaws(messages, images)]
    pictures = [_sft_picture(validator, number, image) for image in images]
    flaws += [Flaw(f"images[{i}]", p.what, p.cure) for i, p in enumerate(pictures) if isinstance(p, Flaw)]
    if flaws:
        return flaws
    origin = {key: str(value.get(key) or "") for key in ("kind", "source", "source_id", "license")}
    return Told(
        id=name,
        turns=len(dialogue) // 2,
        text=plain_words(message["content"] for message in dialogue[::2]),
        images=tuple(picture for picture in pictures if not isinstance(picture, Flaw)),
        **origin,
    )


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _role_flaws(dialogue: list[dict[str, str]]) -> list[Flaw]:
    expected = ["user", "assistant"] * ((len(dialogue) + 1) // 2)
    if not dialogue or [message["role"] for message in dialogue] != expected:
        return [
            Flaw("messages", "no dialogue of user and assistant in turn", "begin with the user, end with an answer")
        ]
    if len(dialogue) // 2 > MAX_TURNS:
        return [Flaw("messages", f"{len(dialogue) // 2} turns", f"a dialogue has at most {MAX_TURNS}")]
    return []


def _text_flaws(validator: Validator, messages: list[dict[str, str]]) -> list[Flaw]:
    flaws: list[Flaw] = []
    for index, message in enumerate(messages):
        field, text, role = f"messages[{index}].content", message["content"], message["role"]
        words = text.replace(IMAGE_MARK, "")
        if role == "user":
            flaws += validator.length_flaws(field, text)
        elif words != text:
            flaws.append(Flaw(field, f"{IMAGE_MARK} in a turn of {role}", "a picture stands in a user turn"))
        if not words.strip():
            flaws.append(Flaw(field, "no words", "write what is said"))
        elif any(mark in words for mark in FOREIGN_MARKS) or neutralize(words) != words:
            flaws.append(Flaw(field, "spells a token of a chat template or of a media file", "reword it"))
        elif role == "assistant" and not parse_answer(text).well_formed:
            cure = "write one <thinking>...</thinking>, then one <answer>...</answer>"
            flaws.append(Flaw(field, "not in the student's format", cure))
    return flaws


def _count_flaws(messages: list[dict[str, str]], images: list[Any]) -> list[Flaw]:
    marks = sum(message["content"].count(IMAGE_MARK) for message in messages)
    if marks == len(images):
        return []
    return [Flaw("images", f"{marks} {IMAGE_MARK} marks but {len(images)} images", "put one mark for each picture")]


def _sft_picture(validator: Validator, row: int, image: Any) -> str | bytes | Flaw:
    """A picture by value, or by path, in any of the layouts that verl takes (utils/dataset/vision_utils.py)."""
    if isinstance(image, dict):
        image = next((image[key] for key in ("bytes", "image", "path") if image.get(key)), None)
    if isinstance(image, str):
        return validator.picture(image.removeprefix("file://"))
    if not isinstance(image, bytes):
        return Flaw("images", "no picture", "give its path or its bytes")
    try:
        name = validator.name_by_value(row)
        validator.note(name, image_changes(image, name=name))
    except DataError as error:
        what, _, cure = str(error).partition("; ")
        return Flaw("images", what, cure)
    return image


_FORMS: dict[str, Form] = {BENCH_KEY: _bench_row, "messages": _sft_row}


def _first_keys(file: Path) -> list[str]:
    """The keys of the first line that is an object."""
    for line, _ in zip(read_jsonl(file), range(SNIFFED_LINES), strict=False):
        if line.value is not None:
            return list(line.value)
    return []


def _columns(file: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(file).names)
    except (OSError, pa.ArrowInvalid):
        return []  # check_parquet tells what is wrong with it
