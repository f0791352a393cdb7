"""Benchmark rows: dialogues that are played as they stand, ours or somebody else's.

One JSON object a line, in the layout of the authors' benchmark::

    {"question_id": "b-17", "image": "pictures/7a.png", "category": "...", "source_category": "...",
     "messages_fixed": [{"role": "user", "content": "What is this?"}, ...], "risk_trajectory": [1, 2, 4]}

``image`` may be null, empty or missing; ``messages_fixed`` has one user turn or more, as messages or as plain strings;
``category``, ``source_category`` and ``risk_trajectory`` are optional, and so are ``source``, ``source_id``,
``license`` and ``kind``, which our own rows carry. Other keys mean nothing and are passed over: the file may be
anybody's. A mark ``<image>`` in the first turn says where the picture stands anyway, and is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steer_verl.data.jsonl import read_jsonl
from steer_verl.data.rows import Flaw, Message, RowError
from steer_verl.errors import DataError
from steer_verl.images import load_image
from steer_verl.settings_error import given
from steer_verl.types import IMAGE_MARK, MAX_TURNS, Record

BENCH_KEY = "messages_fixed"
"""The field that tells a bench row from others."""


class BenchRow(Record):
    """One dialogue of a benchmark: the user's side."""

    question_id: str
    image: str | None = None
    """Path of the picture of turn 1."""
    turns: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_TURNS)]
    """What the user says, without picture marks."""
    category: str = ""
    source_category: str = ""
    risk_trajectory: tuple[int, ...] = ()
    """How risky each turn is meant to be, 1..5; empty where the row does not say."""
    source: str = ""
    source_id: str = ""
    license: str = ""
    kind: str = ""


class _Foreign(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    question_id: str | int
    image: str | None = None
    messages_fixed: list[Message | str]
    category: str | None = None
    source_category: str | None = None
    risk_trajectory: list[int] | None = None
    source: str | None = None
    source_id: str | int | None = None
    license: str | None = None
    kind: str | None = None


def bench_row_from(value: Mapping[str, Any]) -> BenchRow:
    """A parsed JSONL object -> a row (picture as written, not looked at).

    Raises:
        RowError: with every flaw found.
    """
    try:
        row = _Foreign.model_validate(value)
    except ValidationError as error:
        raise RowError({flaw.field: flaw for flaw in map(_structure_flaw, error.errors())}.values()) from None
    if flaws := _flaws(row):
        raise RowError(flaws)
    optional = {
        name: str(getattr(row, name) or "") for name in ("category", "source_category", "source", "license", "kind")
    }
    return BenchRow(
        question_id=str(row.question_id),
        image=row.image or None,
        turns=tuple(_text(message).replace(IMAGE_MARK, " ").strip() for message in row.messages_fixed),
        risk_trajectory=tuple(row.risk_trajectory or ()),
        source_id="" if row.source_id is None else str(row.source_id),
        **optional,
    )


def load_bench(file: Path | str, *, image_root: Path | None = None) -> Iterator[BenchRow]:
    """Every row of a file, pictures checked and their paths absolute; never more than one row in memory.

    Args:
        file: JSONL.
        image_root: folder of the pictures, which no path may leave; the file's own folder unless given.

    Raises:
        DataError: at the first bad row: file, row, what is wrong, the cure (``steer data check`` lists all of them).
    """
    file = Path(file)
    root, first_rows = image_root or file.parent, dict[str, int]()
    for line in read_jsonl(file):
        where = f"{file}: row {line.number}"
        if line.value is None:
            raise DataError(f"{where}: {line.what}; {line.cure}")
        try:
            row = bench_row_from(line.value)
            if row.image is not None:
                load_image(row.image, root=root)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if (first := first_rows.setdefault(row.question_id, line.number)) != line.number:
            raise DataError(f"{where}: question_id {row.question_id!r} is row {first}'s already; give each row its own")
        path = None if row.image is None else str((root / row.image).resolve())
        yield row.model_copy(update={"image": path})


def _text(message: Message | str) -> str:
    return message if isinstance(message, str) else message.content


def _flaws(row: _Foreign) -> list[Flaw]:
    flaws = []
    if not str(row.question_id).strip():
        flaws.append(Flaw("question_id", "empty", "give each row its own id"))
    if not 1 <= len(row.messages_fixed) <= MAX_TURNS:
        flaws.append(Flaw(BENCH_KEY, f"{len(row.messages_fixed)} turns", f"a row has 1 to {MAX_TURNS} user turns"))
    for number, message in enumerate(row.messages_fixed):
        field = f"{BENCH_KEY}[{number}]"
        if isinstance(message, Message) and message.role != "user":
            flaws.append(
                Flaw(f"{field}.role", repr(message.role), "keep the user's turns only: the model answers them")
            )
        if not _text(message).replace(IMAGE_MARK, "").strip():
            flaws.append(Flaw(field, "no words", "write what the user says"))
    marks = sum(_text(message).count(IMAGE_MARK) for message in row.messages_fixed)
    if marks > (1 if row.image else 0):
        flaws.append(Flaw(BENCH_KEY, f"{marks} {IMAGE_MARK} marks", "a row has one picture at most, named by image"))
    risks = row.risk_trajectory or ()
    if any(not 1 <= risk <= 5 for risk in risks):
        flaws.append(Flaw("risk_trajectory", f"{risks}", "give a level 1..5 for each turn, or drop it"))
    return flaws


def _structure_flaw(error: Any) -> Flaw:
    loc = [part for part in error["loc"] if part not in ("str", "int", "Message")]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".") or "row"
    if error["type"] == "missing":
        return Flaw(field, "missing", "add it (steer_verl/data/bench_rows.py shows a whole row)")
    what = f"{error['msg']}{given(error)}"
    return Flaw(field, what, "see steer_verl/data/bench_rows.py for a whole row")
