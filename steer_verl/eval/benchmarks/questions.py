"""Single-turn sets -> items of one turn, through the loaders of Stage I (steer_verl/data/sources/read.py).

A question that its set calls safe is ``benign``, and measured for over-refusal; one that it calls unsafe is
``red_team``; where the set is silent the settings say. Rows that the loaders refuse are items too, unplayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_verl.data.image_store import ImageStore
from steer_verl.data.seed import SourceSeed
from steer_verl.data.sources.images import SourceImages
from steer_verl.data.sources.read import read_source
from steer_verl.data.sources.sets import BadRow
from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.dialogues import NOTHING_READ, default_kind
from steer_verl.eval.benchmarks.names import Names, label
from steer_verl.eval.benchmarks.oddities import picture_oddity
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem
from steer_verl.text import BREAK, neutralize
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, UserTurn

_WORDS = {"file": "broken_file", "line": "broken_line", "field": "odd_row", "text": "odd_text"}
"""Reasons of a :class:`BadRow` but for ``image`` -> oddities."""


def question_items(benchmark: str, settings: BenchmarkSettings, work: Path) -> Iterator[EvalItem]:
    """Every question of ``settings.source`` once, and every row that makes none; other forms are passed over.

    Args:
        benchmark: begins the ids.
        settings: with a source.
        work: folder that gets the images, re-encoded and named by their pixels.

    Raises:
        DataError: the set is not there, its columns are another set's, or no row of it can be asked.
    """
    if settings.source is None:
        raise DataError(f"{benchmark}: no source; set benchmarks.{benchmark}.source")
    store, names, source = ImageStore(work.absolute()), Names(), settings.source
    if settings.limit and settings.only is None:  # no more than is played: a source is read before its first item
        source = source.model_copy(update={"limit": min(settings.limit, source.limit or settings.limit)})
    for found in read_source(source, SourceImages(store)):
        if isinstance(found, SourceSeed):
            yield _item(benchmark, settings, found, store.folder, names)
        elif found.reason not in ("other_form", "duplicate"):
            yield _refused(benchmark, settings, found, names)


def reference_of(seed: SourceSeed) -> str:
    """The right answer as steer_verl/eval/benchmarks/exact_match.py reads it: of a choice that the question shows,
    ``(B) quartz``."""
    shown = seed.choice != "" and f"({seed.choice})" in seed.question
    return f"({seed.choice}) {seed.answer}" if shown else seed.answer


def _item(benchmark: str, settings: BenchmarkSettings, seed: SourceSeed, pictures: Path, names: Names) -> EvalItem:
    name = names.unique(label(seed.source_id) or seed.id)
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
            kind=_kind(seed.unsafe, settings),
            source=seed.source,
            source_id=seed.source_id,
            license=seed.license,
            facts=seed.facts,
        ),
        category=label(seed.category),
        reference=reference_of(seed) if settings.exact_match else "",
        oddities=tuple(oddities),
    )


def _kind(unsafe: bool | None, settings: BenchmarkSettings) -> DialogueKind:
    if unsafe is None:
        return default_kind(settings)
    return DialogueKind.RED_TEAM if unsafe else DialogueKind.BENIGN


def _refused(benchmark: str, settings: BenchmarkSettings, bad: BadRow, names: Names) -> EvalItem:
    """Of the kind that its row says, where so much could be read."""
    file = Path(bad.file)
    name = names.unique(label(f"{file.parent.name}/{file.stem}/row-{bad.row}"))
    word = picture_oddity(bad.what) if bad.reason == "image" else _WORDS[bad.reason]
    seed = Seed(id=name, turns=(NOTHING_READ,), kind=_kind(bad.unsafe, settings))
    return EvalItem(id=f"{benchmark}/{name}", benchmark=benchmark, seed=seed, oddities=(word,), unplayable=str(bad))
