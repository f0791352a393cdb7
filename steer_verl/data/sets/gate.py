"""What keeps a dialogue out of its set."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from steer_verl.data.duplicates import DuplicateIndex, Item
from steer_verl.data.rows.schema import plain_words
from steer_verl.data.seed import Made, SetName
from steer_verl.data.sets.ledger import Ledger, What
from steer_verl.data.sets.settings import SetSettings
from steer_verl.data.stages.facts import Facts
from steer_verl.errors import DataError
from steer_verl.images import load_image


class SetReason(str, Enum):
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


class Gate:
    """Decides on one dialogue after the other, whatever room its set has.

    Args:
        ledger: remembers what the sets hold.
        images: folder that the dialogues' image paths lie below, each image named by the digest of its pixels.
        like: remembers their texts.
    """

    def __init__(self, ledger: Ledger, images: Path, like: DuplicateIndex) -> None:
        self._ledger, self._like = ledger, like
        self._image_fault = functools.lru_cache(maxsize=4096)(functools.partial(_image_fault, images))

    def fault(self, made: Made) -> Fault | None:
        """What is wrong with a dialogue; ``None``: it may enter, and is remembered as a part of its set."""
        item = _item(made)
        found = self._known(made) or _form_fault(made) or self._shown_fault(made) or self._alike(made, item)
        if found is None:
            self._like.add(item)
            for what, name in _marks(made):
                self._ledger.hold(made.side, what, name)
        return found

    def _known(self, made: Made) -> Fault | None:
        """Whether a set has the dialogue, its source seed or its images already."""
        if made.side in self._ledger.holders("id", made.seed.id):
            return SetReason.DUPLICATE_ID, made.seed.id
        for what, name in _marks(made):
            for side in self._ledger.holders(what, name) - {made.side}:
                return (SetReason.SAME_IMAGE if what == "image" else SetReason.SAME_SEED), f"{name} is in {side.value}"
        return None

    def _shown_fault(self, made: Made) -> Fault | None:
        faults = filter(None, map(self._image_fault, _images(made)))
        return next(((SetReason.BAD_IMAGE, fault) for fault in faults), None)

    def _alike(self, made: Made, item: Item) -> Fault | None:
        other = self._like.first_like(item)
        if other is None:
            return None
        side, _, name = other.partition("/")
        same_set = side == made.side.value
        return (SetReason.DUPLICATE if same_set else SetReason.NEAR_DUPLICATE), f"{name} of {side}"


@dataclass
class Room:
    """How many dialogues a set still takes: benign ones up to a share of it, others where that leaves them a place."""

    target: float = math.inf
    benign_share: float = 1.0
    for_benign: int = 0
    """Places of the target that the others leave to benign ones."""
    kept: Counter[bool] = field(default_factory=Counter)
    """By whether they are benign."""

    @classmethod
    def of(cls, side: SetName, settings: SetSettings, ledger: Ledger) -> Room:
        """What the settings give a set."""
        target = getattr(settings, side.value) or math.inf
        if side is not SetName.RL:
            return cls(target)
        share = settings.rl_benign_share
        wanted = 0 if target == math.inf else math.floor(share * target)
        return cls(target, share, min(wanted, ledger.count(side, benign=True)))

    def refuses(self, benign: bool) -> SetReason | None:
        """Why one more finds no room."""
        total = self.kept.total()
        if benign and self.kept[True] + 1 > self.benign_share * (total + 1) + 1e-9:
            return SetReason.BENIGN_SHARE
        full = total >= self.target or (not benign and self.kept[False] >= self.target - self.for_benign)
        return SetReason.OVER_TARGET if full else None


def _marks(made: Made) -> Iterator[tuple[What, str]]:
    """What no two sets may both hold of a dialogue; a perturbed image brings along the one that it was made of."""
    seed, change = made.seed, Facts.of(made.seed.facts).perturbation
    yield "id", seed.id
    yield "seed", f"{seed.source}:{seed.source_id}" if seed.source_id else seed.id
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


def _image_fault(root: Path, name: str) -> str:
    try:
        load_image(name, root=root)
    except DataError as error:
        return str(error)
    return ""
