"""The seed as a row: the RL row that people write (JSONL), and the row that verl hands to the agent loop.

A JSONL row holds one dialogue, the user's side only::

    {"question": [{"role": "user", "content": "<image>What is on the desk?"}],
     "images": ["desk.jpg"],
     "label": "benign",
     "metadata": {"question_id": "desk-1", "rest_messages": [{"role": "user", "content": "And behind it?"}],
                  "kind": "benign", "source": "...", "source_id": "...", "license": "...", "facts": {...}}}

``<image>`` marks are counted over ``question`` and then ``rest_messages``; the n-th mark is ``images[n]``, so that a
picture may stand in any turn and several in one. The label may be the kind or free-form; a free-form one is kept as
``facts["label"]``. Without any kind a seed is ``red_team``, the cautious reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steer_verl.errors import DataError
from steer_verl.settings_error import given
from steer_verl.text import one_line
from steer_verl.types import IMAGE_MARK, MAX_TURNS, MIN_TURNS, DialogueKind, Seed, UserTurn

FOREIGN_MARKS = ("<video>", "<audio>")
"""verl's dataset would look for a video or a sound and die (utils/dataset/rl_dataset.py, _build_messages)."""

KINDS = tuple(kind.value for kind in DialogueKind)

MAX_FLAWS = 50
"""Flaws of one row that are told one by one."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Message(_Strict):
    """One chat message as text."""

    role: str
    content: str


class RowMetadata(_Strict):
    """What a row says beyond its opening turn."""

    rest_messages: list[Message]
    question_id: str | int
    kind: Literal["benign", "obfuscated", "red_team"] | None = None
    source: str = ""
    source_id: str = ""
    license: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)


class RlRow(_Strict):
    """A structurally sound JSONL row; whether it makes a dialogue is :func:`dialogue_flaws`'s question."""

    question: list[Message]
    images: list[str] = Field(default_factory=list)
    label: str | int | float | None = None
    metadata: RowMetadata

    @property
    def messages(self) -> list[tuple[str, Message]]:
        """(field name, message) of every turn, in order."""
        opening = [(f"question[{i}]", m) for i, m in enumerate(self.question)]
        return opening + [(f"metadata.rest_messages[{i}]", m) for i, m in enumerate(self.metadata.rest_messages)]


@dataclass(frozen=True)
class Flaw:
    """One thing wrong with a row: which field, what is wrong, and the cure.

    Keys, image names and values of the row may stand in it: each part is made fit for a terminal
    (:func:`~steer_verl.text.one_line`).
    """

    field: str
    what: str
    cure: str

    def __post_init__(self) -> None:
        for name in ("field", "what", "cure"):
            object.__setattr__(self, name, one_line(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.field}: {self.what}; {self.cure}"


def first_flaws(flaws: Iterable[Flaw]) -> tuple[Flaw, ...]:
    """The first :data:`MAX_FLAWS`, and one more that says that there are more: a row can have thousands."""
    found = tuple(flaws)
    if len(found) <= MAX_FLAWS + 1:
        return found
    return (*found[:MAX_FLAWS], Flaw("row", f"more than {MAX_FLAWS} problems", "mend these first"))


class RowError(DataError):
    """A row that is no seed; ``flaws`` holds everything found, as :func:`first_flaws` has it."""

    def __init__(self, flaws: Iterable[Flaw]) -> None:
        self.flaws = first_flaws(flaws)
        super().__init__(" | ".join(map(str, self.flaws)))

    def __reduce__(self) -> tuple[type[RowError], tuple[tuple[Flaw, ...]]]:
        return type(self), (self.flaws,)


def parse_structure(value: Mapping[str, Any]) -> RlRow:
    """Names and types of the fields.

    Raises:
        RowError: a field is missing, unknown or of the wrong type.
    """
    try:
        return RlRow.model_validate(value)
    except ValidationError as error:
        # a union reports each of its members; one line for the field is enough
        found = error.errors(include_url=False)[: 4 * MAX_FLAWS]
        flaws = {flaw.field: flaw for flaw in map(_structure_flaw, found)}
        raise RowError(flaws.values()) from None


def dialogue_flaws(row: RlRow, min_turns: int = MIN_TURNS) -> list[Flaw]:
    """Everything that keeps a structurally sound row from being a dialogue: roles, length, marks, kind."""
    return [*_role_flaws(row, min_turns), *_mark_flaws(row), *_kind_flaws(row)]


def seed_of(row: RlRow, min_turns: int = MIN_TURNS) -> Seed:
    """The seed, with image paths as written.

    Raises:
        RowError: see :func:`dialogue_flaws`.
    """
    if flaws := dialogue_flaws(row, min_turns):
        raise RowError(flaws)
    images = iter(row.images)
    texts = [message.content for _, message in row.messages]
    turns = tuple(UserTurn(text=t, images=tuple(next(images) for _ in range(t.count(IMAGE_MARK)))) for t in texts)
    meta, facts = row.metadata, dict(row.metadata.facts)
    if row.label not in (None, "", *KINDS):
        facts.setdefault("label", row.label)
    kind = DialogueKind(meta.kind or (row.label if row.label in KINDS else DialogueKind.RED_TEAM))
    origin = {"source": meta.source, "source_id": meta.source_id, "license": meta.license}
    return Seed(id=str(meta.question_id), turns=turns, kind=kind, facts=facts, **origin)


def seed_from_rl_row(value: Mapping[str, Any]) -> Seed:
    """A parsed JSONL object -> seed (image paths as written, not looked at).

    Raises:
        RowError: with every flaw found.
    """
    return seed_of(parse_structure(value))


def rl_row(seed: Seed) -> dict[str, Any]:
    """The inverse of :func:`seed_from_rl_row`."""
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


def seed_from_row(extra_info: Mapping[str, Any], raw_prompt: Iterable[Mapping[str, Any]] | None = None) -> Seed:
    """The seed inside a row that verl hands to an agent loop.

    Args:
        extra_info: the row's ``extra_info``. Rows of ``steer data convert`` carry the whole seed there, as JSON. Others
            may carry ``interaction_kwargs.rest_messages`` (and ``question_id`` or ``index``, ``kind``) instead.
        raw_prompt: the row's ``raw_prompt``, which holds the opening turn of such foreign rows, pictures as paths.

    Raises:
        DataError: neither is there, or it is no dialogue.
    """
    text = extra_info.get("seed")
    if text is not None:
        try:
            return Seed.model_validate_json(text)
        except ValidationError as error:
            raise DataError(
                f"extra_info.seed: {_first(error)}; write the file again with `steer data convert`"
            ) from None
    rest = (extra_info.get("interaction_kwargs") or {}).get("rest_messages")
    if rest is None or raw_prompt is None:
        raise DataError(
            "extra_info: no seed and no interaction_kwargs.rest_messages; run `steer data convert` on the JSONL"
        )
    name = extra_info.get("question_id", extra_info.get("index"))
    opening, images = _opening(raw_prompt)
    metadata = {"question_id": str(name), "rest_messages": [dict(m) for m in rest], "kind": extra_info.get("kind")}
    return seed_from_rl_row({"question": opening, "images": images, "metadata": metadata})


def _opening(raw_prompt: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, str]], list[str]]:
    """The messages of a verl prompt but for the system's, parts joined to text again, and the paths of its pictures."""
    messages, images = [], []
    for message in raw_prompt:
        if message["role"] == "system":
            continue
        parts = message["content"]
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else list(parts)
        text = ""
        for part in parts:
            if part["type"] != "image":
                text += part["text"]
                continue
            if not isinstance(part.get("image"), str):
                raise DataError("raw_prompt: a picture by value; give the paths of picture files in the images column")
            text += IMAGE_MARK
            images.append(part["image"])
        messages.append({"role": str(message["role"]), "content": text})
    return messages, images


def _structure_flaw(error: Any) -> Flaw:
    loc = [part for part in error["loc"] if not (isinstance(part, str) and part in ("str", "int", "float"))]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".") or "row"
    if error["type"] == "extra_forbidden":
        return Flaw(field, "unknown key", "remove it, or put it into metadata.facts")
    if error["type"] == "missing":
        return Flaw(field, "missing", "add it (docs: steer_verl/data/rows.py shows a whole row)")
    if field.endswith("content") and isinstance(error["input"], list):
        return Flaw(field, "a list of parts", f"write one string with an {IMAGE_MARK} mark for each picture")
    return Flaw(field, f"{error['msg']}{given(error)}", "see steer_verl/data/rows.py for a whole row")


def _role_flaws(row: RlRow, min_turns: int) -> list[Flaw]:
    flaws = []
    if len(row.question) != 1:
        flaws.append(
            Flaw("question", f"{len(row.question)} messages", "keep the opening turn; the others are rest_messages")
        )
    for field, message in row.messages:
        if message.role == "assistant":
            flaws.append(
                Flaw(f"{field}.role", "an assistant turn", "keep the user's turns only: the student answers them live")
            )
        elif message.role != "user":
            flaws.append(
                Flaw(f"{field}.role", f"{message.role!r}", "only user turns stand here (a system prompt is a flag)")
            )
    turns = 1 + len(row.metadata.rest_messages)
    if not min_turns <= turns <= MAX_TURNS:
        flaws.append(Flaw("metadata.rest_messages", f"{turns} turns", f"a dialogue has {min_turns} to {MAX_TURNS}"))
    return flaws


def _mark_flaws(row: RlRow) -> list[Flaw]:
    flaws = []
    marks = sum(message.content.count(IMAGE_MARK) for _, message in row.messages)
    if marks != len(row.images):
        what = f"{marks} {IMAGE_MARK} marks but {len(row.images)} images"
        cure = f"put one {IMAGE_MARK} where each picture belongs, the first usually at the start of question[0].content"
        flaws.append(Flaw("images", what, cure))
    for field, message in row.messages:
        flaws += [Flaw(f"{field}.content", f"holds {m}", "reword it") for m in FOREIGN_MARKS if m in message.content]
        if not message.content.replace(IMAGE_MARK, "").strip():
            flaws.append(Flaw(f"{field}.content", "no words", "write what the user says"))
    return flaws


def _kind_flaws(row: RlRow) -> list[Flaw]:
    kind = row.metadata.kind
    if kind and row.label in KINDS and row.label != kind:
        return [Flaw("label", f"{row.label} but metadata.kind is {kind}", "make them agree")]
    return []


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
