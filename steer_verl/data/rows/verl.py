"""The row that verl reads: written for its trainer, and read back by us and by its agent loops.

One row is one dialogue. ``prompt`` and ``images`` hold the opening turn only, for verl's own length filter; the whole
seed travels to the agent loop as one JSON string, ``extra_info.seed``, which spares it the merging of struct types.
``extra_info.interaction_kwargs.rest_messages`` repeats the later turns in the layout that other readers know; foreign
rows have them alone, and the prompt is then their opening turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steer_verl.data.jsonl import regular_file
from steer_verl.data.rows.flaws import Flaw, RowError, type_flaws
from steer_verl.data.rows.played import ForeignMessage
from steer_verl.data.rows.schema import RlRow, rest_messages, rl_row
from steer_verl.data.sources.sets import Origin, Refused
from steer_verl.data.sources.tables import ParquetTable
from steer_verl.errors import DataError
from steer_verl.names import AGENT_LOOP
from steer_verl.types import IMAGE_MARK, MARKS, Seed

DATA_SOURCE = "steer"

AGAIN = "write the file again with `steer data convert`"


class VerlRow(BaseModel):
    """The columns that count."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    agent_name: str | None = None
    prompt: list[ForeignMessage] = Field(default_factory=list)
    images: list[str] | None = None
    videos: list[Any] | None = None
    audios: list[Any] | None = None
    extra_info: dict[str, Any]


def verl_row(
    seed: Seed, index: int, *, split: str, data_source: str = DATA_SOURCE, system_prompt: str | None = None
) -> dict[str, Any]:
    """One row for verl. Image paths go in as they are: make them absolute first."""
    opening = seed.turns[0]
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return {
        "data_source": data_source,
        "agent_name": AGENT_LOOP,
        "prompt": [*system, {"role": "user", "content": opening.text}],
        "images": list(opening.images),
        "ability": "dialogue_safety",
        "reward_model": {"style": "steer", "ground_truth": seed.kind.value},
        "extra_info": {
            "index": index,
            "split": split,
            "question_id": seed.id,
            "kind": seed.kind.value,
            "seed": seed.model_dump_json(),
            "interaction_kwargs": {"rest_messages": rest_messages(seed)},
        },
    }


def read_verl_row(value: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[Flaw]]:
    """A row of verl's table -> its dialogue as an RL row if it holds one, and what is wrong with its columns."""
    try:
        row = VerlRow.model_validate(value)
        opening = [message.model_dump() for message in row.prompt if message.role != "system"]
        found = _rl_value(row.extra_info, opening, row.images or [])
    except ValidationError as error:
        return None, [*type_flaws(error)]
    except RowError as error:
        return None, [*error.flaws]
    return found, _column_flaws(row, opening, found)


def seed_from_row(extra_info: Mapping[str, Any], raw_prompt: Iterable[Mapping[str, Any]] | None = None) -> Seed:
    """The seed of a row that verl hands to an agent loop; ``raw_prompt`` is the opening turn of a foreign row.

    It may have one turn: whether single questions are meant the data checks and the preflight know.

    Raises:
        DataError: no dialogue is there.
    """
    if isinstance(text := extra_info.get("seed"), str):
        return _seed(text)
    return RlRow.read(_rl_value(extra_info, *_opening(raw_prompt or ())), min_turns=1).seed()


def rows_of_table(file: Path, needed: str, wanted: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any] | Refused]]:
    """(number from 1, row of any content or why it cannot be read) of a parquet file, few in memory at once.

    Raises:
        DataError: the file cannot be read, or has no column ``needed``.
    """
    if needed not in columns_of(file):
        raise DataError(f"{file}: no column {needed}; write the file with `steer data convert`")
    return ParquetTable(str(file), Origin(), file.parent).rows(set(wanted))


def columns_of(file: Path) -> set[str]:
    """The names of a parquet file's columns.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return ParquetTable(str(regular_file(file)), Origin(), file.parent).heads()[0]
    except Refused as error:
        raise DataError(f"{file}: {error.what}; {error.hint}") from None


def _rl_value(info: Mapping[str, Any], opening: list[dict[str, str]], images: list[str]) -> dict[str, Any]:
    """A row of any content as an RL row.

    Raises:
        RowError: it holds no dialogue.
    """
    if isinstance(text := info.get("seed"), str):
        return rl_row(_seed(text))
    kwargs = info.get("interaction_kwargs")
    rest = kwargs.get("rest_messages") if isinstance(kwargs, Mapping) else None
    if text is not None or rest is None or not opening:
        hint = "run `steer data convert` on the JSONL"
        raise RowError([Flaw("extra_info", "no seed and no interaction_kwargs.rest_messages", hint)])
    rest = [dict(m) if isinstance(m, Mapping) else m for m in rest] if isinstance(rest, Iterable) else rest
    name = info.get("index") if info.get("question_id") is None else info["question_id"]
    metadata = {"question_id": "" if name is None else str(name), "rest_messages": rest, "kind": info.get("kind")}
    return {"question": opening, "images": images, "metadata": metadata}


def _seed(text: str) -> Seed:
    try:
        return Seed.model_validate_json(text)
    except ValidationError as error:
        flaw = next(iter(type_flaws(error)))
        raise RowError([Flaw(f"extra_info.seed.{flaw.field}".removesuffix(".row"), flaw.what, AGAIN)]) from None


def _column_flaws(row: VerlRow, opening: list[dict[str, str]], found: Mapping[str, Any]) -> list[Flaw]:
    """Where verl would play, open or feed something else than the dialogue."""
    marks = sum(message["content"].count(IMAGE_MARK) for message in found["question"])
    foreign = not isinstance(row.extra_info.get("seed"), str)
    lost = "missing, so verl would silently run its single-turn loop"
    loop = f"{row.agent_name!r} is another agent loop" if row.agent_name else lost
    system = "".join(message.content for message in row.prompt if message.role == "system")
    marked = next((mark for mark in MARKS if mark in system), "")
    media = "verl would open what it names", "leave the column out"
    columns = (
        ("agent_name", row.agent_name == AGENT_LOOP, loop, f"set it to {AGENT_LOOP}, or {AGAIN}"),
        ("prompt", opening == found["question"], "not the opening turn of the dialogue in extra_info.seed", AGAIN),
        (
            "images",
            foreign or (row.images or []) == found["images"][:marks],
            "not those of the opening turn in extra_info.seed, and verl would open them",
            AGAIN,
        ),
        (
            "prompt",
            not marked,
            f"{marked} in the system prompt, which verl would take for an image, a video or a sound",
            "remove it",
        ),
        ("videos", not row.videos, *media),
        ("audios", not row.audios, *media),
    )
    return [Flaw(field, what, hint) for field, right, what, hint in columns if not right]


def _opening(raw_prompt: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, str]], list[str]]:
    """The messages of a verl prompt but for the system's, parts joined to text again, and the paths of its images.

    Raises:
        DataError: an image by value.
    """
    messages, images = [], list[Any]()
    for message in raw_prompt:
        if message["role"] == "system":
            continue
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        images += [part.get("image") for part in parts if part["type"] == "image"]
        text = "".join(IMAGE_MARK if part["type"] == "image" else part["text"] for part in parts)
        messages.append({"role": str(message["role"]), "content": text})
    if not all(isinstance(image, str) for image in images):
        raise DataError("raw_prompt: an image by value; give the paths of image files in the images column")
    return messages, images
