"""What a row of any set is, and the RL row: the user's side of one dialogue, to be played (docs/formats.md shows it).

A row is read by the schema of its form alone, which keeps all of the form's rules; played.py has the other two. What it
takes a whole file to know (images that open, ids that are new) check.py adds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from unicodedata import category

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from steer_verl.data.jsonl import check_json
from steer_verl.data.rows.flaws import Flaw, RowError, first_flaws, type_flaws
from steer_verl.text import visible
from steer_verl.types import FOREIGN_MARKS, IMAGE_MARK, MAX_TURNS, MIN_TURNS, DialogueKind, Seed, UserTurn

KINDS = tuple(kind.value for kind in DialogueKind)

CAUTIOUS = DialogueKind.RED_TEAM
"""The kind of a row that does not say."""

MAX_TURN_CHARS = 8_000
"""Characters of one user turn. Longer text is a data accident (a dumped file, a repeated string) nearly always."""

NO_WORDS = "no words"

Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A text, or an integer that stands for its digits."""


class Message(BaseModel):
    """One chat message as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: str
    content: str


class Said(NamedTuple):
    """A message and its place in the row."""

    field: str
    role: str
    text: str

    @property
    def silent(self) -> bool:
        """Whether it holds no more than image marks, blanks and characters that show nothing."""
        return is_blank(self.text.replace(IMAGE_MARK, ""))

    def user_flaws(self) -> Iterator[Flaw]:
        """Why it is no turn of the user's."""
        if self.role != "user":
            what = "an assistant turn" if self.role == "assistant" else repr(self.role[:80])
            hint = "keep the user's turns only: answers are given live, and a system prompt is a flag"
            yield Flaw(f"{self.field}.role", what, hint)
        if self.silent:
            yield Flaw(f"{self.field}.content", NO_WORDS, "write what is said")


@dataclass(frozen=True)
class Told:
    """What a row of any form says."""

    form: Literal["rl", "sft", "bench"]
    id_field: str
    id: str
    said: list[Said]
    shown: list[tuple[str, str | bytes]]
    """(field, path as written or bytes) of every image."""
    kind: str = ""
    source: str = ""
    source_id: str = ""
    license: str = ""

    @property
    def asked(self) -> list[str]:
        """The user's turns."""
        return [message.text for message in self.said if message.role == "user"]

    @property
    def marks(self) -> int:
        """How often a message says that an image stands there."""
        return sum(message.text.count(IMAGE_MARK) for message in self.said)

    def mark_flaws(self) -> Iterator[Flaw]:
        """Marks and images that differ in number."""
        if self.marks != len(self.shown):
            hint = f"put one {IMAGE_MARK} where each image belongs, usually at the start of the first question"
            yield Flaw("images", f"{self.marks} {IMAGE_MARK} marks but {len(self.shown)} images", hint)


R = TypeVar("R", bound="Row")


class Row(BaseModel):
    """What the three forms share."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    @classmethod
    def parse(cls: type[R], value: Mapping[str, Any]) -> R:
        """A JSON object -> a row whose fields have the right types; :meth:`flaws` tells the rules that it breaks.

        Raises:
            RowError: missing, unknown and mistyped fields.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise RowError(type_flaws(error)) from None

    @classmethod
    def read(cls: type[R], value: Mapping[str, Any], *, min_turns: int = MIN_TURNS) -> R:
        """A JSON object -> a row that keeps every rule; its images are as written, and not looked at.

        Raises:
            RowError: with everything found.
        """
        row = cls.parse(value)
        if flaws := first_flaws(row.flaws(min_turns)):
            raise RowError(flaws)
        return row

    def flaws(self, min_turns: int = MIN_TURNS) -> Iterator[Flaw]:
        """What keeps it from being a row of its form; ``min_turns`` is for RL rows."""
        if is_blank(self.told.id):
            yield Flaw(self.told.id_field, "empty", "give each row its own id")

    @property
    @abstractmethod
    def told(self) -> Told:
        """What it says, in the terms of all forms."""


class RowMetadata(BaseModel):
    """What an RL row says beyond its opening turn."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rest_messages: list[Message]
    question_id: Name
    kind: Literal["benign", "obfuscated", "red_team"] | None = None
    source: str = ""
    source_id: str = ""
    license: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)


class RlRow(Row):
    """The user's side of a dialogue.

    ``<image>`` marks are counted over ``question`` and then ``rest_messages``; the n-th mark is ``images[n]``, so that
    an image may stand in any turn and several in one. The label may be the kind or free-form; a free-form one is kept
    as ``facts["label"]``. Without any kind a seed is ``red_team``, the cautious reading.
    """

    model_config = ConfigDict(extra="forbid")

    question: list[Message]
    images: list[str] = Field(default_factory=list)
    label: str | int | float | None = None
    metadata: RowMetadata

    @property
    def kind(self) -> str:
        """Its own word, or the label where that is one; empty if it does not say."""
        return self.metadata.kind or (str(self.label) if self.label in KINDS else "")

    @cached_property
    def told(self) -> Told:
        meta = self.metadata
        said = said_in("question", self.question) + said_in("metadata.rest_messages", meta.rest_messages)
        shown = [(f"images[{number}]", path) for number, path in enumerate(self.images)]
        origin = (self.kind or CAUTIOUS.value, meta.source, meta.source_id, meta.license)
        return Told("rl", "metadata.question_id", meta.question_id, said, [*shown], *origin)

    def flaws(self, min_turns: int = MIN_TURNS) -> Iterator[Flaw]:
        yield from super().flaws(min_turns)
        told, meta, turns = self.told, self.metadata, 1 + len(self.metadata.rest_messages)
        if len(self.question) != 1:
            what = f"{len(self.question)} messages"
            yield Flaw("question", what, "keep the opening turn; the others are rest_messages")
        if not min_turns <= turns <= MAX_TURNS:
            yield Flaw("metadata.rest_messages", f"{turns} turns", f"a dialogue has {min_turns} to {MAX_TURNS}")
        for message in told.said:
            yield from message.user_flaws()
            for mark in FOREIGN_MARKS:
                if mark in message.text:
                    yield Flaw(f"{message.field}.content", f"holds {mark}", "reword it")
        yield from told.mark_flaws()
        if meta.kind and self.label in KINDS and self.label != meta.kind:
            yield Flaw("label", f"{self.label} but metadata.kind is {meta.kind}", "make them agree")
        try:
            check_json(meta.facts)
        except ValueError as error:
            yield Flaw("metadata.facts", *error.args)

    def seed(self, images: Sequence[str] | None = None) -> Seed:
        """The dialogue, its images as written, or these paths in their place."""
        paths, meta = iter(self.images if images is None else images), self.metadata
        texts = [message.content for message in (*self.question, *meta.rest_messages)]
        turns = tuple(UserTurn(text=t, images=tuple(islice(paths, t.count(IMAGE_MARK)))) for t in texts)
        label = {} if self.label in (None, "", *KINDS) else {"label": self.label}
        return Seed(
            id=meta.question_id,
            turns=turns,
            kind=DialogueKind(self.kind or CAUTIOUS),
            source=meta.source,
            source_id=meta.source_id,
            license=meta.license,
            facts={**label, **meta.facts},
        )


def rl_row(seed: Seed) -> dict[str, Any]:
    """The row of a seed, as :class:`RlRow` reads it."""
    return {
        "question": [{"role": "user", "content": seed.turns[0].text}],
        "images": [path for turn in seed.turns for path in turn.images],
        "label": seed.kind.value,
        "metadata": {
            "question_id": seed.id,
            "rest_messages": rest_messages(seed),
            "kind": seed.kind.value,
            "source": seed.source,
            "source_id": seed.source_id,
            "license": seed.license,
            "facts": dict(seed.facts),
        },
    }


def rest_messages(seed: Seed) -> list[dict[str, str]]:
    """The static next questions as chat messages."""
    return [{"role": "user", "content": turn.text} for turn in seed.turns[1:]]


def plain_words(texts: Iterable[str]) -> str:
    """User turns as they are compared: one a line, without image marks and doubled spaces."""
    return "\n".join(" ".join(text.replace(IMAGE_MARK, " ").split()) for text in texts)


def said_in(field: str, messages: Iterable[Message]) -> list[Said]:
    """Messages with their places in a list of that name."""
    return [Said(f"{field}[{number}]", m.role, m.content) for number, m in enumerate(messages)]


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing of it: blanks, control and hidden characters alone."""
    shown = visible(f"\n{text}")  # the line end: joiners at the very beginning join nothing, and are dropped
    return all(character.isspace() or category(character) == "Cc" for character in shown)
