"""The other two forms of a row: a dialogue to be learnt (SFT), and one that is played as it stands (bench)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from steer_verl.answer import parse_answer
from steer_verl.data.rows.flaws import Flaw
from steer_verl.data.rows.schema import CAUTIOUS, KINDS, NO_WORDS, Message, Name, RlRow, Row, Said, Told, said_in
from steer_verl.text import BREAK, neutralize
from steer_verl.types import IMAGE_MARK, MAX_TURNS, MIN_TURNS, DialogueKind, Seed, UserTurn

BENCH_KEY = "messages_fixed"
UNFORMED = "not in the student's format"

Word = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Number = Annotated[Name, BeforeValidator(lambda value: "" if value is None else value)]
Listed = BeforeValidator(lambda value: [] if value is None else value)


class ForeignMessage(Message):
    """A message of somebody else's, who may note more about it."""

    model_config = ConfigDict(extra="ignore")


class ImageFields(BaseModel):
    """An image as tables hold it; one that is a path or bytes alone is told by ``path`` or ``bytes``."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    data: bytes | None = Field(default=None, alias="bytes")
    image: str | None = None
    path: str | None = None

    @property
    def content(self) -> str | bytes:
        """Its bytes, or its path; empty for none."""
        return self.data or (self.image or self.path or "").removeprefix("file://")

    @property
    def loads(self) -> bool:
        """Whether verl's loader opens it: with bytes, or with ``image``, and never with both fields."""
        fields = self.model_fields_set & {"data", "image"}
        return bool(self.data if fields == {"data"} else self.image if fields == {"image"} else False)


def _image_fields(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else {"bytes": value} if isinstance(value, bytes) else value


Image = Annotated[ImageFields, BeforeValidator(_image_fields)]


def _message(value: Any) -> Any:
    return {"role": "user", "content": value} if isinstance(value, str) else value


class ForeignRow(Row):
    """A row that may say where it comes from. Fields that are not named are for people, and passed over."""

    kind: Word = ""
    source: Word = ""
    source_id: Number = ""
    license: Word = ""


class SftRow(ForeignRow):
    """A played dialogue in the student's form."""

    id: Name
    messages: list[ForeignMessage]
    images: Annotated[list[Image], Listed] = Field(default_factory=list)

    @cached_property
    def told(self) -> Told:
        shown = [(f"images[{number}]", image.content) for number, image in enumerate(self.images)]
        origin = (self.kind, self.source, self.source_id, self.license)
        return Told("sft", "id", self.id, said_in("messages", self.messages), shown, *origin)

    def flaws(self, min_turns: int = MIN_TURNS) -> Iterator[Flaw]:
        yield from super().flaws(min_turns)
        roles = [message.role for message in self.messages]
        roles = roles[1:] if roles[:1] == ["system"] else roles
        turns = (len(roles) + 1) // 2
        if not roles or roles != ["user", "assistant"] * turns:
            what = "no dialogue of user and assistant in turn"
            yield Flaw("messages", what, "begin with the user, end with an answer")
        elif turns > MAX_TURNS:
            yield Flaw("messages", f"{turns} turns", f"a dialogue has at most {MAX_TURNS}")
        for message in self.told.said:
            yield from _learnt_flaws(message)
        yield from self.told.mark_flaws()


class SftTableRow(SftRow):
    """One in a parquet file, which verl's dataset opens as it stands."""

    images: list[Image] = Field(default_factory=list)
    videos: Any = None

    def flaws(self, min_turns: int = MIN_TURNS) -> Iterator[Flaw]:
        yield from super().flaws(min_turns)
        if self.videos:
            yield Flaw("videos", "verl would open what it names", "leave the column out")
        for number, image in enumerate(self.images):
            if image.content and not image.loads:
                hint = 'write {"bytes": ...}, or {"image": path} and no bytes'
                yield Flaw(f"images[{number}]", "in a form that verl's dataset cannot open", hint)


class BenchRow(ForeignRow):
    """The user's side of a dialogue, ours or somebody else's.

    A mark ``<image>`` in it says where the image stands anyway, and is dropped.
    """

    question_id: Name
    image: str | None = None
    """Path of the image of turn 1."""
    messages_fixed: list[Annotated[ForeignMessage, BeforeValidator(_message)]]
    category: Word = ""
    source_category: Word = ""
    risk_trajectory: Annotated[list[int], Listed] = Field(default_factory=list)
    """How risky each turn is meant to be, 1..5; empty where the row does not say."""

    @cached_property
    def told(self) -> Told:
        shown: list[tuple[str, str | bytes]] = [("image", self.image)] if self.image else []
        origin = (self.kind or self.category, self.source, self.source_id, self.license)
        return Told("bench", "question_id", self.question_id, said_in(BENCH_KEY, self.messages_fixed), shown, *origin)

    def flaws(self, min_turns: int = MIN_TURNS) -> Iterator[Flaw]:
        yield from super().flaws(min_turns)
        told = self.told
        if not 1 <= len(told.said) <= MAX_TURNS:
            yield Flaw(BENCH_KEY, f"{len(told.said)} turns", f"a row has 1 to {MAX_TURNS} user turns")
        for message in told.said:
            yield from message.user_flaws()
        if told.marks > bool(self.image):
            yield Flaw(BENCH_KEY, f"{told.marks} {IMAGE_MARK} marks", "a row has one image at most, named by image")
        if any(not 1 <= risk <= 5 for risk in self.risk_trajectory):
            yield Flaw("risk_trajectory", f"{self.risk_trajectory}", "give a level 1..5 for each turn, or drop it")

    def seed(self, images: Sequence[str] | None = None) -> Seed:
        """The dialogue, its image as written, or this path in its place. An unknown kind is ``red_team``."""
        shown = tuple(images) if images is not None else (self.image,) if self.image else ()
        opening, *later = (message.content.replace(IMAGE_MARK, " ").strip() for message in self.messages_fixed)
        turns = (UserTurn(text=IMAGE_MARK * len(shown) + opening, images=shown), *(UserTurn(text=t) for t in later))
        facts = {"source_category": self.source_category, "risk_trajectory": self.risk_trajectory}
        return Seed(
            id=self.question_id,
            turns=turns,
            kind=DialogueKind(self.kind) if self.kind in KINDS else CAUTIOUS,
            source=self.source,
            source_id=self.source_id,
            license=self.license,
            facts={key: fact for key, fact in facts.items() if fact},
        )


FORMS: dict[str, type[Row]] = {BENCH_KEY: BenchRow, "messages": SftRow, "question": RlRow}
"""The key that tells a form -> its schema; of a row that has several, the first of these counts."""


def _learnt_flaws(message: Said) -> Iterator[Flaw]:
    """What keeps a message from being learnt."""
    field, words = f"{message.field}.content", message.text.replace(IMAGE_MARK, "")
    safe = neutralize(words)
    if message.role != "user" and words != message.text:
        yield Flaw(field, f"{IMAGE_MARK} in a turn of {message.role[:80]}", "an image stands in a user turn")
    if message.silent:
        yield Flaw(field, NO_WORDS, "write what is said")
    elif safe != words:
        spelled = safe.count(BREAK) > words.count(BREAK)
        what = "spells a token of a chat template or of a media file" if spelled else "holds control characters"
        yield Flaw(field, what, "reword it" if spelled else "leave them out, and end lines by \\n alone")
    elif message.role == "assistant" and not parse_answer(message.text).well_formed:
        hint = "write one <thinking>...</thinking>, then one <answer>...</answer>"
        yield Flaw(field, UNFORMED, hint)
