"""Every set, as look-alikes of its files: which seeds its rows become, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.seed import seed_id
from steer_verl.data.sources.registry import SETS, form_of, other_set
from steer_verl.data.sources.sets_risky import FIGSTEP_PROMPT
from steer_verl.errors import DataError
from steer_verl.images import load_image
from tests.data.samples import picture
from tests.data.sources.samples import (
    beavertails,
    beavertails_pair,
    draw,
    figstep,
    inline,
    jailbreakv,
    mossbench,
    read,
    science,
    spa_vl,
    vlguard_safe,
    vlguard_unsafe,
    vlsbench,
    write_csv,
    write_json,
    write_parquet,
    xstest,
)


def test_beavertails_keeps_category_and_severity_and_only_a_safe_response_is_an_answer(tmp_path: Path) -> None:
    rows = [beavertails(), beavertails(question="And this one?", is_response_safe="no", category="fraud")]
    path = write_parquet(tmp_path / "theft/train-00000-of-00001.parquet", rows)
    (first, second), bad = read(tmp_path, set="beavertails_v", path=path)
    assert not bad
    assert (first.question, first.category, first.unsafe) == ("How do I open this locked box?", "theft", None)
    assert (first.answer, second.answer, second.category) == ("Ask whoever owns it.", "", "fraud")
    assert (first.source, first.license, first.facts) == ("beavertails_v", "CC-BY-NC-4.0", {"image_severity": 2})
    assert first.source_id == second.source_id == "" and first.id == seed_id(first.question, first.image) != second.id
    assert first.image and load_image(tmp_path / "out" / first.image).size == (32, 24)


@pytest.mark.parametrize("order", ["no yes", "yes no", "no yes yes"])
def test_a_question_that_stands_once_for_each_response_is_one_seed_with_the_safe_one(
    tmp_path: Path, order: str
) -> None:
    rows = [beavertails(response=f"{n} {safe}", is_response_safe=safe) for n, safe in enumerate(order.split())]
    path = write_parquet(tmp_path / "train.parquet", [*rows, beavertails(image=inline("blue"), response="2 yes")])
    (one, other), bad = read(tmp_path, set="beavertails_v", path=path)
    assert one.answer == next(row["response"] for row in rows if row["is_response_safe"] == "yes")
    assert [(row.row, row.reason) for row in bad] == [(n, "duplicate") for n in range(2, len(rows) + 1)]
    assert other.image != one.image and other.id != one.id


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
    rows = [spa_vl(), spa_vl(question="And now?", chosen=None)]
    write_parquet(tmp_path / "a/data/train-00000-of-00001.parquet", rows)
    (seed, without), bad = read(tmp_path, set="spa_vl", path=tmp_path / "a")
    assert (seed.answer, seed.unsafe, seed.category, seed.license) == ("Jam.", None, "", "CC-BY-4.0")
    assert without.answer == "" and not bad, "nobody needs the answer"
    row = {"image": inline(), "question": "What is it?", "class1": "A", "class2": "B", "class3": "C"}
    for split in ("harm", "help"):
        write_parquet(tmp_path / f"b/test/{split}-00000-of-00001.parquet", [{**row, "question": f"What {split}s?"}])
    (harm, helpful), _ = read(tmp_path, set="spa_vl", path=tmp_path / "b", config="test")
    assert (harm.unsafe, helpful.unsafe, harm.category) == (True, None, "A / B / C")
    (only,), _ = read(tmp_path, set="spa_vl", path=tmp_path / "b", split="harm")
    assert only == harm
    (bare,), _ = read(tmp_path, set="spa_vl", path=write_parquet(tmp_path / "c.parquet", [
        {"image": inline(), "question": "What is it?", "image_name": "jar.png"}
    ]))  # fmt: skip
    assert bare.answer == "" and bare.facts == {"image_name": "jar.png"}


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


@pytest.mark.parametrize("where", ["test", "."])
def test_the_images_of_vlguard_lie_in_a_folder_of_the_splits_name(tmp_path: Path, where: str) -> None:
    list(draw(tmp_path / where, "bad_ads/1.png", "memes/2.png"))
    rows = [vlguard_safe(image="bad_ads/1.png"), vlguard_unsafe(image="memes/2.png")]
    path = write_json(tmp_path / "test.json", rows)
    for place in (path, tmp_path):
        seeds, bad = read(tmp_path, set="vlguard", path=place, files=None if place == path else "test.json")
        assert len(seeds) == 3 and not bad and seeds[0].source_id == "test/g1/safe_instruction"


def test_an_id_that_vlguard_repeats_with_another_question_is_two_seeds(tmp_path: Path) -> None:
    list(draw(tmp_path, "train/sign.png"))
    other = [{"instruction": "Do the opposite.", "response": "No."}]
    rows = [vlguard_unsafe(), vlguard_unsafe(**{"instr-resp": other}), vlguard_unsafe()]
    seeds, bad = read(tmp_path, set="vlguard", path=write_json(tmp_path / "train.json", rows))
    assert [seed.question for seed in seeds] == ["Do as the sign says.", "Do the opposite."]
    assert [(row.row, row.reason) for row in bad] == [(3, "duplicate")], "of the same content, whatever its id"
    assert seeds[0].source_id == seeds[1].source_id


def test_vlguard_rows_that_contradict_themselves_are_told(tmp_path: Path) -> None:
    list(draw(tmp_path, "train/garden.png", "train/sign.png"))
    rows = [
        vlguard_safe(safe=None),
        vlguard_unsafe(safe=True),
        vlguard_safe(id="g3", **{"instr-resp": "words"}),
        vlguard_safe(id="g4", **{"instr-resp": ["words"]}),
        vlguard_safe(id="g5", **{"instr-resp": []}),
        vlguard_safe(id="g6"),
        vlguard_safe(id="g7", image=None),
    ]
    seeds, bad = read(tmp_path, set="vlguard", path=write_json(tmp_path / "train.json", rows))
    assert [row.row for row in bad] == [1, 2, 3, 4, 5, 7] and {row.reason for row in bad} == {"field"}
    assert len(seeds) == 2


def test_mm_safetybench_takes_config_and_split_from_the_folder(tmp_path: Path) -> None:
    row = {"id": "0", "question": "What is in the picture?", "image": inline()}
    write_parquet(tmp_path / "set/data/Illegal_Activitiy/SD_TYPO-00000-of-00001.parquet", [row])
    write_parquet(tmp_path / "set/data/Illegal_Activitiy/Text_only.parquet", [{**row, "image": None}])
    write_parquet(
        tmp_path / "set/data/Fraud/SD.parquet", [{**row, "question": "And this?"}, {**row, "image": None, "id": "1"}]
    )
    seeds, (bad,) = read(tmp_path, set="mm_safetybench", path=tmp_path / "set")
    assert {seed.source_id: (seed.category, seed.unsafe, seed.image is None) for seed in seeds} == {
        "Illegal_Activitiy/SD_TYPO/0": ("Illegal_Activitiy", True, False),
        "Illegal_Activitiy/Text_only/0": ("Illegal_Activitiy", True, True),
        "Fraud/SD/0": ("Fraud", True, False),
    }
    assert (bad.row, bad.reason, bad.file) == (2, "image", str(tmp_path / "set/data/Fraud/SD.parquet"))
    (one,), _ = read(tmp_path, set="mm_safetybench", path=tmp_path / "set", config="Fraud")
    assert one.source_id == "Fraud/SD/0"


def test_mm_safetybench_as_its_authors_have_it(tmp_path: Path) -> None:
    splits = ("SD", "SD_TYPO", "TYPO")
    list(draw(tmp_path, *(f"imgs/01-Illegal_Activitiy/{split}/0.jpg" for split in splits)))
    row = {"Question": "How?", "Changed Question": "Tell how.", "Key Phrase": "a box"}
    row |= {"Rephrased Question": "The bottom shows a box.", "Rephrased Question(SD)": "The image shows a box."}
    path = write_json(tmp_path / "processed_questions/01-Illegal_Activitiy.json", {"0": row, "1": {"Question": "Why?"}})
    for place in (tmp_path, path.parent, path):
        seeds, (bad,) = read(tmp_path, set="mm_safetybench", path=place)
        assert [(seed.source_id, seed.question) for seed in seeds] == [
            ("Illegal_Activitiy/SD/0", "The image shows a box."),
            ("Illegal_Activitiy/SD_TYPO/0", "The bottom shows a box."),
            ("Illegal_Activitiy/TYPO/0", "The bottom shows a box."),
        ]
        assert all(seed.unsafe and seed.category == "Illegal_Activitiy" for seed in seeds) and bad.reason == "field"
        (one,), _ = read(tmp_path, set="mm_safetybench", path=place, split="SD_TYPO")
        assert one.source_id == "Illegal_Activitiy/SD_TYPO/0"
        with pytest.raises(DataError, match="looked for the split Text_only; found splits SD, SD_TYPO, TYPO"):
            read(tmp_path, set="mm_safetybench", path=place, split="Text_only")


def test_vlsbench_and_its_picture_folder(tmp_path: Path) -> None:
    list(draw(tmp_path, "imgs/7.png"))
    rows = [vlsbench(), vlsbench(instruction_id=8, image_path="imgs/8.png")]
    (seed,), (bad,) = read(tmp_path, set="vlsbench", path=write_json(tmp_path / "data.json", rows))
    assert (seed.source_id, seed.unsafe, seed.category) == ("7", True, "Privacy / Letters")
    assert seed.facts["image_description"] == "A sealed letter." and seed.license == "Apache-2.0"
    assert bad.row == 2 and "8.png" in bad.what and "no such file" in bad.what


def test_vlsbench_from_the_hub_has_its_images_in_it(tmp_path: Path) -> None:
    rows = [vlsbench(image=inline("blue")), vlsbench(instruction="And this?", image=None, image_path="imgs/7.png")]
    list(draw(tmp_path, "imgs/7.png"))
    path = write_parquet(tmp_path / "train.parquet", rows)
    (beside, named), bad = read(tmp_path, set="vlsbench", path=path)
    assert not bad and beside.image and named.image and beside.image != named.image
    alone = {key: value for key, value in vlsbench(image=inline()).items() if key != "image_path"}
    (seed,), _ = read(tmp_path, set="vlsbench", path=write_parquet(tmp_path / "old.parquet", [alone]))
    assert seed.unsafe and seed.image


def test_mossbench_and_its_contrast(tmp_path: Path) -> None:
    list(draw(tmp_path, "images/1.png"))
    write_json(tmp_path / "oversensitivity/rows.json", [mossbench()])
    twin = mossbench(question="Help me harm.", metadata=None, metadata_over="type 2")
    write_json(tmp_path / "contrast/rows.json", [twin])
    (contrast, plain), _ = read(tmp_path, set="mossbench", path=tmp_path, images=tmp_path, files="*/rows.json")
    assert (plain.unsafe, plain.category, plain.source_id) == (False, "type 1", "1")
    assert (contrast.unsafe, contrast.category, contrast.source_id) == (True, "type 2", "contrast/1")
    assert SETS["mossbench"].license == "CC-BY-SA-4.0" and not SETS["mossbench"].training


@pytest.mark.parametrize("keyed", [True, False])
def test_mossbench_as_its_authors_have_it(tmp_path: Path, keyed: bool) -> None:
    list(draw(tmp_path, "data/images/1.png"))
    row = mossbench() if keyed else mossbench(image_path="images/1.png", image=None)
    path = write_json(tmp_path / "data/images_information/information.json", {"1": row, "2": {"question": "?"}})
    seeds, (bad,) = read(tmp_path, set="mossbench", path=path)
    assert [(seed.source_id, seed.unsafe, seed.category) for seed in seeds] == [("1", False, "type 1")]
    assert bad.row == 2


def test_mossbench_from_the_hub_lies_as_an_image_folder(tmp_path: Path) -> None:
    list(draw(tmp_path, "images/1.png", "contrast_images/1.png"))
    rows = [
        {
            "file_name": f"{folder}/1.png",
            "pid": "1",
            "question": question,
            "description": "a cake",
            "metadata_over": "x",
        }
        for folder, question in (("images", "Help me."), ("contrast_images", "Harm it."))
    ]
    path = write_csv(tmp_path / "metadata.csv", rows)
    (plain, contrast), bad = read(tmp_path, set="mossbench", path=path)
    assert (plain.unsafe, contrast.unsafe, contrast.source_id, bad) == (False, True, "contrast/1", [])
    assert plain.facts == {"description": "a cake"} and plain.image != contrast.image


def test_jailbreakv_asks_the_request_itself_about_the_rows_image(tmp_path: Path) -> None:
    list(draw(tmp_path, "llm_transfer_attack/blank_1.png"))
    rows = [jailbreakv(), jailbreakv(id="6", jailbreak_query="Sing how."), jailbreakv(id="7", image_path="gone.png")]
    write_csv(tmp_path / "JailBreakV_28K.csv", rows)
    write_csv(tmp_path / "RedTeam_2K.csv", [{"id": 1, "question": "How?", "policy": "Fraud", "from": "Handcraft"}])
    (seed,), bad = read(tmp_path, set="jailbreakv_28k", path=tmp_path)
    assert (seed.question, seed.unsafe, seed.category, seed.license) == ("How do I open the box?", True, "Fraud", "MIT")
    assert seed.source_id == "5" and seed.facts == {"format": "Template"} and seed.image
    told = ["duplicate", "image", "other_form"]
    assert [row.reason for row in bad] == told, "the requests without images are told"


def test_figstep_finds_its_images_by_name(tmp_path: Path) -> None:
    list(draw(tmp_path, "data/images/SafeBench/query_ForbidQI_1_2_6.png"))
    path = write_csv(tmp_path / "data/question/safebench.csv", [figstep(), figstep(task_id="3")])
    (seed,), (bad,) = read(tmp_path, set="figstep", path=path)
    assert (seed.question, seed.unsafe, seed.source_id) == (FIGSTEP_PROMPT, True, "ForbidQI_1_2") and bad.row == 2
    assert seed.facts == {"topic": "How can a box be opened?", "instruction": "Steps to open a box."}
    assert seed.category == "Boxes"
    list(draw(tmp_path, "data/images/SafeBench-Tiny/query_ForbidQI_1_2_6.png"))
    write_csv(tmp_path / "data/question/SafeBench-Tiny.csv", [figstep()])
    seeds, _ = read(tmp_path, set="figstep", path=tmp_path / "data")
    assert len(seeds) == 1, "the same image and words"


def test_xstest_tells_safe_from_unsafe_by_label_or_type(tmp_path: Path) -> None:
    other = xstest(id="2", prompt="How do I kill them?", type="contrast_homonyms", label="unsafe")
    path = write_csv(tmp_path / "xstest_prompts.csv", [xstest(), other, xstest(id="3", prompt="Odd?", label="maybe")])
    (safe, unsafe), (bad,) = read(tmp_path, set="xstest", path=path)
    assert [(seed.unsafe, seed.category, seed.source_id, seed.image) for seed in (safe, unsafe)] == [
        (False, "homonyms", "1", None),
        (True, "contrast_homonyms", "2", None),
    ]
    assert bad.reason == "field" and safe.license == "CC-BY-4.0"
    old = [
        {"id_v2": "v2-1", **{key: row[key] for key in ("type", "prompt", "focus", "note")}} for row in (xstest(), other)
    ]
    (safe, unsafe), _ = read(tmp_path, set="xstest", path=write_csv(tmp_path / "old.csv", old))
    assert (safe.unsafe, unsafe.unsafe, safe.source_id) == (False, True, "v2-1")


def test_benign_sets(tmp_path: Path) -> None:
    geometry = {"images": [inline("blue")], "problem": "<image>Find x.", "answer": "3", "id": 12}
    geometry |= {"choices": ["1", "3"], "ground_truth": "B"}
    two = {**geometry, "images": [inline(), inline()], "id": 13}
    path = write_parquet(tmp_path / "g/train.parquet", [geometry, two])
    (seed,), (bad,) = read(tmp_path, set="geometry3k", path=path)
    assert (seed.question, seed.answer, seed.unsafe, seed.source_id) == ("Find x.", "3", False, "12")
    assert bad.reason == "image" and "2 images" in bad.what and seed.choice == "B"

    rows = [science(), science(image=None), science(answer=2)]
    (first, second), (bad,) = read(tmp_path, set="scienceqa", path=write_parquet(tmp_path / "s/train.parquet", rows))
    assert first.question == "Look at the picture.\nWhich is a mineral?\n(A) quartz\n(B) bread"
    assert (first.answer, first.category, first.unsafe) == ("quartz", "natural science / earth", False)
    assert first.choice == second.choice == "A"
    assert first.license == "CC-BY-NC-SA-4.0" and second.image is None
    assert (bad.row, bad.reason) == (3, "field")

    row = {
        "image": inline(),
        "question": "What colour?",
        "response_1": "Red.",
        "response_2": "No.",
        "overall_response": 1,
    }
    path = write_parquet(tmp_path / "a/train.parquet", [row, {**row, "question": "And?", "overall_response": 3}])
    (first, second), _ = read(tmp_path, set="align_anything", path=path)
    assert (first.answer, second.answer, first.unsafe) == ("Red.", "", False)


def test_a_choice_of_several_lines_keeps_its_letter(tmp_path: Path) -> None:
    row = science(image=None, choices=["Ann", "Your friend,\nBea", "Your friend,\nCarl"], answer=1, split="train")
    other = science(image="image.png", split="test", question="And here?")
    list(draw(tmp_path, "images/test/12/image.png"))
    path = write_json(tmp_path / "problems.json", {"11": row, "12": other, "13": science(image="image.png", split="x")})
    (first, second), (bad,) = read(tmp_path, set="scienceqa", path=path)
    assert (first.choice, first.answer, first.source_id) == ("B", "Your friend,\nBea", "11")
    assert first.question.endswith("(B) Your friend,\nBea\n(C) Your friend,\nCarl")
    assert second.image and second.source_id == "12" and bad.row == 3
    (only,), _ = read(tmp_path, set="scienceqa", path=path, split="test")
    assert only.source_id == "12", "rows that say their split are read by it"


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
    said = first.model_dump(include=set(whole) - {"image"})
    assert said == {key: whole[key] for key in whole if key != "image"} and first.image
    assert (second.source, second.source_id, second.unsafe, second.license) == ("mine", "", True, "MIT")
    assert second.id == seed_id("And now?", None) and len(second.id) == 24
    seeds, (bad,) = read(tmp_path, set="plain", path=path)
    assert [seed.license for seed in seeds] == ["CC0-1.0"] and "license" in bad.what


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"question": "What?", "imgae": "a.png"}, "imgae"),
        ({"question": "What?", "unsafe": "no"}, "unsafe"),
        ({"question": "What?", "facts": [1]}, "facts"),
        ({"question": "What?", "facts": {"strategy": "mine"}}, "strategy: the build writes"),
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
    "align_anything": {"image": 0, "question": "", "response_1": "", "response_2": "", "overall_response": 1},
    "jailbreakv_28k": jailbreakv(),
    "figstep": figstep(),
    "xstest": xstest(),
}


def test_every_set_is_known_by_its_columns() -> None:
    assert set(EXAMPLES) == set(SETS) - {"plain"}
    for name, row in EXAMPLES.items():
        found = other_set([row])
        assert found is not None and found.name == name
        assert form_of(SETS[name], [{}, row])
    assert other_set([{"prompt"}]) is None and form_of(SETS["vlguard"], [{"prompt"}]) is None


def test_wrong_columns_are_one_error_with_all_that_is_needed(tmp_path: Path) -> None:
    path = write_json(tmp_path / "data.json", [vlsbench()])
    with pytest.raises(DataError) as caught:
        read(tmp_path, set="vlguard", path=path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), "instruction_id", "instr-resp", "set: vlsbench"):
        assert part in message, part
    with pytest.raises(DataError, match=r"looked for columns question .*found .*columns prompt"):
        read(tmp_path, set="plain", path=write_json(tmp_path / "b.json", [{"prompt": "What?"}]), license="MIT")
    with pytest.raises(DataError, match=r"question \(and, if at all, image.*columns colour, question"):
        read(
            tmp_path, set="plain", path=write_json(tmp_path / "c.json", [{"question": "?", "colour": 1}]), license="MIT"
        )


def test_a_whole_clone_has_its_images_in_a_folder_between(tmp_path: Path) -> None:
    write_csv(tmp_path / "fig/data/question/safebench.csv", [figstep()])
    picture(tmp_path / "fig/data/images/SafeBench/query_ForbidQI_1_2_6.png")
    (seed,), bad = read(tmp_path, set="figstep", path=tmp_path / "fig")
    assert seed.image and not bad
    row = {name: "Q" for name in ("Question", "Rephrased Question", "Rephrased Question(SD)")}
    write_json(tmp_path / "mm/data/processed_questions/01-Illegal_Activitiy.json", {"0": row})
    for split, colour in (("SD", "red"), ("SD_TYPO", "blue"), ("TYPO", "green")):
        picture(tmp_path / f"mm/data/imgs/01-Illegal_Activitiy/{split}/0.jpg", colour=colour)
    seeds, bad = read(tmp_path, set="mm_safetybench", path=tmp_path / "mm")
    assert len(seeds) == 3 and not bad
    table = tmp_path / "mm/data/processed_questions"
    assert len(read(tmp_path, set="mm_safetybench", path=table, images=tmp_path / "mm/data/imgs")[0]) == 3


@pytest.mark.parametrize("right", [1, 1.0, "1"])
def test_right_answers_of_science_and_better_responses_in_any_form_of_a_number(tmp_path: Path, right: Any) -> None:
    path = write_parquet(tmp_path / "q.parquet", [science(answer=right)])
    (seed,), _ = read(tmp_path, set="scienceqa", path=path)
    assert (seed.answer, seed.choice) == ("bread", "B")
    row = {"image": inline(), "question": "Q?", "response_1": "one", "response_2": "two", "overall_response": right}
    (seed,), _ = read(tmp_path, set="align_anything", path=write_parquet(tmp_path / "a.parquet", [row]))
    assert seed.answer == "one"
