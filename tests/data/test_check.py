"""Whole files of every form: every problem told with its place, none hidden by another."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from steer_verl.data.rows.check import Rules, check_file
from steer_verl.data.rows.flaws import MAX_FLAWS, Problem
from steer_verl.data.rows.parquet import convert, load_seeds, write_parquet
from steer_verl.errors import DataError
from steer_verl.images import Change
from tests.data.samples import picture, row, write_rows
from tests.data.test_set_rows import GOOD, bench, changed, sft


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    return tmp_path


def problems(file: Path, rules: Rules | None = None) -> list[Problem]:
    return [problem for checked in check_file(file, rules or Rules()) for problem in checked.problems]


def test_good_rows_become_seeds_with_absolute_pictures(folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", [row(i, turns=2 + i % 9) for i in range(9)])
    checked = list(check_file(file))
    assert [c.problems for c in checked] == [()] * 9
    assert [len(c.seed.turns) for c in checked if c.seed] == list(range(2, 11))
    assert {path for c in checked if c.seed for path in c.seed.turns[0].images} == {str(folder / "a.png")}
    assert sum(c.size for c in checked) == file.stat().st_size


def test_every_problem_of_a_file_is_told_with_its_row(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"nothing")
    rows: list[dict[str, Any] | str] = [
        row(0),
        row(1, images=["missing.png", "broken.png"]),
        '{"torn": ',
        row(0),
        row(4, turns=11, images=["../a.png"]),
        {**row(5), "images": []},
        row(6),
    ]
    found = problems(write_rows(folder / "rows.jsonl", rows))
    assert [(p.row, p.field) for p in found] == [
        (2, "images[0]"),
        (2, "images[1]"),
        (3, "line"),
        (4, "metadata.question_id"),
        (5, "metadata.rest_messages"),
        (5, "images[0]"),
        (6, "images"),
    ]
    assert all(p.file.endswith("rows.jsonl") and p.what and p.hint and "\n" not in str(p) for p in found)
    assert "row 1's" in found[3].what


def test_a_row_of_a_thousand_problems_tells_the_first_ones(folder: Path) -> None:
    messages = [{"role": 1} for _ in range(1000)]
    value = row(0)
    found = problems(
        write_rows(folder / "rows.jsonl", [value | {"question": messages}, row(1, images=["no.png"] * 900)])
    )
    assert [sum(problem.row == number for problem in found) for number in (1, 2)] == [MAX_FLAWS + 1] * 2
    assert [problem.what for problem in found].count(f"more than {MAX_FLAWS} problems") == 2


ESCAPES = "\x1b]0;title\x07\x1b[31mname\x9b0m\u202e\u200b\ufeff\nline"


def test_no_word_of_a_row_reaches_the_terminal_with_an_escape(folder: Path) -> None:
    rows = [
        row(0, images=[ESCAPES]),
        row(1) | {ESCAPES: 1},
        row(2) | {"label": [ESCAPES]},
        row(3) | {"question": [{"role": ESCAPES, "content": "<image>What?"}]},
        row(4),
        row(4),
    ]
    for value in rows[4:]:
        value["metadata"]["question_id"] = ESCAPES
    told = [str(problem) for problem in problems(write_rows(folder / "rows.jsonl", rows))]
    assert len(told) >= 5
    for line in told:
        assert not any(unicodedata.category(char) in ("Cc", "Cf") for char in line), line


def test_numbers_and_strings_are_the_same_id(folder: Path) -> None:
    assert [p.field for p in problems(write_rows(folder / "a.jsonl", [row(7), row("7")]))] == ["metadata.question_id"]
    assert [p.field for p in problems(write_rows(folder / "b.jsonl", [row(" ")]))] == ["metadata.question_id"]


def test_rows_without_an_image_unless_they_are_refused(folder: Path) -> None:
    rows = row(images=[]), bench(image=None), changed(sft(images=[]), "messages.0.content", "What is a box?")
    for number, value in enumerate(rows):
        file = write_rows(folder / f"rows-{number}.jsonl", [value])
        assert not problems(file)
        (problem,) = problems(file, Rules(require_images=True))
        assert (problem.field, problem.what) == ("images", "no image") and "--require-images" in problem.hint


def test_absurd_length_is_counted_exactly(folder: Path) -> None:
    value = row()
    value["metadata"]["rest_messages"][1]["content"] = "x" * 101
    file = write_rows(folder / "rows.jsonl", [value])
    assert [p.field for p in problems(file, Rules(max_turn_chars=100))] == ["metadata.rest_messages[1].content"]
    assert not problems(file, Rules(max_turn_chars=101))


def test_absolute_paths_out_of_the_root_need_trust_and_a_root_can_be_elsewhere(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("rows")
    absolute = write_rows(elsewhere / "absolute.jsonl", [row(images=[str(folder / "a.png")])])
    relative = write_rows(elsewhere / "relative.jsonl", [row()])
    assert "--trust-paths" in problems(absolute)[0].hint
    assert not problems(absolute, Rules(trust_paths=True)) and not problems(absolute, Rules(image_root=folder))
    assert problems(relative) and not problems(relative, Rules(image_root=folder))
    (elsewhere / "link").symlink_to(folder)
    linked = write_rows(folder / "linked.jsonl", [row(images=[str(elsewhere / "link/a.png")])])
    assert not problems(linked) and not problems(absolute, Rules(image_root=elsewhere / "link"))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("http://127.0.0.1:9/a.png", "a URL"),
        ("data:image/png;base64,AA", "a URL"),
        ("../out.png", "'..'"),
        ("link.png", "leads out"),
        ("pipe.png", "not a regular file"),
        ("a\0.png", "NUL"),
        ("", "no image"),
        ("gone.png", "no such file"),
    ],
)
@pytest.mark.parametrize("trust", [False, True])
def test_urls_pipes_and_ways_out_are_refused(tmp_path: Path, image: str, says: str, trust: bool) -> None:
    folder = tmp_path / "rows"
    picture(tmp_path / "out.png")
    picture(folder / "a.png")
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    os.mkfifo(folder / "pipe.png")
    for value in (row(images=[image]), bench(image=image), sft(images=[image])):
        if value.get("image") == "":
            continue  # a bench row without an image
        found = problems(write_rows(folder / "rows.jsonl", [value]), Rules(trust_paths=trust))
        if trust and image in ("../out.png", "link.png"):
            assert not found
        else:
            assert says in found[0].what and found[0].field.startswith("image"), found


def test_a_file_that_never_ends_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="regular file"):
            list(check_file(tmp_path / name))
    for place in (Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError, match="regular file"):
            list(check_file(place))


def test_a_shared_picture_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steer_verl.data.rows import images as row_images

    calls: list[str] = []
    load = row_images.image_and_changes

    def counted(path: str, *, root: Path | None, name: str) -> tuple[Image.Image, frozenset[Change]]:
        calls.append(str(path))
        return load(path, root=root, name=name)

    monkeypatch.setattr(row_images, "image_and_changes", counted)
    assert not problems(write_rows(folder / "rows.jsonl", [row(i) for i in range(20)]), Rules(compared=True))
    assert calls == ["a.png"], "also where a digest is taken of it"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_what_is_no_parquet_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet"):
        list(check_file(tmp_path / "a.parquet"))


def test_a_parquet_of_something_else_is_a_clear_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column extra_info"):
        list(check_file(tmp_path / "a.parquet"))


def test_load_seeds_stops_at_the_first_problem_and_counts_them(folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", [row(0), row(0), row(0)])
    with pytest.raises(DataError, match=r"row 2: metadata\.question_id.*2 problems"):
        load_seeds(file)
    with pytest.raises(DataError, match="no row"):
        load_seeds(write_rows(folder / "empty.jsonl", []))


def test_seeds_of_a_jsonl_and_of_its_parquet_are_equal(folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", [row(i, turns=2 + i) for i in range(3)])
    write_parquet(load_seeds(file), folder / "rows.parquet")
    assert load_seeds(folder / "rows.parquet") == load_seeds(file)


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def by_value(value: dict[str, Any], image: Path) -> dict[str, Any]:
    """An SFT row as it stands in a table."""
    return {**value, "images": [{"bytes": image.read_bytes()}]}


def test_a_small_table_of_endless_texts_is_left_in_time(folder: Path) -> None:
    """A text of one letter, or a list of one value, compresses to nothing."""
    long, good = "x" * (32 * 2**20), {**sft("good"), "images": [{"bytes": (folder / "a.png").read_bytes()}]}
    told = {"role": "user", "content": long}
    rows = [
        good,
        {**good, "id": long},
        {**good, "messages": [told]},
        {**good, "messages": [{"role": "", "content": ""}] * 2**21},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "sft.parquet", compression="zstd")
    began = time.monotonic()
    found = problems(folder / "sft.parquet")
    assert [(p.row, p.what) for p in found] == [(row, "more than 4194304 characters of text") for row in (2, 3, 4)]
    assert time.monotonic() - began < 15


def test_faults_of_an_sft_table_are_told_with_row_and_field(folder: Path) -> None:
    good = by_value(sft("good"), folder / "a.png")
    bad = {
        "images[0]": {**good, "id": "torn", "images": [{"bytes": b"\x89PNG torn"}]},
        "id": good,
        "messages[2].content": by_value(changed(sft("long"), "messages.2.content", "x" * 8001), folder / "a.png"),
        "messages[1].content": by_value(changed(sft("odd"), "messages.1.content", "no format"), folder / "a.png"),
    }
    found = problems(write_table(folder / "sft.parquet", [good, *bad.values()]))
    assert [(problem.row, problem.field) for problem in found] == list(enumerate(bad, start=2))


@pytest.mark.parametrize(
    ("image", "loads"),
    [
        ({"bytes": "PNG"}, True),
        ({"bytes": "PNG", "path": "a.png"}, True),
        ({"image": "PATH"}, True),
        ({"image": "file://PATH"}, True),
        ({"path": "PATH"}, False),
        ({"bytes": None, "path": "PATH"}, False),
        ({"bytes": "PNG", "image": None}, False),
        ({"bytes": None, "image": "PATH"}, False),
        ("PATH", False),
    ],
)
def test_images_of_a_table_in_the_forms_that_verls_sft_dataset_opens(folder: Path, image: Any, loads: bool) -> None:
    path, content = str(folder / "a.png"), (folder / "a.png").read_bytes()

    def real(value: Any) -> Any:
        return content if value == "PNG" else value.replace("PATH", path) if isinstance(value, str) else value

    filled = {key: real(value) for key, value in image.items()} if isinstance(image, dict) else real(image)
    found = problems(write_table(folder / "sft.parquet", [{**sft(), "images": [filled]}]))
    assert [problem.field for problem in found] == ([] if loads else ["images[0]"])
    try:
        from verl.utils.dataset.vision_utils import process_image
    except ImportError:
        return
    if loads:
        assert process_image(filled).size == (56, 56)
    else:
        with pytest.raises((KeyError, TypeError, AssertionError, OSError)):
            process_image(filled)


def test_a_foreign_sft_table_may_lack_ids_but_not_lists_of_images(folder: Path) -> None:
    value = {key: sft()[key] for key in ("messages",)} | {"images": [{"image": str(folder / "a.png")}]}
    (checked,) = check_file(write_table(folder / "f.parquet", [value]))
    assert checked.told is not None and checked.told.id == f"{folder}/f.parquet:1" and len(checked.told.asked) == 2
    text = changed({"messages": sft()["messages"]}, "messages.0.content", "What?")
    (problem,) = problems(write_table(folder / "n.parquet", [value, {**text, "images": None}]))
    assert (problem.row, problem.field) == (2, "images") and "empty list" in problem.hint
    (problem,) = problems(write_table(folder / "v.parquet", [{**value, "videos": [{"video": "http://x"}]}]))
    assert problem.field == "videos"


def test_bad_bench_rows_are_told_and_reading_goes_on(folder: Path) -> None:
    rows = [bench("x"), bench("x"), bench("y", image="../a.png"), "[]", bench("z", messages_fixed=[]), bench("w")]
    found = problems(write_rows(folder / "bench.jsonl", rows))
    places = [(2, "question_id"), (3, "image"), (4, "line"), (5, "messages_fixed")]
    assert [(problem.row, problem.field) for problem in found] == places


def test_bench_rows_are_seeds_with_absolute_images(folder: Path) -> None:
    seeds = load_seeds(write_rows(folder / "b.jsonl", [bench(1), bench(2, image=None, turns=1)]))
    assert [(seed.id, [turn.images for turn in seed.turns]) for seed in seeds] == [
        ("1", [(str(folder / "a.png"),), (), ()]),
        ("2", [()]),
    ]


def test_rows_that_may_not_be_trained_on_are_told_by_name(folder: Path) -> None:
    origin = {"source": "mossbench", "license": ""}
    for value, refused in ((row(**origin), True), (sft(**origin), True), (bench(**origin), False)):
        found = problems(write_rows(folder / "rows.jsonl", [value]))
        assert [problem.field for problem in found] == ["source"] * refused
        assert all("mossbench" in problem.what.casefold() for problem in found)


def test_memory_does_not_grow_with_the_file(folder: Path) -> None:
    answer = GOOD.replace("a box", "a box " * 2000)
    rows = (changed(sft(f"s-{number}"), "messages.1.content", answer) for number in range(400))
    file = write_rows(folder / "big.jsonl", rows)
    tracemalloc.start()
    assert sum(checked.told is not None for checked in check_file(file)) == 400
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 < file.stat().st_size / 2


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["<image>", "user", "assistant", "system", "a.png", "http://x", "../x", "\0", "a" * 9000, GOOD]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "bytes", "path", "image", "rest_messages"]), inner)
    ),
    max_leaves=8,
)
MESSAGES = ODD | st.lists(ODD | st.fixed_dictionaries({"role": st.just("user"), "content": ODD}), max_size=12)
KEYS = ("question_id", "id", "image", "images", "category", "kind", "label", "risk_trajectory", "source", "license")
METADATA = ODD | st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(KEYS, ODD), "rest_messages": MESSAGES, "facts": ODD}
)
ANY = st.fixed_dictionaries({}, optional={**dict.fromkeys(KEYS, ODD), "metadata": METADATA})
FORMS = ("question", "messages", "messages_fixed")


@given(st.sampled_from(FORMS), st.lists(st.tuples(ANY, MESSAGES), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_are_told_each_once(folder: Path, form: str, rows: list[tuple[dict[str, Any], Any]]) -> None:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({**value, form: messages}) + "\n" for value, messages in rows))
    checked = list(check_file(file, Rules(require_images=True, compared=True)))
    assert [one.row for one in checked] == list(range(1, len(rows) + 1))
    assert all((one.told is None) == bool(one.problems) for one in checked)
    for problem in (problem for one in checked for problem in one.problems):
        assert problem.field and problem.what and problem.hint and str(problem).isprintable()
    if form == "question" and any(one.seed for one in checked):
        assert convert(file, folder / "out.parquet", skip_bad=True).rows == len(rows)


def test_a_row_of_very_many_faults_is_left_in_time(folder: Path) -> None:
    value = {**row(), "question": [{"role": "\x1b]0;x\x07" * 3, "content": "<video>"}] * 40_000}
    began = time.process_time()
    (checked,) = check_file(write_rows(folder / "rows.jsonl", [value]))
    assert len(checked.problems) == MAX_FLAWS + 1
    assert time.process_time() - began < 3


def test_a_bad_row_takes_no_id_from_a_good_one(folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", [row(0, images=["gone.png"]), row(0), row(0)])
    assert [(checked.row, [p.field for p in checked.problems]) for checked in check_file(file)] == [
        (1, ["images[0]"]),
        (2, []),
        (3, ["metadata.question_id"]),
    ]
