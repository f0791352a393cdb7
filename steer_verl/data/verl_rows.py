"""The row that verl reads: written for its trainer, and read back by us and by its agent loops.

One row is one dialogue. ``prompt`` and ``images`` hold the opening turn only, for verl's own length filter; the whole
seed travels to the agent loop as one JSON string, ``extra_info.seed``, which spares it the merging of struct types.
``extra_info.interaction_kwargs.rest_messages`` repeats the later turns in the layout that other readers know, and
foreign rows may have them alone: the opening turn is then the prompt's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from steer_verl.data.flaws import Flaw, RowError, type_flaws
from steer_verl.data.jsonl import regular_file
from steer_verl.data.rows import RlRow, rest_messages, rl_row
from steer_verl.data.set_rows import ForeignMessage
from steer_verl.data.sources.sets import Origin, Refused
from steer_verl.data.sources.tables import ParquetTable
from steer_verl.errors import DataError
from steer_verl.types import IMAGE_MARK, Seed

AGENT_NAME = "steer_dialogue"
"""The agent loop that a row asks for."""

DATA_SOURCE = "steer"

AGAIN = "write the file again with `steer data convert`"


class _Columns(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def _plain_list(value: Any) -> Any:
    """verl may hand on its own kinds of lists and mappings."""
    if value is None or isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return value
    return [dict(item) if isinstance(item, Mapping) else item for item in value]


class InteractionKwargs(_Columns):
    """What foreign rows keep their later turns in."""

    rest_messages: Annotated[list[ForeignMessage] | None, BeforeValidator(_plain_list)] = None


class ExtraInfo(_Columns):
    """The column that travels to the agent loop."""

    seed: str | None = None
    interaction_kwargs: InteractionKwargs | None = None
    question_id: Any = None
    index: Any = None
    kind: Any = None


class VerlRow(_Columns):
    """The columns that count."""

    agent_name: str | None = None
    prompt: list[ForeignMessage] = []
    images: list[str] | None = None
    videos: list[Any] | None = None
    audios: list[Any] | None = None
    extra_info: ExtraInfo

    @property
    def opening(self) -> list[dict[str, str]]:
        """The prompt without a system's turn."""
        return [m.model_dump() for m in self.prompt if m.role != "system"]


COLUMNS = tuple(VerlRow.model_fields)


def verl_row(
    seed: Seed, index: int, *, split: str, data_source: str = DATA_SOURCE, system_prompt: str | None = None
) -> dict[str, Any]:
    """One row for verl. Image paths go in as they are: make them absolute first."""
    opening = seed.turns[0]
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return {
        "data_source": data_source,
        "agent_name": AGENT_NAME,
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
        found = _rl_value(row.extra_info, row.opening, row.images or [])
    except ValidationError as error:
        return None, [*type_flaws(error)]
    except RowError as error:
        return None, [*error.flaws]
    return found, [*_column_flaws(row, found)]


def columns_of(file: Path) -> set[str]:
    """The names of a parquet file's columns.

    Raises:
        DataError: it is no file that can be read.
    """
    try:
        (columns,) = _table(file).heads()
    except Refused as error:
        raise DataError(f"{file}: {error.what}; {error.hint}") from None
    return columns


def table_rows(file: Path, needed: str, wanted: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any] | Refused]]:
    """(number from 1, row of any content or why it cannot be read) of a parquet file, few in memory at once.

    Raises:
        DataError: it is no file that can be read, or has no column ``needed``.
    """
    if needed not in columns_of(file):
        raise DataError(f"{file}: no column {needed}; write the file with `steer data convert`")
    return _table(file).rows(set(wanted))


def _table(file: Path) -> ParquetTable:
    return ParquetTable(str(regular_file(file)), Origin(), file.parent)


def seed_from_row(extra_info: Mapping[str, Any], raw_prompt: Iterable[Mapping[str, Any]] | None = None) -> Seed:
    """The seed inside a row that verl hands to an agent loop.

    Args:
        extra_info: the row's.
        raw_prompt: the row's, which holds the opening turn of foreign rows, images as paths.

    Raises:
        DataError: no dialogue is there.
    """
    if isinstance(text := extra_info.get("seed"), str):
        return _seed(text)
    try:
        info = ExtraInfo.model_validate(dict(extra_info))
    except ValidationError as error:
        raise RowError(type_flaws(error)) from None
    return RlRow.read(_rl_value(info, *_opening(raw_prompt))).seed()


def _rl_value(info: ExtraInfo, opening: list[dict[str, str]], images: list[str]) -> dict[str, Any]:
    """The RL row of a table's row.

    Raises:
        RowError: it holds none.
    """
    if info.seed is not None:
        return rl_row(_seed(info.seed))
    rest = info.interaction_kwargs.rest_messages if info.interaction_kwargs else None
    if rest is None or not opening:
        hint = "run `steer data convert` on the JSONL"
        raise RowError([Flaw("extra_info", "no seed and no interaction_kwargs.rest_messages", hint)])
    name = info.index if info.question_id is None else info.question_id
    metadata = {
        "question_id": "" if name is None else str(name),
        "rest_messages": [message.model_dump() for message in rest],
        "kind": info.kind,
    }
    return {"question": opening, "images": images, "metadata": metadata}


def _seed(text: str) -> Seed:
    try:
        return Seed.model_validate_json(text)
    except ValidationError as error:
        flaw = next(iter(type_flaws(error)))
        raise RowError([Flaw(f"extra_info.seed.{flaw.field}".removesuffix(".row"), flaw.what, AGAIN)]) from None


def _column_flaws(row: VerlRow, found: Mapping[str, Any]) -> Iterator[Flaw]:
    """Where verl would play, open or feed something else than the dialogue."""
    if not row.agent_name:
        hint = f"set it to {AGENT_NAME}, or write the file with `steer data convert`"
        yield Flaw("agent_name", "missing, so verl would silently run its single-turn loop", hint)
    elif row.agent_name != AGENT_NAME:
        yield Flaw("agent_name", f"{row.agent_name!r} is another agent loop", f"set it to {AGENT_NAME}")
    if row.extra_info.seed is not None and row.opening != found["question"]:
        yield Flaw("prompt", "not the opening turn of the dialogue in extra_info.seed", AGAIN)
    marks = sum(message["content"].count(IMAGE_MARK) for message in found["question"])
    if row.extra_info.seed is not None and (row.images or []) != found["images"][:marks]:
        yield Flaw("images", "not those of the opening turn in extra_info.seed, and verl would open them", AGAIN)
    if any(IMAGE_MARK in message.content for message in row.prompt if message.role == "system"):
        yield Flaw("prompt", f"an {IMAGE_MARK} in the system prompt, which would take the first image", "remove it")
    for name in ("videos", "audios"):
        if getattr(row, name):
            yield Flaw(name, "verl would open what it names", "leave the column out")


def _opening(raw_prompt: Iterable[Mapping[str, Any]] | None) -> tuple[list[dict[str, str]], list[str]]:
    """The messages of a verl prompt but for the system's, parts joined to text again, and the paths of its images.

    Raises:
        DataError: an image by value.
    """
    messages, images = [], []
    for message in raw_prompt or ():
        if message["role"] == "system":
            continue
        parts = message["content"]
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else list(parts)
        text = ""
        for part in parts:
            if part["type"] != "image":
                text += part["text"]
                continue
            if not isinstance(part.get("image"), str):
                raise DataError("raw_prompt: an image by value; give the paths of image files in the images column")
            text += IMAGE_MARK
            images.append(part["image"])
        messages.append({"role": str(message["role"]), "content": text})
    return messages, images
