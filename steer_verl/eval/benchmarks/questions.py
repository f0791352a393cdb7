"""Single-turn sets -> drafts of one turn, through the loaders of Stage I (steer_verl/data/sources/read.py).

A question that its set calls safe is ``benign``, and measured for over-refusal; one that it calls unsafe is
``red_team``. Rows that ask the same about the same pixels are one question, asked once, as in sets that have a row for
each response; rows that the loaders refuse are drafts too, unplayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from steer_verl.data.image_store import ImageStore
from steer_verl.data.seed import SourceSeed
from steer_verl.data.sources.images import SourceImages
from steer_verl.data.sources.read import read_source
from steer_verl.data.sources.sets import BadRow
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.eval.benchmarks.draft import Draft, label
from steer_verl.eval.benchmarks.oddities import image_oddity
from steer_verl.types import IMAGE_MARK, DialogueKind

_WORDS = {"file": "broken_file", "line": "broken_line", "field": "odd_row", "text": "odd_text"}
"""Reasons of a :class:`BadRow` but for ``image`` -> oddities."""

_KINDS = {None: "", True: DialogueKind.RED_TEAM.value, False: DialogueKind.BENIGN.value}
"""What is said of ``unsafe`` -> the kind; empty: nothing."""


def question_drafts(source: SourceSettings, work: Path) -> Iterator[Draft]:
    """Every question of a set once, and every row that makes none; tables of another form are passed over.

    Args:
        source: the set.
        work: folder that gets the images, re-encoded and named by their pixels.

    Raises:
        DataError: the set is not there, its columns are another set's, or no row of it can be asked.
    """
    store, asked = ImageStore(work.absolute()), set[str]()
    for found in read_source(source, SourceImages(store)):
        if isinstance(found, SourceSeed):
            if found.id not in asked:  # a file may have the same question under several licences
                yield _asked(found, source.place, store.folder)
            asked.add(found.id)
        elif found.reason not in ("other_form", "duplicate"):
            yield _refused(found, source.unsafe)


def reference_of(seed: SourceSeed) -> str:
    """The right answer as steer_verl/eval/benchmarks/exact_match.py reads it: of a choice that the question shows,
    ``(B) quartz``."""
    choice = f"({seed.choice}) {seed.answer}"
    shown = bool(seed.choice) and " ".join(choice.split()) in " ".join(seed.question.split())
    return choice if shown else seed.answer


def _asked(seed: SourceSeed, place: str, folder: Path) -> Draft:
    draft = Draft(
        place=place,
        id=label(seed.source_id) or seed.id,
        images=[str(folder / image) for image in seed.images],
        kind=_KINDS[seed.unsafe],
        category=label(seed.category),
        source=seed.source,
        source_id=seed.source_id,
        license=seed.license,
        reference=reference_of(seed),
        facts=seed.facts,
    )
    draft.odd("no_image", not seed.images)
    draft.ask([IMAGE_MARK * len(seed.images) + seed.question])
    return draft


def _refused(bad: BadRow, unsafe: bool | None) -> Draft:
    """Of the kind that its row says, where so much could be read."""
    file = Path(bad.file)
    place = f"{bad.file}: row {bad.row}" if bad.row else bad.file
    name = label(f"{file.parent.name}/{file.stem}/row-{bad.row}")
    draft = Draft(place, name, kind=_KINDS[unsafe if bad.unsafe is None else bad.unsafe])
    word = image_oddity(bad.what) if bad.reason == "image" else _WORDS[bad.reason]
    return draft.refuse(word, f"{bad.what}; {bad.hint}")
