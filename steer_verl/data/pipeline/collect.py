"""The first step: every row of every source becomes a seed with a part to play, or is left out with a reason."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from steer_verl.data.sources.assign import assign
from steer_verl.data.sources.bad import BadRow
from steer_verl.data.sources.duplicates import DuplicateIndex, item_of
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.sources.settings import DuplicateSettings, ShareSettings
from steer_verl.types import DialogueKind, Record
from steer_verl.work.step import Desk, Done, Kept, Rejected, value_of


class CollectReason(str, Enum):
    """Why a row is no seed of the build; a row that cannot be read adds its own (steer_verl/data/sources/bad.py)."""

    DUPLICATE = "duplicate"
    """The same words about the same pixels."""
    NEAR_DUPLICATE = "near_duplicate"
    """Nearly the same words about the same picture."""
    NOT_CLAIMED = "not_claimed"
    """No share of the three seed sets takes it."""


class PlannedSeed(Record):
    """A seed and what is to be made of it."""

    seed: SourceSeed
    kind: DialogueKind

    @property
    def id(self) -> str:
        """The seed's."""
        return self.seed.id


def row_id(row: SourceSeed | BadRow) -> str:
    """A seed's id; a bad row is known by its place and what is wrong with it."""
    return row.id if isinstance(row, SourceSeed) else f"{row.file}#{row.row}: {row.reason}: {row.what}"


class CollectStep:
    """SourceSeed | BadRow -> PlannedSeed. Nothing is asked; its items must come one at a time.

    Args:
        index: file of the near-duplicates' index.
        pictures: the build's folder of pictures.
        duplicates: what counts as one.
        kinds: how seeds are dealt to the three seed sets.
    """

    name = "seeds"

    def __init__(self, index: Path, pictures: Path, duplicates: DuplicateSettings, kinds: ShareSettings) -> None:
        self.pictures, self.duplicates, self.kinds = pictures, duplicates, kinds
        self._index = DuplicateIndex(index, duplicates)

    async def work(self, item: SourceSeed | BadRow, desk: Desk) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        if isinstance(item, BadRow):
            return Rejected(reason=item.reason, detail=str(item))
        value = value_of(item)
        kind = assign(item, self.kinds)
        if kind is None:
            return Rejected(reason=CollectReason.NOT_CLAIMED.value, value=value)
        images = (item.image,) if item.image else ()
        compared = item_of(item.id, item.question, images, self.pictures, self.duplicates)
        if same := self._index.first_same(compared):
            return Rejected(reason=CollectReason.DUPLICATE.value, detail=same, value=value)
        if like := self._index.first_like(compared):
            return Rejected(reason=CollectReason.NEAR_DUPLICATE.value, detail=like, value=value)
        self._index.add(compared)
        return Kept(value=value_of(PlannedSeed(seed=item, kind=kind)))

    async def close(self) -> None:
        """Let go of the index."""
        self._index.close()
