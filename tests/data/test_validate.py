"""Whole files: every problem told with its place, none hidden by another."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steer_verl.data.parquet import load_seeds, verl_row, write_parquet
from steer_verl.data.rows import MAX_FLAWS, seed_from_rl_row
from steer_verl.data.validate import Problem, Rules, check_file, check_jsonl, check_parquet
from steer_verl.errors import DataError
from steer_verl.images import Change
from tests.data.samples import picture, row, write_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    return tmp_path


def problems(file: Path, rules: Rules | None = None) -> list[Problem]:
    return [problem for checked in check_file(file, rules or Rules()) for problem in checked.problems]


def test_good_rows_become_seeds_with_absolute_pictures(folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", [row(i, turns=2 + i % 9) for i in range(9)])
    checked = list(check_jsonl(file))
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
        row(5, images=[]),
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
    assert all(p.file.endswith("rows.jsonl") and p.what and p.cure and "\n" not in str(p) for p in found)
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


def test_text_only_rows_only_when_asked_for(folder: Path) -> None:
    file = write_rows(folder / "rows.jsonl", [row(images=[])])
    assert "--allow-text-only" in problems(file)[0].cure
    assert not problems(file, Rules(allow_text_only=True))


def test_absurd_length_is_counted_exactly(folder: Path) -> None:
    value = row()
    value["metadata"]["rest_messages"][1]["content"] = "x" * 101
    file = write_rows(folder / "rows.jsonl", [value])
    assert [p.field for p in problems(file, Rules(max_turn_chars=100))] == ["metadata.rest_messages[1].content"]
    assert not problems(file, Rules(max_turn_chars=101))


def test_absolute_paths_need_trust_and_a_root_can_be_elsewhere(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("rows")
    absolute = write_rows(elsewhere / "absolute.jsonl", [row(images=[str(folder / "a.png")])])
    relative = write_rows(elsewhere / "relative.jsonl", [row()])
    assert "--trust-paths" in problems(absolute)[0].cure
    assert not problems(absolute, Rules(trust_paths=True))
    assert problems(relative) and not problems(relative, Rules(image_root=folder))


def test_a_shared_picture_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steer_verl.data import validate

    calls: list[str] = []
    load = validate.image_changes

    def counted(path: Path, *, root: Path | None) -> frozenset[Change]:
        calls.append(str(path))
        return load(path, root=root)

    monkeypatch.setattr(validate, "image_changes", counted)
    assert not problems(write_rows(folder / "rows.jsonl", [row(i) for i in range(20)]))
    assert calls == ["a.png"]


def as_table(folder: Path, **changes: Any) -> Path:
    """A parquet file of two rows, with columns replaced in the second or, by ``...``, dropped from both."""
    seed = seed_from_rl_row(row("s", images=[str(folder / "a.png")]))
    rows = [verl_row(seed.model_copy(update={"id": name}), i, split="train") for i, name in enumerate("st")]
    for name, new in changes.items():
        if new is ...:
            for item in rows:
                del item[name]
        else:
            rows[1][name] = new
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def test_a_converted_file_passes(folder: Path) -> None:
    assert not problems(as_table(folder))
    assert [seed.id for seed in load_seeds(folder / "rows.parquet")] == ["s", "t"]


@pytest.mark.parametrize("value", [None, "", "single_turn_agent"])
def test_a_row_without_our_agent_loop_is_told(folder: Path, value: str | None) -> None:
    (problem,) = problems(as_table(folder, agent_name=value))
    assert (problem.row, problem.field) == (2, "agent_name") and "steer_dialogue" in problem.cure


def test_a_file_without_the_agent_name_column_is_told_on_every_row(folder: Path) -> None:
    found = problems(as_table(folder, agent_name=...))
    assert [(p.row, p.field) for p in found] == [(1, "agent_name"), (2, "agent_name")]
    assert "silently run its single-turn loop" in found[0].what


def test_a_picture_that_went_away_is_told(folder: Path) -> None:
    file = as_table(folder)
    (folder / "a.png").unlink()
    assert [(p.row, p.field) for p in problems(file)] == [(1, "images[0]"), (2, "images[0]")]


def test_a_row_whose_seed_is_lost_or_torn_is_told(folder: Path) -> None:
    for extra_info in ({"index": 1}, {"index": 1, "seed": "{"}, {"index": 1, "seed": '{"id": 3}'}):
        (problem,) = problems(as_table(folder, extra_info=extra_info))
        assert problem.row == 2 and problem.cure, extra_info


def test_a_foreign_parquet_is_read_by_its_prompt(folder: Path) -> None:
    foreign = {"index": 1, "interaction_kwargs": {"rest_messages": [{"role": "user", "content": "And?"}]}}
    assert not problems(as_table(folder, extra_info=foreign))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_what_is_no_parquet_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet"):
        list(check_parquet(tmp_path / "a.parquet"))


def test_a_parquet_of_something_else_is_a_clear_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column extra_info"):
        list(check_parquet(tmp_path / "a.parquet"))


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
