"""Bench rows and SFT rows by their readers: what is read, and what is told of a row that cannot be."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from steer_verl.data.rows.flaws import RowError
from steer_verl.data.rows.played import BenchRow, SftRow
from steer_verl.data.rows.schema import Row
from steer_verl.types import DialogueKind, Seed, UserTurn

GOOD = "<thinking>A box.</thinking><answer>It is a box.</answer>"


def bench(name: str | int = "b-1", turns: int = 3, **more: Any) -> dict[str, Any]:
    """A good row with an image."""
    messages = [{"role": "user", "content": f"{name}: what is part {turn}?"} for turn in range(turns)]
    return {"question_id": name, "image": "a.png", "messages_fixed": messages, "category": "boxes", **more}


def sft(name: str = "s-1", turns: int = 2, **more: Any) -> dict[str, Any]:
    """A good row with an image."""
    messages = []
    for turn in range(turns):
        question = f"{'' if turn else '<image>'}{name}: what is part {turn}?"
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": GOOD}]
    origin = {"kind": "benign", "source": "s", "source_id": name, "license": "CC-BY-4.0"}
    return {"id": name, "messages": messages, "images": ["a.png"], **origin, **more}


def changed(value: dict[str, Any], place: str, new: Any) -> dict[str, Any]:
    """A copy with the value at a dotted path replaced; ``...`` deletes."""
    value = copy.deepcopy(value)
    *way, last = (int(part) if part.isdigit() else part for part in place.split("."))
    inner: Any = value
    for part in way:
        inner = inner[part]
    if new is ...:
        del inner[last]
    else:
        inner[last] = new
    return value


def fields(form: type[Row], value: dict[str, Any]) -> list[str]:
    """Where the reader finds something wrong."""
    with pytest.raises(RowError) as caught:
        form.read(value)
    assert all(flaw.what and flaw.hint and "\n" not in str(flaw) for flaw in caught.value.flaws)
    return [flaw.field for flaw in caught.value.flaws]


def test_a_whole_bench_row() -> None:
    more = {"source_category": "SD", "risk_trajectory": [1, 2, 5], "license": "MIT", "source_id": 7, "kind": "benign"}
    row = BenchRow.read(bench(**more, answer_key="passed over"))
    assert (row.question_id, row.image, row.category, row.source_category) == ("b-1", "a.png", "boxes", "SD")
    assert row.seed() == Seed(
        id="b-1",
        turns=(
            UserTurn(text="<image>b-1: what is part 0?", images=("a.png",)),
            UserTurn(text="b-1: what is part 1?"),
            UserTurn(text="b-1: what is part 2?"),
        ),
        kind=DialogueKind.BENIGN,
        source_id="7",
        license="MIT",
        facts={"source_category": "SD", "risk_trajectory": [1, 2, 5]},
    )


@pytest.mark.parametrize("image", [None, "", ...])
def test_a_bench_row_may_have_no_image_one_turn_and_plain_strings(image: Any) -> None:
    value = {"question_id": 7, "messages_fixed": ["What is a box?"], "image": image}
    row = BenchRow.read(changed(value, "image", ...) if image is ... else value)
    assert row.seed() == Seed(id="7", turns=(UserTurn(text="What is a box?"),)), "the cautious kind where none is told"


def test_a_mark_says_nothing_new_and_is_dropped() -> None:
    row = BenchRow.read(bench(messages_fixed=[{"role": "user", "content": "<image>\nWhat?", "id": 1}, "And <b>?"]))
    assert [turn.text for turn in row.seed().turns] == ["<image>What?", "And <b>?"]


@pytest.mark.parametrize(
    ("place", "new", "field"),
    [
        ("messages_fixed", ..., "messages_fixed"),
        ("question_id", ..., "question_id"),
        ("question_id", " ", "question_id"),
        ("question_id", True, "question_id"),
        ("messages_fixed", [], "messages_fixed"),
        ("messages_fixed", ["x"] * 11, "messages_fixed"),
        ("messages_fixed", ["x", " <image> "], "messages_fixed[1].content"),
        ("messages_fixed", ["x", "\u200b\u2060"], "messages_fixed[1].content"),
        ("messages_fixed", ["x", "\x08"], "messages_fixed[1].content"),
        ("messages_fixed", ["x", "<image>\x1b\u200d \x85"], "messages_fixed[1].content"),
        ("question_id", "\x00", "question_id"),
        ("messages_fixed", [{"role": "assistant", "content": "x"}], "messages_fixed[0].role"),
        ("messages_fixed", [{"role": "user", "content": 3}], "messages_fixed[0].content"),
        ("messages_fixed", ["<image> and <image>?"], "messages_fixed"),
        ("image", ["a.png"], "image"),
        ("image", {"bytes": "AA"}, "image"),
        ("risk_trajectory", [0, 1], "risk_trajectory"),
        ("risk_trajectory", "rising", "risk_trajectory"),
    ],
)
def test_every_fault_of_a_bench_row_is_told_with_its_field(place: str, new: Any, field: str) -> None:
    assert field in fields(BenchRow, changed(bench(risk_trajectory=None), place, new))


def test_a_mark_without_an_image_is_told() -> None:
    assert fields(BenchRow, bench(image=None, messages_fixed=["<image>?"])) == ["messages_fixed"]


@pytest.mark.parametrize(
    ("place", "new", "field"),
    [
        ("messages.1.content", "no format", "messages[1].content"),
        ("messages.1.content", GOOD.replace("a box", "<image>"), "messages[1].content"),
        ("messages.1.content", GOOD.replace("a box", "</s>"), "messages[1].content"),
        ("messages.1.content", GOOD.replace("a box", "\x1b[31m"), "messages[1].content"),
        ("messages.2.content", "  ", "messages[2].content"),
        ("messages.2.content", "look: <video>", "messages[2].content"),
        ("messages.2.content", ["parts"], "messages[2].content"),
        ("messages.2.role", "assistant", "messages"),
        ("messages.3.role", "user", "messages"),
        ("messages.0.role", "system", "messages"),
        ("messages", None, "messages"),
        ("messages", [], "messages"),
        ("images", [], "images"),
        ("images", [7], "images[0]"),
        ("id", None, "id"),
        ("id", "", "id"),
        ("source", ["s"], "source"),
    ],
)
def test_every_fault_of_an_sft_row_is_told_with_its_field(place: str, new: Any, field: str) -> None:
    assert field in fields(SftRow, changed(sft(), place, new))


def test_all_faults_of_an_sft_row_are_told_at_once() -> None:
    value = changed(changed(sft(), "messages.1.content", "no format"), "images", [])
    assert fields(SftRow, changed(value, "id", " ")) == ["id", "messages[1].content", "images"]


def test_a_system_turn_comes_first_or_not_at_all_and_is_no_turn() -> None:
    value, system = sft(), {"role": "system", "content": "Be brief."}
    told = SftRow.read({**value, "messages": [system, *value["messages"]]}).told
    assert told.asked == ["<image>s-1: what is part 0?", "s-1: what is part 1?"]
    assert fields(SftRow, {**value, "messages": [*value["messages"], system]}) == ["messages"]
    assert fields(SftRow, {**value, "messages": [system], "images": []}) == ["messages"]
    assert fields(SftRow, sft(turns=11)) == ["messages"]
