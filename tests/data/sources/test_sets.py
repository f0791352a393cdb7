"""Every set, as look-alikes of its files: which seeds its rows become, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.sources.registry import SETS, form_of, looks_like
from steer_verl.errors import DataError
from steer_verl.images import load_image
from tests.data.sources.samples import (
    beavertails,
    beavertails_pair,
    draw,
    inline,
    mossbench,
    read,
    science,
    spa_vl,
    vlguard_safe,
    vlguard_unsafe,
    vlsbench,
    write_json,
    write_parquet,
)


def test_beavertails_keeps_category_and_severity_and_only_a_safe_response_is_an_answer(tmp_path: Path) -> None:
    rows = [beavertails(), beavertails(is_response_safe="no", category="fraud")]
    path = write_parquet(tmp_path / "theft/train-00000-of-00001.parquet", rows)
    (first, second), bad = read(tmp_path, set="beavertails_v", path=path)
    assert not bad
    assert (first.question, first.category, first.unsafe) == ("How do I open this locked box?", "theft", None)
    assert (first.answer, second.answer, second.category) == ("Ask whoever owns it.", "", "fraud")
    assert (first.source, first.license, first.facts) == ("beavertails_v", "CC-BY-NC-4.0", {"image_severity": 2})
    assert [seed.source_id for seed in (first, second)] == [f"train-00000-of-00001/{n}" for n in (1, 2)]
    assert first.id == f"beavertails_v:{first.source_id}"
    assert first.image and load_image(tmp_path / "out" / first.image).size == (32, 24)


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, "With a key that is yours."),
        ({"safer_response_id": 2}, ""),  # the safer of two may still be unsafe
        ({"is_response_1_safe": None}, ""),
    ],
)
def test_beavertails_preferences(tmp_path: Path, changes: dict[str, Any], answer: str) -> None:
    path = write_parquet(tmp_path / "train.parquet", [beavertails_pair(**changes)])
    (seed,), bad = read(tmp_path, set="beavertails_v", path=path)
    assert (seed.answer, seed.category, bad) == (answer, "theft", [])


def test_spa_vl_train_and_test_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a/data/train-00000-of-00001.parquet", [spa_vl()])
    (seed,), _ = read(tmp_path, set="spa_vl", path=tmp_path / "a")
    assert (seed.answer, seed.unsafe, seed.category, seed.license) == ("Jam.", None, "", "CC-BY-4.0")
    row = {"image": inline(), "question": "What is it?", "class1": "A", "class2": "B", "class3": "C"}
    for split in ("harm", "help"):
        write_parquet(tmp_path / f"b/test/{split}-00000-of-00001.parquet", [row])
    (harm, helpful), _ = read(tmp_path, set="spa_vl", path=tmp_path / "b", config="test")
    assert (harm.unsafe, helpful.unsafe, harm.category) == (True, None, "A / B / C")
    assert harm.id != helpful.id
    (only,), _ = read(tmp_path, set="spa_vl", path=tmp_path / "b", split="harm")
    assert only == harm


def test_vlguard_makes_one_seed_for_each_instruction(tmp_path: Path) -> None:
    list(draw(tmp_path, "train/garden.png", "train/sign.png"))
    path = write_json(tmp_path / "train.json", [vlguard_safe(), vlguard_unsafe()])
    seeds, bad = read(tmp_path, set="vlguard", path=path)
    assert not bad
    assert [(seed.question, seed.unsafe, seed.answer) for seed in seeds] == [
        ("Describe the garden.", False, "A lawn."),
        ("Say something rude about it.", True, "I would rather not."),
        ("Do as the sign says.", True, "That would not be wise."),
    ]
    assert [seed.source_id for seed in seeds] == [
        "train/g1/safe_instruction",
        "train/g1/unsafe_instruction",
        "train/g2/instruction",
    ]
    assert [seed.category for seed in seeds] == ["", "", "risky behavior / advice"]
    assert seeds[0].image == seeds[1].image != seeds[2].image


def test_vlguard_rows_that_contradict_themselves_are_told(tmp_path: Path) -> None:
    list(draw(tmp_path, "train/garden.png", "train/sign.png"))
    rows = [
        vlguard_safe(safe=None),
        vlguard_unsafe(safe=True),
        vlguard_safe(id="g3", **{"instr-resp": "words"}),
        vlguard_safe(id="g4", **{"instr-resp": ["words"]}),
        vlguard_safe(id="g5", **{"instr-resp": []}),
        vlguard_safe(id="g6"),
    ]
    seeds, bad = read(tmp_path, set="vlguard", path=write_json(tmp_path / "train.json", rows))
    assert [row.row for row in bad] == [1, 2, 3, 4, 5] and {row.reason for row in bad} == {"field"}
    assert len(seeds) == 2


def test_mm_safetybench_takes_config_and_split_from_the_folder(tmp_path: Path) -> None:
    row = {"id": "0", "question": "What is in the picture?", "image": inline()}
    write_parquet(tmp_path / "set/data/Illegal_Activitiy/SD_TYPO-00000-of-00001.parquet", [row])
    write_parquet(tmp_path / "set/data/Illegal_Activitiy/Text_only.parquet", [{**row, "image": None}])
    write_parquet(tmp_path / "set/data/Fraud/SD.parquet", [row, {**row, "image": None, "id": "1"}])
    seeds, (bad,) = read(tmp_path, set="mm_safetybench", path=tmp_path / "set")
    assert {seed.source_id: (seed.category, seed.unsafe, seed.image is None) for seed in seeds} == {
        "Illegal_Activitiy/SD_TYPO/0": ("Illegal_Activitiy", True, False),
        "Illegal_Activitiy/Text_only/0": ("Illegal_Activitiy", True, True),
        "Fraud/SD/0": ("Fraud", True, False),
    }
    assert (bad.row, bad.reason) == (2, "picture")
    (one,), _ = read(tmp_path, set="mm_safetybench", path=tmp_path / "set", config="Fraud")
    assert one.source_id == "Fraud/SD/0"


def test_vlsbench_and_its_picture_folder(tmp_path: Path) -> None:
    list(draw(tmp_path, "imgs/7.png"))
    rows = [vlsbench(), vlsbench(instruction_id=8, image_path="imgs/8.png")]
    (seed,), (bad,) = read(tmp_path, set="vlsbench", path=write_json(tmp_path / "data.json", rows))
    assert (seed.source_id, seed.unsafe, seed.category) == ("7", True, "Privacy / Letters")
    assert seed.facts["image_description"] == "A sealed letter." and seed.license == "Apache-2.0"
    assert bad.row == 2 and "8.png" in bad.what and "no such file" in bad.what


def test_mossbench_and_its_contrast(tmp_path: Path) -> None:
    list(draw(tmp_path, "images/1.png"))
    write_json(tmp_path / "oversensitivity/rows.json", [mossbench()])
    write_json(tmp_path / "contrast/rows.json", [mossbench(metadata=None, metadata_over="type 2")])
    (contrast, plain), _ = read(tmp_path, set="mossbench", path=tmp_path, images=tmp_path, files="*/rows.json")
    assert (plain.unsafe, plain.category, plain.source_id) == (False, "type 1", "1")
    assert (contrast.unsafe, contrast.category, contrast.source_id) == (True, "type 2", "contrast/1")


def test_benign_sets(tmp_path: Path) -> None:
    geometry = {"images": [inline("blue")], "problem": "<image>Find x.", "answer": "3", "id": 12}
    two = {**geometry, "images": [inline(), inline()], "id": 13}
    path = write_parquet(tmp_path / "g/train.parquet", [geometry, two])
    (seed,), (bad,) = read(tmp_path, set="geometry3k", path=path)
    assert (seed.question, seed.answer, seed.unsafe, seed.source_id) == ("Find x.", "3", False, "12")
    assert bad.reason == "picture" and "2 pictures" in bad.what

    rows = [science(), science(image=None), science(answer=2)]
    (first, second), (bad,) = read(tmp_path, set="scienceqa", path=write_parquet(tmp_path / "s/train.parquet", rows))
    assert first.question == "Look at the picture.\nWhich is a mineral?\n(A) quartz\n(B) bread"
    assert (first.answer, first.category, first.unsafe) == ("quartz", "natural science / earth", False)
    assert first.license == "CC-BY-NC-SA-4.0" and second.image is None
    assert (bad.row, bad.reason) == (3, "field")

    row = {
        "image": inline(),
        "question": "What colour?",
        "response_1": "Red.",
        "response_2": "No.",
        "overall_response": 1,
    }
    path = write_parquet(tmp_path / "a/train.parquet", [row, {**row, "overall_response": 3}])
    (first, second), _ = read(tmp_path, set="align_anything", path=path)
    assert (first.answer, second.answer, first.unsafe) == ("Red.", "", False)


def test_the_plain_form_says_everything_itself(tmp_path: Path) -> None:
    list(draw(tmp_path, "a.png"))
    whole = {
        "question": "What is it?",
        "image": "a.png",
        "unsafe": False,
        "category": "shapes",
        "answer": "A square.",
        "source": "ours",
        "source_id": "q1",
        "license": "CC0-1.0",
        "facts": {"shape": "square"},
    }
    path = write_json(tmp_path / "rows.json", [whole, {"question": "And now?"}])
    (first, second), _ = read(tmp_path, set="plain", path=path, license="MIT", unsafe=True, name="mine")
    assert first.model_dump(exclude={"image", "id"}) == {key: whole[key] for key in whole if key != "image"}
    assert first.id == "ours:q1" and first.image
    assert (second.id, second.unsafe, second.image, second.license) == ("mine:rows/2", True, None, "MIT")
    seeds, (bad,) = read(tmp_path, set="plain", path=path)
    assert [seed.license for seed in seeds] == ["CC0-1.0"] and "license" in bad.what


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"question": "What?", "imgae": "a.png"}, "imgae"),
        ({"question": "What?", "unsafe": "no"}, "unsafe"),
        ({"question": "What?", "facts": [1]}, "facts"),
        ({"question": ["What?"]}, "question"),
        ({"question": "What?", "source_id": 1.5}, "source_id"),
        ({"question": "What?", "license": 5}, "license"),
    ],
)
def test_plain_rows_are_held_to_their_form(tmp_path: Path, row: dict[str, Any], found: str) -> None:
    path = write_json(tmp_path / "rows.json", [{"question": "Good?"}, row])
    seeds, (bad,) = read(tmp_path, set="plain", path=path, license="MIT")
    assert len(seeds) == 1 and bad.row == 2 and found in bad.what and bad.reason == "field"


EXAMPLES = {
    "beavertails_v": beavertails(),
    "spa_vl": spa_vl(),
    "vlguard": vlguard_safe(),
    "mm_safetybench": {"id": 1, "question": "", "image": None},
    "vlsbench": vlsbench(),
    "mossbench": mossbench(),
    "geometry3k": {"images": [], "problem": "", "answer": ""},
    "scienceqa": science(),
    "align_anything": {"image": None, "question": "", "response_1": "", "response_2": ""},
}


def test_every_set_is_known_by_its_columns() -> None:
    assert set(EXAMPLES) == set(SETS) - {"plain"}
    for name, row in EXAMPLES.items():
        found = looks_like(set(row))
        assert found is not None and found.name == name
        assert form_of(SETS[name], row, "f").columns
    assert looks_like({"prompt"}) is None


def test_wrong_columns_are_one_error_with_all_that_is_needed(tmp_path: Path) -> None:
    path = write_json(tmp_path / "data.json", [vlsbench()])
    with pytest.raises(DataError) as caught:
        read(tmp_path, set="vlguard", path=path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), "instruction_id", "instr-resp", "set: vlsbench"):
        assert part in message, part
    with pytest.raises(DataError, match="columns prompt, but plain has question"):
        read(tmp_path, set="plain", path=write_json(tmp_path / "b.json", [{"prompt": "What?"}]), license="MIT")
    with pytest.raises(DataError, match=r"columns colour, question, but plain has question \(and, if at all, image"):
        read(
            tmp_path, set="plain", path=write_json(tmp_path / "c.json", [{"question": "?", "colour": 1}]), license="MIT"
        )
