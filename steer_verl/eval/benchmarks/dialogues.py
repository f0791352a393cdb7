"""Files of dialogues -> items: bench rows (steer_verl/data/bench_rows.py) or RL rows (rows.py), told by their keys.

``.jsonl`` holds one row a line, ``.json`` a list of them, ``.parquet`` what ``steer data convert`` writes. Every row is
one item, in order. What cannot be played says why and carries no pictures; a picture is opened here once, through the
one door (steer_verl/images.py), so that nothing that hangs or bites reaches a student or a judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steer_verl.data.jsonl import Line, read_json, read_jsonl
from steer_verl.data.rows import rl_row
from steer_verl.data.validate import parquet_rows, parquet_seed
from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.draft import Draft, draft_of, placed
from steer_verl.eval.benchmarks.names import Names
from steer_verl.eval.benchmarks.oddities import picture_oddity
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem
from steer_verl.images import load_image
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
    names, pictures = Names(), Pictures(settings.images or settings.file.parent)
    for number, value in _rows(settings.file):
        draft = value if isinstance(value, Draft) else draft_of(value)
        yield _item(benchmark, settings, number, draft, names, pictures)


class Pictures:
    """The pictures of one file: each is opened once, and remembered as a path or as what is wrong with it.

    Args:
        root: folder that no path may leave; absolute paths must lie in it too.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._roots = (root.absolute(), self.root)
        self._found: dict[str, Path | str] = {}

    def find(self, name: str) -> Path | str:
        """The absolute path of a picture that decodes, or what is wrong with it."""
        if name not in self._found:
            below = self._below(name)
            try:
                load_image(below, root=self.root)
                self._found[name] = (self.root / below).resolve()
            except DataError as error:
                self._found[name] = str(error)
        return self._found[name]

    def _below(self, name: str) -> str:
        """An absolute path in the root as the path from there; others are the door's to refuse."""
        below = [Path(name).relative_to(root) for root in self._roots if Path(name).is_relative_to(root)]
        return str(below[0]) if below else name


def _item(
    benchmark: str, settings: BenchmarkSettings, number: int, draft: Draft, names: Names, pictures: Pictures
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
    found = [pictures.find(image) for image in draft.images]
    for what in [what for what in found if isinstance(what, str)]:
        draft.refuse(picture_oddity(what), what)
    turns = placed(draft, [] if draft.unplayable else [str(path) for path in found]) if draft.texts else ()
    unplayable = f"{settings.file}: row {number}: {draft.unplayable}" if draft.unplayable else ""
    return EvalItem(
        id=f"{benchmark}/{name}",
        benchmark=benchmark,
        seed=Seed(
            id=name,
            turns=turns or (NOTHING_READ,),
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
        yield line.number, _broken(line) if line.value is None else line.value


def _broken(line: Line) -> Draft:
    draft = Draft()
    draft.refuse("broken_line", f"{line.what}; {line.hint}")
    return draft


def _parquet_rows(file: Path) -> Iterator[Row]:
    """Rows of verl's parquet in the form of RL rows."""
    import pyarrow as pa

    number = 0
    try:
        for number, row in enumerate(parquet_rows(file, {"extra_info"}), start=1):
            yield number, _parquet_row(row)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        draft = Draft()
        draft.refuse("broken_file", f"from here it cannot be read ({str(error).splitlines()[0]}); fetch the file again")
        yield number + 1, draft


def _parquet_row(row: dict[str, Any]) -> Mapping[str, Any] | Draft:
    try:
        return rl_row(parquet_seed(row))
    except Exception as error:  # columns of another make can be of any type; all of it means: no seed in them
        draft = Draft()
        what = str(error) if isinstance(error, DataError) else f"no seed in it ({type(error).__name__}: {error})"
        draft.refuse("odd_form", what)
        return draft
