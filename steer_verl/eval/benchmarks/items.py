"""Everything that a run plays: the items of all its benchmarks, one after the other.

Reading begins anew with each call and gives the same items in the same order in every process, as long as the files
stay: a run that was killed, and the tasks of a cluster, find their places by the ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path

from steer_verl.data.rows.schema import CAUTIOUS
from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.dialogues import dialogue_drafts
from steer_verl.eval.benchmarks.draft import Draft
from steer_verl.eval.benchmarks.oddities import UNREAD
from steer_verl.eval.benchmarks.questions import question_drafts
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem
from steer_verl.types import DialogueKind, Seed

logger = logging.getLogger(__name__)


def items_of(benchmarks: Mapping[str, BenchmarkSettings], work: Path) -> Iterator[EvalItem]:
    """One item for each row of each benchmark, in order; ids are ``<benchmark>/<the row's own id>`` and unique.

    Rows of a kind that ``only`` does not ask for are left out; so are, with a warning, rows that cannot be read where
    nobody says their kind. Memory does not grow with the files but for the ids.

    Args:
        benchmarks: name -> settings.
        work: folder for the re-encoded images of single-turn sets; several processes may share it.

    Raises:
        DataError: a file or a set is not there, its columns are another set's, or it has no row. Never for a row.
    """
    for name, settings in benchmarks.items():
        empty = True
        for item in islice(_Items(name, settings).read(work), settings.limit):
            empty = False
            yield item
        if empty:
            place = settings.file or (settings.source and settings.source.place)
            hint = "check the path, `split` and `only`, and set `kind` for rows that do not say theirs"
            raise DataError(f"benchmark {name}: no row to play in {place}; {hint}")


def item_digest(seed: Seed, reference: str, *, image: Callable[[str], str] | None = None) -> str:
    """What a dialogue is, wherever it lies: sha256 of its kind, the right answer, and each turn's text and images.

    Args:
        seed: the user's side; its images must be there.
        reference: the right answer of the last turn; empty for none.
        image: path -> what the image is known by; unset, the sha256 of the file's bytes.

    Raises:
        DataError: an image is not there any more.
    """
    turns = [[turn.text, [*map(image or _file_digest, turn.images)]] for turn in seed.turns]
    return _digest(seed.kind.value, reference, turns)


class _Items:
    """The items of one benchmark."""

    def __init__(self, name: str, settings: BenchmarkSettings) -> None:
        self.name, self.settings, self.ids = name, settings, Ids()
        self.image = cache(_file_digest) if settings.file else _pixels

    def read(self, work: Path) -> Iterator[EvalItem]:
        only, unknown, first = self.settings.only, 0, ""
        try:
            for draft in self._drafts(work):
                kind = self._kind(draft)
                if only in (None, kind):
                    yield self._item(draft, kind or CAUTIOUS)
                elif kind is None:
                    unknown, first = unknown + 1, first or f"{draft.place}: {draft.unplayable}"
        finally:
            if only and unknown:
                told = "%s: rows that cannot be read and may be of any kind: %d, not counted as %s; the first: %s"
                logger.warning(told, self.name, unknown, only.value, first)

    def _kind(self, draft: Draft) -> DialogueKind | None:
        """``None``: the row cannot be read, and nobody says what it is."""
        if said := draft.kind or self.settings.kind:
            return DialogueKind(said)
        return CAUTIOUS if UNREAD.keys().isdisjoint(draft.oddities) else None

    def _drafts(self, work: Path) -> Iterable[Draft]:
        limit, source = self.settings.limit, self.settings.source
        if source is None:
            file = self.settings.file or Path()
            return dialogue_drafts(file, self.settings.images or file.parent)
        if limit and self.settings.only is None:  # no more than is played: a source is read before its first item
            source = source.model_copy(update={"limit": min(limit, source.limit or limit)})
        return question_drafts(source, work)

    def _item(self, draft: Draft, kind: DialogueKind) -> EvalItem:
        reference, wanted, seed = draft.reference if self.settings.exact_match else "", draft.id, draft.seed(kind)
        digest = item_digest(seed, reference, image=self.image)
        draft.id = self.ids.unique(wanted)
        if not draft.unplayable and self.ids.again(wanted, digest):
            draft.refuse("duplicate_row", f"the same dialogue as the earlier one with id {wanted!r}; remove one")
        draft.odd("duplicate_id", draft.id != wanted and not draft.unplayable)
        if draft.unplayable:  # another item once it can be played; broken lines are several items
            digest = _digest(digest, draft.id, draft.oddities)
        return EvalItem(
            id=f"{self.name}/{draft.id}",
            benchmark=self.name,
            seed=seed if draft.id == wanted else draft.seed(kind),
            category=draft.category,
            reference=reference,
            oddities=tuple(draft.oddities),
            unplayable=f"{draft.place}: {draft.unplayable}" if draft.unplayable else "",
            digest=digest,
        )


class Ids:
    """The ids of one benchmark so far. Ids and digests are all that is remembered of a row."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._contents: set[tuple[str, bytes]] = set()

    def unique(self, wanted: str) -> str:
        """``wanted``, or ``wanted#2``, ``#3``, ... if it is taken; the same order of calls gives the same ids."""
        name, number = wanted, self._last.get(wanted, 1)
        while name in self._last:
            number += 1
            name = f"{wanted}#{number}"
        self._last[wanted] = number
        self._last.setdefault(name, 1)
        return name

    def again(self, wanted: str, digest: str) -> bool:
        """Whether this content was there under this id."""
        content = (wanted, bytes.fromhex(digest)[:16])
        known = content in self._contents
        self._contents.add(content)
        return known


def _digest(*content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _pixels(path: str) -> str:
    """Of an image in a store, which is named by its pixels: its bytes differ from one version of Pillow to another."""
    return Path(path).stem


def _file_digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"image {path}: cannot be read any more ({error.strerror}); start again") from None
