"""A row of somebody else's dialogues: what its reader makes of it, or what can be mended; and what is odd about it.

A row is read by its form's one reader (steer_verl/data/rows/). Where that refuses it, the reading goes
on here as far as it can: an evaluation counts what it cannot play.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from steer_verl.data.jsonl import check_json
from steer_verl.data.rows.flaws import RowError
from steer_verl.data.rows.played import BENCH_KEY, BenchRow
from steer_verl.data.rows.schema import KINDS, MAX_TURN_CHARS, NO_WORDS, RlRow, Said
from steer_verl.eval.benchmarks.names import label
from steer_verl.text import BREAK, neutralize
from steer_verl.types import IMAGE_MARK, MAX_TURNS, UserTurn

MAX_PICTURES = 20
"""Of one row. Each is sent to student and judge with every turn."""

MAX_REASON = 500
"""Characters of a reason: it may quote what the row says."""


@dataclass
class Draft:
    """What a row says so far. Nothing is looked up yet: images are as written."""

    id: str = ""
    texts: list[str] = field(default_factory=list)
    """User turns, neutralised, with image marks."""
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

    def odd(self, word: str, when: object = True) -> None:
        """Note something unusual, once."""
        if when and word not in self.oddities:
            self.oddities.append(word)

    def refuse(self, word: str, why: str) -> None:
        """It cannot be played; the first reason counts."""
        self.odd(word)
        self.unplayable = self.unplayable or " ".join(why.split())[:MAX_REASON]

    def short(self, place: Mapping[str, Any], name: str) -> str:
        """A field that is a short text or an integer; empty if it is not there."""
        value = place.get(name)
        if isinstance(value, str) or type(value) is int:
            return label(str(value))
        self.odd("odd_field", value is not None)
        return ""


def draft_of(value: Mapping[str, Any]) -> Draft:
    """A row of either form, told by its keys; never raises."""
    bench = BENCH_KEY in value
    if not bench and not ("question" in value and isinstance(value.get("metadata"), dict)):
        draft = Draft()
        shown = label(", ".join(sorted(value))) or "none"
        draft.refuse("odd_form", f"keys {shown}; a row has {BENCH_KEY}, or question and metadata.rest_messages")
        draft.id = next((name for key in ("question_id", "id") if (name := draft.short(value, key))), "")
        return draft
    try:
        draft = _read((BenchRow if bench else RlRow).read(value, min_turns=1))
    except RowError:
        draft = _mended(value, bench)
    _labelled(draft, value.get("label"))
    place = value if bench else draft.facts
    draft.category = draft.short(place, "category")
    draft.reference = (bench and _reference(value, "reference")) or _reference(place, "answer")
    bare = not draft.images and "picture_bad" not in draft.oddities
    if len(draft.images) > MAX_PICTURES:
        draft.refuse("too_many_pictures", f"{len(draft.images)} images, more than {MAX_PICTURES}; leave some out")
        draft.images = []
    draft.odd("several_pictures", len(draft.images) > 1)
    draft.odd("no_picture", bare)
    draft.odd("one_turn", len(draft.texts) == 1)
    draft.odd("long_turn", any(len(text) > MAX_TURN_CHARS for text in draft.texts))
    draft.texts = [_neutral(draft, text) for text in draft.texts]
    return draft


def placed(draft: Draft, images: list[str]) -> tuple[UserTurn, ...]:
    """The user's turns with their images: the n-th mark is ``images[n]``; what has no mark stands first of all.

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
        first = (*images[:loose], *opening.images)
        turns[0] = UserTurn(text=IMAGE_MARK * loose + opening.text, images=first)
    return tuple(turns)


def _read(row: BenchRow | RlRow) -> Draft:
    """What its reader makes of it."""
    told, seed = row.told, row.seed()
    draft = Draft(
        id=label(told.id),
        texts=[turn.text for turn in seed.turns],
        images=[path for turn in seed.turns for path in turn.images],
        kind=row.kind if row.kind in KINDS else "",
        source=label(told.source),
        source_id=label(told.source_id),
        license=label(told.license),
        facts=seed.facts,
    )
    draft.odd("odd_field", row.kind not in ("", *KINDS))
    return draft


def _mended(value: Mapping[str, Any], bench: bool) -> Draft:
    """What can be played of a row that its reader refuses."""
    draft = _origin(value if bench else value["metadata"])
    draft.images = _paths(draft, value.get("image" if bench else "images"))
    if bench:
        draft.texts = _questions(draft, value[BENCH_KEY])
        _bench_facts(draft, value)
    else:
        opening, rest = value["question"], value["metadata"].get("rest_messages")
        opening = opening if isinstance(opening, list) else [opening]
        draft.texts = _questions(draft, opening + (rest if isinstance(rest, list) else [] if rest is None else [rest]))
        draft.facts = _facts(draft, value["metadata"].get("facts"))
    marks = sum(text.count(IMAGE_MARK) for text in draft.texts)
    draft.odd("extra_mark", marks > len(draft.images))
    draft.odd("no_mark", not bench and marks < len(draft.images))
    if bench:  # a mark says where the image stands anyway, and is dropped
        draft.texts = [text.replace(IMAGE_MARK, " ").strip() for text in draft.texts]
    return draft


def _origin(place: Mapping[str, Any]) -> Draft:
    """Who the row is, as far as its fields are of use."""
    name = place.get("question_id")
    draft = Draft(id=label(str(name)) if isinstance(name, str) or type(name) is int else "")
    for field_name in ("source", "source_id", "license", "kind"):
        setattr(draft, field_name, draft.short(place, field_name))
    draft.odd("odd_field", draft.kind not in ("", *KINDS))
    draft.kind = draft.kind if draft.kind in KINDS else ""
    return draft


def _labelled(draft: Draft, tag: Any) -> None:
    """A label that is a kind counts where there is no other; another one is kept."""
    if isinstance(tag, str) and tag in KINDS:
        draft.odd("odd_field", draft.kind not in ("", tag))
        draft.kind = draft.kind or tag
    elif isinstance(tag, str | int | float) and tag != "":
        draft.facts.setdefault("label", tag)


def _bench_facts(draft: Draft, value: Mapping[str, Any]) -> None:
    if source_category := draft.short(value, "source_category"):
        draft.facts["source_category"] = source_category
    risks = value.get("risk_trajectory")
    plain = isinstance(risks, list) and all(type(risk) is int and 1 <= risk <= 5 for risk in risks)
    draft.odd("odd_risk", bool(risks) and not plain)
    if risks and plain:
        draft.facts["risk_trajectory"] = risks


def _facts(draft: Draft, value: Any) -> dict[str, Any]:
    with suppress(ValueError):
        check_json(value)
        if isinstance(value, dict):
            return value
    draft.odd("odd_field", value is not None)
    return {}


def _reference(place: Mapping[str, Any], name: str) -> str:
    value = place.get(name)
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _paths(draft: Draft, value: Any) -> list[str]:
    """The images that a row names: a path, a list of them, or nothing."""
    paths = [path for path in (value if isinstance(value, list) else [value]) if path not in (None, "")]
    if any(not isinstance(path, str) for path in paths):
        draft.refuse("picture_bad", "an image is not a path; write images into files and give their paths")
        return []
    return paths


def _questions(draft: Draft, messages: Any) -> list[str]:
    """The user's turns of a list of messages or plain strings, the first ``MAX_TURNS`` of them."""
    if not isinstance(messages, list):
        draft.refuse("no_turns", f"{BENCH_KEY} is no list; give the user's turns as a list")
        return []
    asked = [(number, message) for number, message in enumerate(messages, 1) if not _is_answer(message)]
    draft.odd("assistant_turn", len(asked) < len(messages))
    draft.odd("too_many_turns", len(asked) > MAX_TURNS)
    if not asked:
        draft.refuse("no_turns", "no question in it; a row has one user turn or more")
    return [_question(draft, number, message) for number, message in asked[:MAX_TURNS]]


def _is_answer(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _question(draft: Draft, number: int, message: Any) -> str:
    message = message if isinstance(message, dict) else {"content": message}
    role, content = message.get("role", "user"), message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        draft.refuse("odd_turn", f"message {number} is not a text in the user's role; write one string")
        return ""
    for flaw in Said(f"message {number}", role, content).user_flaws():
        draft.refuse("empty_turn" if flaw.what == NO_WORDS else "odd_turn", str(flaw))
    return content if role == "user" else ""


def _neutral(draft: Draft, text: str) -> str:
    safe = IMAGE_MARK.join(map(neutralize, text.split(IMAGE_MARK)))
    draft.odd("special_token", safe.count(BREAK) > text.count(BREAK))
    return safe


def _first_marks(text: str, count: int) -> str:
    """``text`` with its first ``count`` image marks alone. A space for each other one: its ends spell no new mark."""
    parts = text.split(IMAGE_MARK)
    return IMAGE_MARK.join([*parts[:count], " ".join(parts[count:])])
