"""Bench rows, ours and others': what is read, and what is told of a row that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.bench_rows import BenchRow, bench_row_from, load_bench
from steer_verl.data.rows import RowError
from steer_verl.errors import DataError
from tests.data.samples import picture, write_rows


def bench(name: str | int = "b-1", turns: int = 3, **more: Any) -> dict[str, Any]:
    """A good row with a picture."""
    messages = [{"role": "user", "content": f"{name}: what is part {turn}?"} for turn in range(turns)]
    return {"question_id": name, "image": "a.png", "messages_fixed": messages, "category": "boxes", **more}


def test_a_whole_row() -> None:
    row = bench_row_from(bench(source_category="SD", risk_trajectory=[1, 2, 5], license="MIT", answer_key="ignored"))
    assert row == BenchRow(
        question_id="b-1",
        image="a.png",
        turns=("b-1: what is part 0?", "b-1: what is part 1?", "b-1: what is part 2?"),
        category="boxes",
        source_category="SD",
        risk_trajectory=(1, 2, 5),
        license="MIT",
    )


@pytest.mark.parametrize("image", [None, "", ...])
def test_a_row_may_have_no_picture_one_turn_and_plain_strings(image: Any) -> None:
    value = {"question_id": 7, "messages_fixed": ["What is a box?"], "image": image}
    if image is ...:
        del value["image"]
    assert bench_row_from(value) == BenchRow(question_id="7", turns=("What is a box?",))


def test_a_mark_says_nothing_new_and_is_dropped() -> None:
    row = bench(messages_fixed=[{"role": "user", "content": "<image>\nWhat?"}, "And <b>?"])
    assert bench_row_from(row).turns == ("What?", "And <b>?")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messages_fixed": ...}, "messages_fixed"),
        ({"question_id": ...}, "question_id"),
        ({"question_id": " "}, "question_id"),
        ({"messages_fixed": []}, "messages_fixed"),
        ({"messages_fixed": ["x"] * 11}, "messages_fixed"),
        ({"messages_fixed": ["x", " <image> "]}, "messages_fixed[1]"),
        ({"messages_fixed": [{"role": "assistant", "content": "x"}]}, "messages_fixed[0].role"),
        ({"messages_fixed": [{"role": "user", "content": 3}]}, "messages_fixed[0].content"),
        ({"messages_fixed": ["<image> and <image>?"]}, "messages_fixed"),
        ({"messages_fixed": ["<image>?"], "image": None}, "messages_fixed"),
        ({"image": ["a.png"]}, "image"),
        ({"risk_trajectory": [0, 1]}, "risk_trajectory"),
        ({"risk_trajectory": "rising"}, "risk_trajectory"),
    ],
)
def test_what_is_wrong_is_told_with_its_field_and_a_cure(changes: dict[str, Any], field: str) -> None:
    value = {key: new for key, new in {**bench(), **changes}.items() if new is not ...}
    with pytest.raises(RowError) as error:
        bench_row_from(value)
    assert field in [flaw.field for flaw in error.value.flaws]
    assert all(flaw.what and flaw.cure for flaw in error.value.flaws)


def test_a_file_is_read_with_absolute_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = list(load_bench(write_rows(tmp_path / "b.jsonl", [bench(1), bench(2, image=None, turns=1)])))
    assert [(row.question_id, row.image, len(row.turns)) for row in rows] == [
        ("1", str((tmp_path / "a.png").resolve()), 3),
        ("2", None, 1),
    ]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ('{"torn": ', "not JSON"),
        (bench(1), "row 1's already"),
        (bench(2, image="no.png"), "no such file"),
        (bench(2, image="../a.png"), "'..'"),
        (bench(2, messages_fixed=[]), "0 turns"),
    ],
)
def test_a_bad_row_is_one_line_with_file_row_and_cure(tmp_path: Path, second: Any, says: str) -> None:
    picture(tmp_path / "a.png")
    file = write_rows(tmp_path / "b.jsonl", [bench(1), second, bench(3)])
    with pytest.raises(DataError, match="row 2") as error:
        list(load_bench(file))
    message = str(error.value)
    assert str(file) in message and says in message and ";" in message and "\n" not in message
