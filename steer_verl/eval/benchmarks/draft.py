"""A row on its way to an item: what it says, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from steer_verl.text import BREAK, neutralize, one_line, visible
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, UserTurn

MAX_LABEL = 200
"""Characters of an id, a category and the like; what is longer is cut."""

MAX_REASON = 500
"""Characters of a reason: it may quote what the row says."""

NOTHING_READ = UserTurn(text="")
"""The one turn of an item of whose row no question could be read: as one answer that nobody has, it stays in every
bound."""


def label(text: str) -> str:
    """A short text of somebody else's as tables show it: one line, no marks, nothing hidden, at most ``MAX_LABEL``."""
    words = " ".join(neutralize(visible(text)).split())
    return "".join(character if character.isprintable() else "\ufffd" for character in words)[:MAX_LABEL]


@dataclass
class Draft:
    """What a row says so far."""

    place: str = ""
    """File and row, for messages."""
    id: str = ""
    texts: list[str] = field(default_factory=list)
    """User turns, neutralised, with one image mark for each image."""
    images: list[str] = field(default_factory=list)
    """As written; of a draft that a reader gives, absolute paths of images that open."""
    kind: str = ""
    """Empty: the row does not say."""
    category: str = ""
    source: str = ""
    source_id: str = ""
    license: str = ""
    reference: str = ""
    """A right answer, where the row gives one."""
    facts: dict[str, Any] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    unplayable: str = ""

    def seed(self, kind: DialogueKind) -> Seed:
        """The dialogue: the n-th mark is the n-th image; without images where it cannot be played."""
        left, texts = iter(self.images), self.texts
        if self.unplayable:
            texts = [text.replace(IMAGE_MARK, " ") for text in texts]
        turns = tuple(UserTurn(text=text, images=tuple(islice(left, text.count(IMAGE_MARK)))) for text in texts)
        return Seed(
            id=self.id,
            turns=turns or (NOTHING_READ,),
            kind=kind,
            source=self.source,
            source_id=self.source_id,
            license=self.license,
            facts=self.facts,
        )

    def odd(self, word: str, when: object = True) -> None:
        """Note something unusual, once."""
        if when and word not in self.oddities:
            self.oddities.append(word)

    def refuse(self, word: str, why: str) -> Draft:
        """It cannot be played; the first reason counts."""
        self.odd(word)
        self.unplayable = self.unplayable or one_line(why, MAX_REASON)
        return self

    def ask(self, texts: Iterable[str]) -> None:
        """The user's turns; what they spell between their image marks is neutralised."""
        for text in texts:
            safe = IMAGE_MARK.join(map(neutralize, text.split(IMAGE_MARK)))
            self.odd("special_token", safe.count(BREAK) > text.count(BREAK))
            self.texts.append(safe)

    def short(self, place: Mapping[str, Any], name: str, oddity: str = "odd_field") -> str:
        """A field that is a short text or an integer; empty if it is not there."""
        value = place.get(name)
        if isinstance(value, str) or type(value) is int:
            return label(str(value))
        self.odd(oddity, value is not None)
        return ""
