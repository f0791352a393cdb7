"""RL rows <-> seeds: round trips over generated dialogues, and every way a row can fail to be one."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.data.jsonl import MAX_DEPTH, parse_object
from steer_verl.data.rows.flaws import RowError
from steer_verl.data.rows.schema import RlRow, is_blank, rl_row
from steer_verl.types import MAX_TURNS, MIN_TURNS, DialogueKind, Seed, UserTurn
from tests.data.samples import row

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda s: not is_blank(s) and "<" not in s)


@st.composite
def user_turns(draw: st.DrawFn) -> UserTurn:
    """Words with pictures before, between and after them."""
    pieces = draw(st.lists(text, min_size=1, max_size=4))
    images = draw(st.lists(text, min_size=len(pieces) - 1, max_size=len(pieces) - 1))
    return UserTurn(text="<image>".join(pieces), images=tuple(images))


seeds = st.builds(
    Seed,
    id=text,
    turns=st.lists(user_turns(), min_size=MIN_TURNS, max_size=MAX_TURNS).map(tuple),
    kind=st.sampled_from(DialogueKind),
    source=st.text(st.characters(exclude_categories=["Cs"])),
    license=text,
    facts=st.dictionaries(text, st.integers() | text | st.booleans() | st.lists(text), max_size=3),
)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_a_seed_survives_the_row_and_its_json(seed: Seed) -> None:
    written = json.dumps(rl_row(seed), ensure_ascii=False)
    assert RlRow.read(parse_object(written)).seed() == seed


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_marks_are_counted_in_order_over_all_turns(seed: Seed) -> None:
    value = rl_row(seed)
    again = RlRow.read(value).seed()
    assert [path for turn in again.turns for path in turn.images] == value["images"]
    assert [len(turn.images) for turn in again.turns] == [turn.text.count("<image>") for turn in again.turns]


def broken(**changes: Any) -> dict[str, Any]:
    """A good row with the values at dotted paths replaced; ``...`` deletes."""
    value = copy.deepcopy(row())
    for path, new in changes.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("__"))
        target: Any = value
        for part in way:
            target = target[part]
        if new is ...:
            del target[last]
        else:
            target[last] = new
    return value


user, assistant = {"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes."}
FLAWS: list[tuple[dict[str, Any], str, str]] = [
    (broken(question=...), "question", "missing"),
    (broken(metadata=...), "metadata", "missing"),
    (broken(metadata__question_id=...), "metadata.question_id", "missing"),
    (broken(metadata__rest_messages=...), "metadata.rest_messages", "missing"),
    (broken(question=[], images=[]), "question", "0 messages"),
    (broken(question=[row()["question"][0], user]), "question", "2 messages"),
    (broken(question="What?"), "question", "list"),
    (broken(metadata__rest_messages=[]), "metadata.rest_messages", "1 turns"),
    (broken(metadata__rest_messages=[user] * 10), "metadata.rest_messages", "11 turns"),
    (broken(metadata__rest_messages=[assistant, user]), "metadata.rest_messages[0].role", "assistant"),
    (broken(question__0__role="system"), "question[0].role", "system"),
    (broken(question__0__content="What?"), "images", "0 <image> marks but 1 images"),
    (broken(images=[]), "images", "1 <image> marks but 0 images"),
    (broken(images=["a.png", "b.png"]), "images", "1 <image> marks but 2 images"),
    (broken(images="a.png"), "images", "list"),
    (broken(images=[{"bytes": "AA"}]), "images[0]", "string"),
    (broken(metadata__rest_messages__0__content="  \n"), "metadata.rest_messages[0].content", "no words"),
    (broken(metadata__rest_messages__1__content="<video>?"), "metadata.rest_messages[1].content", "<video>"),
    (broken(question__0__content=[{"type": "text", "text": "?"}]), "question[0].content", "a list of parts"),
    (broken(question__0__name="x"), "question[0].name", "unknown key"),
    (broken(prompt="x"), "prompt", "unknown key"),
    (broken(metadata__hint="x"), "metadata.hint", "unknown key"),
    (broken(metadata__kind="harmful"), "metadata.kind", "harmful"),
    (broken(metadata__kind="red_team"), "label", "benign but metadata.kind is red_team"),
    (broken(metadata__question_id=True), "metadata.question_id", "True"),
    (broken(metadata__question_id=1.5), "metadata.question_id", "1.5"),
    (broken(metadata__facts=[1]), "metadata.facts", "dictionary"),
]


@pytest.mark.parametrize(("value", "field", "what"), FLAWS, ids=[f"{field}-{what}" for _, field, what in FLAWS])
def test_a_flaw_names_field_and_hint(value: dict[str, Any], field: str, what: str) -> None:
    with pytest.raises(RowError) as caught:
        RlRow.read(value)
    (flaw,) = caught.value.flaws
    assert flaw.field == field and what in flaw.what and flaw.hint
    assert "\n" not in str(flaw)


def test_all_flaws_of_a_row_are_found_at_once() -> None:
    value = broken(images=[], question__0__role="system", metadata__rest_messages=[])
    with pytest.raises(RowError) as caught:
        RlRow.read(value)
    assert {flaw.field for flaw in caught.value.flaws} == {"images", "question[0].role", "metadata.rest_messages"}
    assert pickle.loads(pickle.dumps(caught.value)).flaws == caught.value.flaws


@pytest.mark.parametrize(
    ("label", "kind", "expected"),
    [
        ("obfuscated", None, DialogueKind.OBFUSCATED),
        ("chemistry", None, DialogueKind.RED_TEAM),
        ("chemistry", "benign", DialogueKind.BENIGN),
        (None, None, DialogueKind.RED_TEAM),
        (7, "obfuscated", DialogueKind.OBFUSCATED),
    ],
)
def test_the_label_is_a_kind_or_is_kept(label: Any, kind: str | None, expected: DialogueKind) -> None:
    seed = RlRow.read({**row(kind=kind), "label": label}).seed()
    assert seed.kind is expected
    assert seed.facts == ({"label": label} if label in ("chemistry", 7) else {})
    assert RlRow.read(rl_row(seed)).seed() == seed


@pytest.mark.parametrize(("levels", "deep"), [(MAX_DEPTH - 1, False), (MAX_DEPTH, True), (300, True)])
def test_facts_may_not_be_nested_so_deep_that_no_writer_takes_them(levels: int, deep: bool) -> None:
    facts: Any = {"a": 1}
    for level in range(levels - 1, 0, -1):
        facts = {"a": facts} if level % 2 else [facts]
    value = row(facts=facts)
    if not deep:
        seed = RlRow.read(value).seed()
        assert Seed.model_validate_json(seed.model_dump_json()) == seed
        return
    with pytest.raises(RowError, match="too deeply"):
        RlRow.read(value)


def test_a_single_question_is_a_row_where_that_is_meant() -> None:
    value = broken(metadata__rest_messages=[])
    assert [flaw.field for flaw in RlRow.parse(value).flaws()] == ["metadata.rest_messages"]
    assert RlRow.read(value, min_turns=1).seed().turns[0].images == ("a.png",)
