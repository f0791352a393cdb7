"""A row of somebody else's dialogues, read leniently: what it says, what is odd about it, why it cannot be played.

Where steer_verl/data/bench_rows.py and rows.py refuse a row, the reading goes on here as far as it can: an evaluation
counts what it cannot play. Rows that those accept mean the same here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steer_verl.data.bench_rows import BENCH_KEY
from steer_verl.data.rows import KINDS
from steer_verl.data.validate import MAX_TURN_CHARS
from steer_verl.eval.benchmarks.names import label
from steer_verl.text import BREAK, neutralize, visible
from steer_verl.types import IMAGE_MARK, MAX_TURNS, UserTurn

MAX_PICTURES = 20
"""Of one row. Each is sent to student and judge with every turn."""

MAX_REASON = 500
"""Characters of a reason: it may quote what the row says."""


@dataclass
class Draft:
    """What a row says so far. Nothing is looked up yet: pictures are as written."""

    id: str = ""
    texts: list[str] = field(default_factory=list)
    """User turns, neutralised, with picture marks."""
    images: list[str] = field(default_factory=list)
    kind: str = ""
    category: str = ""
    source: str = ""
    source_id: str = ""
    license: str = ""
    reference: str = ""
    """A right answer, where the row gives one."""
    facts: dict[str, Any] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    unplayable: str = ""

    def odd(self, word: str) -> None:
        """Note something unusual, once."""
        if word not in self.oddities:
            self.oddities.append(word)

    def refuse(self, word: str, why: str) -> None:
        """It cannot be played; the first reason counts."""
        self.odd(word)
        self.unplayable = self.unplayable or " ".join(why.split())[:MAX_REASON]

    def short(self, place: Mapping[str, Any], name: str) -> str:
        """A field that is a short text or an integer; empty if it is not there."""
        value = place.get(name)
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return label(str(value))
        if value is not None:
            self.odd("odd_field")
        return ""


def draft_of(value: Mapping[str, Any]) -> Draft:
    """A row of either form, told by its keys; never raises."""
    if BENCH_KEY in value:
        return _bench(value)
    if "question" in value and isinstance(value.get("metadata"), dict):
        return _rl(value)
    draft = Draft()
    shown = label(", ".join(sorted(value))) or "none"
    draft.refuse("odd_form", f"keys {shown}; a row has {BENCH_KEY}, or question and metadata.rest_messages")
    draft.id = next((name for key in ("question_id", "id") if (name := draft.short(value, key))), "")
    return draft


def placed(draft: Draft, images: list[str]) -> tuple[UserTurn, ...]:
    """The user's turns with their pictures: the n-th mark is ``images[n]``; what has no mark stands first of all.

    Args:
        draft: whose texts they are.
        images: paths as they are to be opened; fewer than there are marks drop the last marks.
    """
    marks = sum(text.count(IMAGE_MARK) for text in draft.texts)
    loose = max(0, len(images) - marks)
    left = images[loose:]
    turns = []
    for text in draft.texts:
        shown, left = left[: text.count(IMAGE_MARK)], left[text.count(IMAGE_MARK) :]
        turns.append(UserTurn(text=_first_marks(text, len(shown)), images=tuple(shown)))
    if loose:
        opening = turns[0]
        pictures = (*images[:loose], *opening.images)
        turns[0] = UserTurn(text=IMAGE_MARK * loose + opening.text, images=pictures)
    return tuple(turns)


def _bench(value: Mapping[str, Any]) -> Draft:
    """A mark says where the picture stands anyway, and is dropped."""
    draft = _origin(value, value, "question_id")
    draft.category = draft.short(value, "category")
    draft.reference = _reference(value, "reference") or _reference(value, "answer")
    draft.images = _paths(draft, value.get("image"))
    texts = _questions(draft, value[BENCH_KEY])
    if sum(text.count(IMAGE_MARK) for text in texts) > len(draft.images):
        draft.odd("extra_mark")
    draft.texts = [text.replace(IMAGE_MARK, " ").strip() for text in texts]
    if source_category := draft.short(value, "source_category"):
        draft.facts["source_category"] = source_category
    if risks := value.get("risk_trajectory"):
        if isinstance(risks, list) and all(type(risk) is int and 1 <= risk <= 5 for risk in risks):
            draft.facts["risk_trajectory"] = risks
        else:
            draft.odd("odd_risk")
    return draft


def _rl(value: Mapping[str, Any]) -> Draft:
    metadata, opening = value["metadata"], value["question"]
    draft = _origin(metadata, value, "question_id")
    if isinstance(facts := metadata.get("facts"), dict):
        draft.facts |= facts
    elif facts is not None:
        draft.odd("odd_field")
    draft.category, draft.reference = draft.short(draft.facts, "category"), _reference(draft.facts, "answer")
    draft.images = _paths(draft, value.get("images"))
    rest = metadata.get("rest_messages")
    opening = opening if isinstance(opening, list) else [opening]
    draft.texts = _questions(draft, opening + (rest if isinstance(rest, list) else [] if rest is None else [rest]))
    marks = sum(text.count(IMAGE_MARK) for text in draft.texts)
    if marks != len(draft.images):
        draft.odd("extra_mark" if marks > len(draft.images) else "no_mark")
    return draft


def _origin(place: Mapping[str, Any], row: Mapping[str, Any], id_key: str) -> Draft:
    """Who the row is. The kind is its own word, or the label where that is one, as rows.py has it."""
    draft = Draft()
    value = place.get(id_key)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        draft.id = label(str(value))
    for name in ("source", "source_id", "license", "kind"):
        setattr(draft, name, draft.short(place, name))
    tag = row.get("label")
    if tag in KINDS and draft.kind not in ("", tag):
        draft.odd("odd_field")
    draft.kind = draft.kind or (str(tag) if tag in KINDS else "")
    if draft.kind and draft.kind not in KINDS:
        draft.odd("odd_field")
        draft.kind = ""
    if isinstance(tag, str | int | float) and tag not in ("", *KINDS):
        draft.facts.setdefault("label", tag)
    return draft


def _reference(place: Mapping[str, Any], name: str) -> str:
    value = place.get(name)
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _paths(draft: Draft, value: Any) -> list[str]:
    """The pictures that a row names: a path, a list of them, or nothing."""
    found = value if isinstance(value, list) else [value]
    paths = [path for path in found if path not in (None, "")]
    if any(not isinstance(path, str) for path in paths):
        draft.refuse("picture_bad", "a picture is not a path; write pictures into files and give their paths")
        return []
    if len(paths) > MAX_PICTURES:
        draft.refuse("too_many_pictures", f"{len(paths)} pictures, more than {MAX_PICTURES}; leave some out")
        return []
    if not paths:
        draft.odd("no_picture")
    if len(paths) > 1:
        draft.odd("several_pictures")
    return paths


def _questions(draft: Draft, messages: Any) -> list[str]:
    """The user's turns of a list of messages or plain strings, neutralised, the first ``MAX_TURNS`` of them."""
    if not isinstance(messages, list):
        draft.refuse("no_turns", f"{BENCH_KEY} is no list; give the user's turns as a list")
        return []
    asked = [(n, message) for n, message in enumerate(messages, 1) if not _is_answer(message)]
    if len(asked) < len(messages):
        draft.odd("assistant_turn")
    if not asked:
        draft.refuse("no_turns", "no question in it; a row has one user turn or more")
    if len(asked) == 1:
        draft.odd("one_turn")
    if len(asked) > MAX_TURNS:
        draft.odd("too_many_turns")
    return [_question(draft, number, message) for number, message in asked[:MAX_TURNS]]


def _is_answer(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _question(draft: Draft, number: int, message: Any) -> str:
    role, content = ("user", message) if isinstance(message, str) else (None, None)
    if isinstance(message, dict):
        role, content = message.get("role", "user"), message.get("content")
    if role != "user":
        draft.refuse("odd_turn", f"message {number} is no user turn; keep the user's turns only")
        return ""
    if not isinstance(content, str):
        draft.refuse("odd_turn", f"message {number} is a {type(content).__name__}, not text; write one string")
        return ""
    if not visible(content.replace(IMAGE_MARK, "")).strip():
        draft.refuse("empty_turn", f"message {number} has no words; write what the user says")
    if len(content) > MAX_TURN_CHARS:
        draft.odd("long_turn")
    return _neutral(draft, content)


def _neutral(draft: Draft, text: str) -> str:
    safe = IMAGE_MARK.join(map(neutralize, text.split(IMAGE_MARK)))
    if safe.count(BREAK) > text.count(BREAK):
        draft.odd("special_token")
    return safe


def _first_marks(text: str, count: int) -> str:
    """``text`` with its first ``count`` picture marks alone. A space for each other one: its ends spell no new mark."""
    parts = text.split(IMAGE_MARK)
    return IMAGE_MARK.join([*parts[:count], " ".join(parts[count:])])
