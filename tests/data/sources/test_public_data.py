"""Files in the exact forms of public sets (tests/public_data): every one of them is read, and says what it should."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.data.public_sets import BEGIN, END, FILES, PAGE, PUBLIC, table
from benchmarks.data.public_sets import read as read_public
from steer_verl.data.licences import use_of
from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.exact_match import is_correct
from steer_verl.eval.benchmarks.questions import reference_of
from tests.data.sources.samples import read

EXPECTED: dict[str, tuple[int, int, Counter[str], Counter[bool | None], str]] = {
    # rows, seeds, reasons, labels, use
    "xstest_safe.csv": (250, 250, Counter(), Counter({False: 250}), "commercial"),
    "hub/geometry3k": (10, 10, Counter(), Counter({False: 10}), "commercial"),
    "keyed_json/scienceqa_form.json": (2, 1, Counter(image=1), Counter({False: 1}), "non-commercial"),
    "hub/align-anything": (5, 5, Counter(other_form=1), Counter({False: 5}), "non-commercial"),
    "hub/BeaverTails-V": (20, 10, Counter(duplicate=10), Counter({None: 10}), "non-commercial"),
    "hub/BeaverTails-V-pref": (4, 4, Counter(), Counter({None: 4}), "non-commercial"),
    "hub/SPA-VL": (10, 10, Counter(), Counter({None: 8, True: 2}), "commercial"),
    "hub/spa_vl_rlhf": (2, 2, Counter(), Counter({None: 2}), "commercial"),
    "vlguard/test.json": (3, 4, Counter(image=2), Counter({True: 2, False: 2}), "unknown"),
    "hub/MM-SafetyBench": (16, 16, Counter(), Counter({True: 16}), "non-commercial"),
    # of its three images two are the same here, and so are their questions
    "hub/mmsb_github": (2, 4, Counter(duplicate=2), Counter({True: 4}), "non-commercial"),
    "hub/vlsbench": (3, 3, Counter(), Counter({True: 3}), "commercial"),
    "hub/vlsbench_old": (2, 2, Counter(), Counter({True: 2}), "commercial"),
    "keyed_json/mossbench_form.json": (2, 2, Counter(), Counter({False: 2}), "commercial"),
}


@pytest.mark.parametrize(("name", "place"), PUBLIC)
def test_rows_seeds_and_labels(name: str, place: str) -> None:
    rows, seeds, bad = read_public(name, place)
    told = Counter(row.reason for row in bad), Counter(seed.unsafe for seed in seeds)
    assert (rows, len(seeds), *told, use_of(seeds[0].license)) == EXPECTED[place]
    assert {seed.source for seed in seeds} == {name} and len({seed.id for seed in seeds}) == len(seeds)
    assert all(row.what and row.hint for row in bad)


def test_no_table_is_left_out() -> None:
    tables = {file for suffix in ("json", "csv", "parquet") for file in FILES.rglob(f"*.{suffix}")}
    assert tables == {file for file in tables if any(file.is_relative_to(FILES / place) for _, place in PUBLIC)}
    assert len(tables) > 25 and EXPECTED.keys() == {place for _, place in PUBLIC}


def test_the_page_has_the_table_as_the_command_prints_it() -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == table()


def found(folder: Path, place: str, **source: Any) -> list[Any]:
    return read(folder, path=FILES / place, **source)[0]


def test_the_safe_answer_of_two_is_kept(tmp_path: Path) -> None:
    every = found(tmp_path, "hub/BeaverTails-V", set="beavertails_v")
    assert all(seed.answer.endswith("marked yes.") for seed in every)
    assert len(found(tmp_path, "hub/BeaverTails-V", set="beavertails_v", split="evaluation")) == 4
    assert len(found(tmp_path, "hub/BeaverTails-V", set="beavertails_v", config="animal_abuse")) == 5


def test_letters_are_right(tmp_path: Path) -> None:
    (science,) = found(tmp_path, "keyed_json/scienceqa_form.json", set="scienceqa")
    assert is_correct("The answer is B.", reference_of(science)) and not is_correct("(A)", reference_of(science))
    for seed in found(tmp_path, "hub/geometry3k", set="geometry3k"):
        assert seed.choice in tuple("ABCD") and is_correct(f"\\boxed{{{seed.answer}}}", reference_of(seed))


def test_images_are_found_where_the_set_puts_them(tmp_path: Path) -> None:
    for place in ("vlguard", "vlguard/test.json"):
        seeds = found(tmp_path, place, set="vlguard")
        assert [seed.source_id for seed in seeds[:2]] == [
            "test/Ads_1/safe_instruction",
            "test/Ads_1/unsafe_instruction",
        ]
    assert found(tmp_path, "vlguard/test.json", set="vlguard", images=FILES / "vlguard/test") == seeds
    scenario = "hub/mmsb_github/processed_questions/01-Illegal_Activitiy.json"
    assert len(found(tmp_path, scenario, set="mm_safetybench", split="SD")) == 2


def test_a_wrong_name_is_set_right(tmp_path: Path) -> None:
    for name, place, hint in (
        ("plain", "xstest_safe.csv", "set: xstest"),
        ("vlguard", "hub/SPA-VL", "set: spa_vl"),
        ("align_anything", "hub/align-anything/text-to-text", "give the set's own files"),
        ("spa_vl", "hub/BeaverTails-V", "set: beavertails_v"),
    ):
        with pytest.raises(DataError, match=hint):
            found(tmp_path, place, set=name, license="MIT")
