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
from steer_verl.text import BREAK, neutralize, one_line
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

    @property
    def marks(self) -> int:
        """How often a text says that an image stands there."""
        return sum(text.count(IMAGE_MARK) for text in self.texts)

    def odd(self, word: str, when: object = True) -> None:
        """Note something unusual, once."""
        if when and word not in self.oddities:
            self.oddities.append(word)

    def refuse(self, word: str, why: str) -> Draft:
        """It cannot be played; the first reason counts."""
        self.odd(word)
        self.unplayable = self.unplayable or one_line(why, MAX_REASON)
        return self

    def short(self, place: Mapping[str, Any], name: str, oddity: str = "odd_field") -> str:
        """A field that is a short text or an integer; empty if it is not there."""
        value = place.get(name)
        if isinstance(value, str) or type(value) is int:
            return label(str(value))
        self.odd(oddity, value is not None)
        return ""


def draft_of(value: Mapping[str, Any]) -> Draft:
    """A row of either form, told by its keys; never raises."""
    bench, draft = BENCH_KEY in value, Draft()
    place = value if bench else value.get("metadata")
    if not isinstance(place, Mapping) or not (bench or "question" in value):
        draft.id = next((name for key in ("question_id", "id") if (name := draft.short(value, key))), "")
        keys = label(", ".join(sorted(value))) or "none"
        return draft.refuse("odd_form", f"keys {keys}; a row has {BENCH_KEY}, or question and metadata.rest_messages")
    try:
        seed = (BenchRow if bench else RlRow).read(value, min_turns=1).seed()
        draft.texts, draft.facts = [turn.text for turn in seed.turns], seed.facts
        draft.images = [path for turn in seed.turns for path in turn.images]
    except RowError:
        _mend(draft, value, bench)
    _describe(draft, value, place)
    draft.reference = (bench and _reference(value, "reference")) or _reference(
        value if bench else draft.facts, "answer"
    )
    draft.odd("no_picture", not draft.images and "picture_bad" not in draft.oddities)
    if len(draft.images) > MAX_PICTURES:
        draft.refuse("too_many_pictures", f"{len(draft.images)} images, more than {MAX_PICTURES}; leave some out")
        draft.images = []
    draft.odd("several_pictures", len(draft.images) > 1)
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
    loose = max(0, len(images) - draft.marks)
    left = images[loose:]
    turns = []
    for text in draft.texts:
        shown, left = left[: text.count(IMAGE_MARK)], left[text.count(IMAGE_MARK) :]
        turns.append(UserTurn(text=_first_marks(text, len(shown)), images=tuple(shown)))
    if loose:
        text, first = IMAGE_MARK * loose + turns[0].text, (*images[:loose], *turns[0].images)
        turns[0] = UserTurn(text=text, images=first)
    return tuple(turns)


def _mend(draft: Draft, value: Mapping[str, Any], bench: bool) -> None:
    """What can be played of a row that its reader refuses."""
    draft.images = _paths(draft, value.get("image" if bench else "images"))
    if bench:
        draft.texts, draft.facts = _questions(draft, value[BENCH_KEY]), _bench_facts(draft, value)
    else:
        opening, rest = value["question"], value["metadata"].get("rest_messages")
        messages = [*_listed(opening), *([] if rest is None else _listed(rest))]
        draft.texts, draft.facts = _questions(draft, messages), _facts(draft, value["metadata"].get("facts"))
    draft.odd("extra_mark", draft.marks > len(draft.images))
    draft.odd("no_mark", not bench and draft.marks < len(draft.images))
    if bench:  # a mark says where the image stands anyway, and is dropped
        draft.texts = [text.replace(IMAGE_MARK, " ").strip() for text in draft.texts]


def _describe(draft: Draft, value: Mapping[str, Any], place: Mapping[str, Any]) -> None:
    """Who the row is. A label that is a kind counts where there is no other; another one is kept."""
    draft.id = draft.short(place, "question_id", "no_id")
    for name in ("source", "source_id", "license"):
        setattr(draft, name, draft.short(place, name))
    draft.category = draft.short(value if BENCH_KEY in value else draft.facts, "category")
    tag, kind = value.get("label"), draft.short(place, "kind")
    tagged = isinstance(tag, str) and tag in KINDS
    draft.odd("odd_field", kind not in ("", *KINDS) or (tagged and kind not in ("", tag)))
    draft.kind = kind if kind in KINDS else str(tag) if tagged else ""
    if isinstance(tag, str | int | float) and tag != "" and not tagged:
        draft.facts.setdefault("label", tag)


def _bench_facts(draft: Draft, value: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"source_category": draft.short(value, "source_category"), "risk_trajectory": value.get("risk_trajectory")}
    risks = facts["risk_trajectory"] or []
    if not isinstance(risks, list) or any(type(risk) is not int or not 1 <= risk <= 5 for risk in risks):
        draft.odd("odd_risk")
        del facts["risk_trajectory"]
    return {name: fact for name, fact in facts.items() if fact}


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
    paths = _listed(value)
    if all(path in (None, "") for path in paths):
        return []
    if not all(isinstance(path, str) and path for path in paths):
        draft.refuse("picture_bad", "an image is not a path; write images into files and give their paths")
        return []
    return paths


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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
