"""Single-turn sets -> items of one turn, through the loaders of Stage I (steer_verl/data/sources/read.py).

A question that its set calls safe is ``benign``, and measured for over-refusal; one that it calls unsafe is
``red_team``; where the set is silent the settings say. Rows that the loaders refuse are items too, unplayed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from steer_verl.data.sources.bad import BadRow
from steer_verl.data.sources.pictures import PictureStore
from steer_verl.data.sources.read import Ids, read_source
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.dialogues import NOTHING_READ, default_kind
from steer_verl.eval.benchmarks.names import Names, label
from steer_verl.eval.benchmarks.oddities import picture_oddity
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem
from steer_verl.text import BREAK, neutralize
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, UserTurn

_WORDS = {
    "file": "broken_file",
    "line": "broken_line",
    "field": "odd_row",
    "text": "odd_text",
    "duplicate_id": "repeated_id",
}
"""Reasons of a :class:`BadRow` but for ``picture`` -> oddities."""

_OPTION = re.compile(r"^\(([A-Z])\) (.*)$", re.MULTILINE)
"""A choice as the loaders write it (steer_verl/data/sources/benign.py)."""


def question_items(benchmark: str, settings: BenchmarkSettings, work: Path) -> Iterator[EvalItem]:
    """Every row of ``settings.source``; a row that holds several questions gives several items.

    Args:
        benchmark: begins the ids.
        settings: with a source.
        work: folder that gets the pictures, re-encoded and named by their pixels.

    Raises:
        DataError: the set is not there, or the columns are another set's.
    """
    if settings.source is None:
        raise DataError(f"{benchmark}: no source; set benchmarks.{benchmark}.source")
    store, names = PictureStore(work.absolute()), Names()
    for found in read_source(settings.source, store, Ids()):
        if isinstance(found, BadRow):
            yield _refused(benchmark, settings, found, names)
        else:
            yield _item(benchmark, settings, found, store.folder, names)


def reference_of(seed: SourceSeed) -> str:
    """The right answer as steer_verl/eval/benchmarks/exact_match.py reads it: of a choice, ``(B) quartz``."""
    letters = [letter for letter, text in _OPTION.findall(seed.question) if text.strip() == seed.answer]
    return f"({letters[0]}) {seed.answer}" if len(letters) == 1 else seed.answer


def _item(benchmark: str, settings: BenchmarkSettings, seed: SourceSeed, pictures: Path, names: Names) -> EvalItem:
    name = names.unique(label(seed.source_id))
    text = neutralize(seed.question)
    oddities = [] if seed.image else ["no_picture"]
    if text.count(BREAK) > seed.question.count(BREAK):
        oddities.append("special_token")
    images = (str(pictures / seed.image),) if seed.image else ()
    return EvalItem(
        id=f"{benchmark}/{name}",
        benchmark=benchmark,
        seed=Seed(
            id=seed.id,
            turns=(UserTurn(text=IMAGE_MARK * len(images) + text, images=images),),
            kind=_kind(seed, settings),
            source=seed.source,
            source_id=seed.source_id,
            license=seed.license,
            facts=seed.facts,
        ),
        category=label(seed.category),
        reference=reference_of(seed) if settings.exact_match else "",
        oddities=tuple(oddities),
    )


def _kind(seed: SourceSeed, settings: BenchmarkSettings) -> DialogueKind:
    if seed.unsafe is None:
        return default_kind(settings)
    return DialogueKind.RED_TEAM if seed.unsafe else DialogueKind.BENIGN


def _refused(benchmark: str, settings: BenchmarkSettings, bad: BadRow, names: Names) -> EvalItem:
    file = Path(bad.file)
    name = names.unique(label(f"{file.parent.name}/{file.stem}/row-{bad.row}"))
    word = picture_oddity(bad.what) if bad.reason == "picture" else _WORDS[bad.reason]
    seed = Seed(id=name, turns=(NOTHING_READ,), kind=default_kind(settings))
    oddities = (word,)
    return EvalItem(id=f"{benchmark}/{name}", benchmark=benchmark, seed=seed, oddities=oddities, unplayable=str(bad))
