"""What is offered to the sets, what they hold, and so what keeps a dialogue out of its set.

All of it is on disk: memory stays flat, however many dialogues there are. Outcomes are written in the order in which
dialogues end, which no two runs share; the gate notes where each lies and gives the places back by a hash of the ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple

from steer_verl.data.drawn import drawn
from steer_verl.data.duplicates import DuplicateIndex, Item
from steer_verl.data.rows.schema import plain_words
from steer_verl.data.seed import Made, SetName
from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.data.stages.facts import Facts
from steer_verl.errors import DataError
from steer_verl.images import load_image
from steer_verl.types import DialogueKind
from steer_verl.work.outcomes import Pointer

_TABLES = """
CREATE TABLE offered (side TEXT, benign INTEGER, rank REAL, id TEXT, file TEXT, offset INTEGER);
CREATE INDEX by_rank ON offered (side, benign, rank, id, file, offset);
CREATE TABLE held (what TEXT, name TEXT, side TEXT, PRIMARY KEY (what, name, side)) WITHOUT ROWID;
"""

What = Literal["id", "seed", "image", "file"]
"""A dialogue's id, its source seed, an image that it came from, an image file beside the sets."""


class SetReason(StrEnum):
    """Why a kept dialogue is in no set."""

    DUPLICATE_ID = "duplicate_id"
    """Its id is in the set already."""
    DUPLICATE = "duplicate"
    """Its set has the same, or nearly the same, dialogue about the same image."""
    SAME_SEED = "same_seed"
    """A set filled earlier has it, or another dialogue of the same source seed."""
    SAME_IMAGE = "same_image"
    """A set filled earlier shows the image, or one that was made of it. Sides are dealt by image: a build has none."""
    NEAR_DUPLICATE = "near_duplicate"
    """A set filled earlier has nearly the same dialogue about the same image."""
    BAD_IMAGE = "bad_image"
    """An image is gone or broken."""
    NOT_IN_FORM = "not_in_form"
    """A bench row holds one image, in the first turn; a dialogue of SFT was played."""
    BENIGN_SHARE = "benign_share"
    """The RL set has as many benign seeds as its share allows."""
    OVER_TARGET = "over_target"
    """The set is full."""


Fault = tuple[SetReason, str]
"""Reason and detail."""


class Offer(NamedTuple):
    """A kept dialogue that wants into its side's set."""

    id: str
    pointer: Pointer


class Gate:
    """One assembly's, in temporary files of SQLite's own; images lie below ``images`` under the digest of their
    pixels."""

    def __init__(self, images: Path, duplicates: DuplicateSettings) -> None:
        self._images, self._like = images, DuplicateIndex(duplicates)
        self._base = sqlite3.connect("")
        self._base.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES}")

    def close(self) -> None:
        """Let go of the files."""
        self._base.close()
        self._like.close()

    def offer(self, made: Made, pointer: Pointer) -> None:
        """Note where a dialogue lies. Only RL has a benign share."""
        benign, name = made.side is SetName.RL and made.seed.kind is DialogueKind.BENIGN, made.seed.id
        row = (made.side.value, benign, drawn("set", name), name, str(pointer.path), pointer.offset)
        self._base.execute("INSERT INTO offered VALUES (?, ?, ?, ?, ?, ?)", row)

    def offers(self, side: SetName, *, benign: bool) -> Iterator[Offer]:
        """The dialogues of a side, by rank: those that take up a part of its benign share, or the others."""
        query = "SELECT id, file, offset FROM offered WHERE side = ? AND benign = ? ORDER BY rank, id, file, offset"
        for name, file, offset in self._base.execute(query, (side.value, benign)):
            yield Offer(name, Pointer(Path(file), offset))

    def hold(self, side: SetName, what: What, name: str) -> None:
        """Note what a set holds."""
        self._base.execute("INSERT OR IGNORE INTO held VALUES (?, ?, ?)", (what, name, side.value))

    def holders(self, what: What, name: str) -> list[SetName]:
        """The sets that hold it."""
        found = self._base.execute("SELECT side FROM held WHERE what = ? AND name = ?", (what, name))
        return [SetName(side) for (side,) in found]

    def fault(self, made: Made) -> Fault | None:
        """What is wrong with a dialogue; ``None``: it may enter, and is remembered as a part of its set."""
        item = _item(made)
        found = self._known(made) or _form_fault(made) or self._image_fault(made) or self._alike(made, item)
        if found is None:
            self._like.add(item)
            for what, name in _marks(made):
                self.hold(made.side, what, name)
        return found

    def _known(self, made: Made) -> Fault | None:
        for what, name in _marks(made):
            for side in self.holders(what, name):
                if side is not made.side:
                    reason = SetReason.SAME_IMAGE if what == "image" else SetReason.SAME_SEED
                    return reason, f"{name} is in {side.value}"
                if what == "id":
                    return SetReason.DUPLICATE_ID, name
        return None

    def _image_fault(self, made: Made) -> Fault | None:
        try:
            for name in _images(made):
                load_image(name, root=self._images)
        except DataError as error:
            return SetReason.BAD_IMAGE, str(error)
        return None

    def _alike(self, made: Made, item: Item) -> Fault | None:
        side, _, name = (self._like.first_like(item) or "").partition("/")
        if not side:
            return None
        return (SetReason.DUPLICATE if side == made.side else SetReason.NEAR_DUPLICATE), f"{name} of {side}"


def _marks(made: Made) -> Iterator[tuple[What, str]]:
    """What no two sets may both hold of a dialogue; a perturbed image brings along the one that it was made of."""
    seed, change = made.seed, Facts.of(made.seed.facts).perturbation
    yield "id", seed.id
    yield "seed", seed.id.rpartition("/")[0] or seed.id  # its content's; other rows may have the same source_id
    yield from (("image", name) for name in _images(made))
    if change and change.original:
        yield "image", change.original


def _images(made: Made) -> list[str]:
    return [name for turn in made.asked for name in turn.images]


def _item(made: Made) -> Item:
    """What a dialogue is compared by: its user turns as they were or will be played, and its images."""
    pixels = "+".join(Path(name).stem for name in _images(made))
    return Item(f"{made.side.value}/{made.seed.id}", plain_words(turn.text for turn in made.asked), pixels)


def _form_fault(made: Made) -> Fault | None:
    """What has no place in a row of its set."""
    if not made.asked or (made.side is SetName.SFT and made.trajectory is None):
        return SetReason.NOT_IN_FORM, "the dialogue was not played"
    images, opening = _images(made), made.asked[0].images
    if made.side is SetName.BENCH and (len(images) > 1 or len(images) != len(opening)):
        return SetReason.NOT_IN_FORM, f"{len(images)} images, {len(opening)} in turn 1"
    return None
