"""What a dialogue is known by: its content, wherever it lies and whatever it is called."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.sources.settings import SourceSettings
from steer_verl.eval.benchmarks.items import items_of
from steer_verl.eval.config import BenchmarkSettings
from tests.data.samples import picture, row, write_rows
from tests.eval.benchmarks.samples import foreign_file, items

ROW: dict[str, Any] = {"question_id": "1", "image": "a.png", "messages_fixed": ["What is it?", "Why?"], "answer": "box"}


def digest(folder: Path, value: dict[str, Any] = ROW, **settings: Any) -> str:
    (item,) = items(write_rows(folder / "b.jsonl", [value]), **settings)
    return item.digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "bench/a.png")
    picture(tmp_path / "bench/b.png", colour="blue")
    return tmp_path / "bench"


def test_every_item_has_one_and_reading_again_gives_the_same(tmp_path: Path) -> None:
    path = foreign_file(tmp_path / "bench")
    found = items(path)
    assert all(len(item.digest) == 64 for item in found)
    for other in (True, False):
        part = [item for item in found if bool(item.unplayable) is other]
        asked = {(*item.seed.turns, item.id if other else "") for item in part}
        assert len({item.digest for item in part}) == len(asked)
    shutil.copytree(path.parent, tmp_path / "moved/bench", symlinks=True)
    assert [item.digest for item in items(tmp_path / "moved/bench/foreign.jsonl")] == [item.digest for item in found]


def test_an_id_a_path_and_what_people_note_change_nothing(folder: Path, tmp_path: Path) -> None:
    first = digest(folder)
    shutil.copy(folder / "a.png", folder / "c.png")
    assert digest(folder, {**ROW, "question_id": "other", "image": "c.png", "source": "x", "category": "y"}) == first


@pytest.mark.parametrize(
    "change",
    [
        {"messages_fixed": ["What is it?", "How?"]},
        {"messages_fixed": ["What is it?"]},
        {"messages_fixed": ["What is it?Why?"]},
        {"image": "b.png"},
        {"image": None},
        {"image": ["a.png", "b.png"]},
        {"kind": "benign"},
    ],
)
def test_what_is_asked_is_it(folder: Path, change: dict[str, Any]) -> None:
    assert digest(folder, {**ROW, **change}) != digest(folder)


def test_the_right_answer_and_the_bytes_of_an_image_are_it(folder: Path) -> None:
    first = digest(folder)
    marked = digest(folder, exact_match=True)
    assert marked != first and marked != digest(folder, {**ROW, "answer": "bag"}, exact_match=True)
    shutil.copy(folder / "b.png", folder / "a.png")
    assert digest(folder) != first


def test_the_turn_of_an_image_is_it(folder: Path) -> None:
    def rl(*texts: str) -> dict[str, Any]:
        value = row("x", images=["a.png"], turns=len(texts))
        for message, text in zip([*value["question"], *value["metadata"]["rest_messages"]], texts, strict=True):
            message["content"] = text
        return value

    assert digest(folder, rl("<image>What?", "Why?")) != digest(folder, rl("What?", "<image>Why?"))


def test_what_cannot_be_played_is_another_item_once_it_can(folder: Path) -> None:
    gone = digest(folder, {**ROW, "image": "c.png"})
    shutil.copy(folder / "a.png", folder / "c.png")
    assert digest(folder, {**ROW, "image": "c.png"}) not in (gone, digest(folder, {**ROW, "image": None}))


def test_a_question_of_a_set_is_known_by_its_pixels(folder: Path, tmp_path: Path) -> None:
    def read(image: str, work: str) -> str:
        path = write_rows(folder / "s.jsonl", [{"question": "What?", "license": "MIT", "image": image}])
        benchmark = BenchmarkSettings(source=SourceSettings(set="plain", path=path))
        (item,) = items_of({"bench": benchmark}, tmp_path / work)
        return item.digest

    assert read("a.png", "one") == read("a.png", "two") != read("b.png", "one")
