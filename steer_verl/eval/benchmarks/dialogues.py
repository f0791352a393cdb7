"""Files of dialogues -> items: bench rows (steer_verl/data/rows/played.py) or RL rows (rows.py), told by their keys.

``.jsonl`` holds one row a line, ``.json`` a list of them, ``.parquet`` what ``steer data convert`` writes. Every row is
one item, in order. What cannot be played says why and carries no images; an image is opened here once, through the
one door (steer_verl/images.py), so that nothing that hangs or bites reaches a student or a judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steer_verl.data.jsonl import read_json, read_jsonl, regular_file
from steer_verl.data.rows.images import Images, Opened
from steer_verl.data.rows.verl import VerlRow, read_verl_row, rows_of_table
from steer_verl.data.sources.sets import Refused
from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.draft import Draft, draft_of, placed
from steer_verl.eval.benchmarks.names import Names
from steer_verl.eval.benchmarks.oddities import picture_oddity
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem
from steer_verl.types import DialogueKind, Seed, UserTurn

NOTHING_READ = UserTurn(text="")
"""The one turn of an item of whose row no question could be read: as one answer that nobody has, it stays in every
bound."""

Row = tuple[int, Mapping[str, Any] | Draft]
"""A row's number, from 1, and the row or a draft that says why there is none."""


def dialogue_items(benchmark: str, settings: BenchmarkSettings) -> Iterator[EvalItem]:
    """Every row of ``settings.file``; one row at a time in memory, and of the earlier ones their ids.

    Args:
        benchmark: begins the ids.
        settings: with a file.

    Raises:
        DataError: the file cannot be opened.
    """
    if settings.file is None:
        raise DataError(f"{benchmark}: no file; set benchmarks.{benchmark}.file")
    names, images = Names(), Images(settings.images or settings.file.parent)
    for number, value in _rows(regular_file(settings.file)):
        draft = value if isinstance(value, Draft) else draft_of(value)
        yield _item(benchmark, settings, number, draft, names, images)


def _item(
    benchmark: str, settings: BenchmarkSettings, number: int, draft: Draft, names: Names, images: Images
) -> EvalItem:
    if not draft.id:
        draft.id = f"row-{number}"
        if not draft.unplayable:
            draft.odd("no_id")
    name, oddity = names.give(draft.id, [draft.texts, draft.images])
    if oddity == "duplicate_row":
        draft.refuse(oddity, f"the same dialogue as the earlier one with id {draft.id!r}; remove one")
    elif oddity:
        draft.odd(oddity)
    paths = []
    for image in map(images.open, draft.images):
        if isinstance(image, Opened):
            paths.append(image.name)
        else:
            draft.refuse(picture_oddity(image.what), f"{image.what}; {image.hint}")
    unplayable = f"{settings.file}: row {number}: {draft.unplayable}" if draft.unplayable else ""
    return EvalItem(
        id=f"{benchmark}/{name}",
        benchmark=benchmark,
        seed=Seed(
            id=name,
            turns=placed(draft, [] if draft.unplayable else paths) or (NOTHING_READ,),
            kind=DialogueKind(draft.kind) if draft.kind else default_kind(settings),
            source=draft.source,
            source_id=draft.source_id,
            license=draft.license,
            facts=draft.facts,
        ),
        category=draft.category,
        reference=draft.reference if settings.exact_match else "",
        oddities=tuple(draft.oddities),
        unplayable=unplayable,
    )


def default_kind(settings: BenchmarkSettings) -> DialogueKind:
    """Of a row that does not say: what the settings say, or ``red_team``, the cautious reading."""
    return settings.kind or settings.only or DialogueKind.RED_TEAM


def _rows(file: Path) -> Iterator[Row]:
    if file.suffix == ".parquet":
        yield from _parquet_rows(file)
        return
    for line in (read_json if file.suffix == ".json" else read_jsonl)(file):
        why = f"{line.what}; {line.hint}"
        yield line.number, Draft().refuse("broken_line", why) if line.value is None else line.value


def _parquet_rows(file: Path) -> Iterator[Row]:
    """Rows of verl's table in the form of RL rows."""
    for number, row in rows_of_table(file, "extra_info", VerlRow.model_fields):
        if isinstance(row, Refused):
            yield number, Draft().refuse("broken_file", f"{row.what}; {row.hint}")
            continue
        value, flaws = read_verl_row(row)
        yield number, Draft().refuse("odd_form", str(flaws[0])) if value is None else value
