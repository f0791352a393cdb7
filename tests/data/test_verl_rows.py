"""The row that verl reads: written, read back by an agent loop, and held to the dialogue that it carries."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from steer_verl.data.commands import app
from steer_verl.data.rows.check import check_file
from steer_verl.data.rows.flaws import Problem
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.data.rows.schema import RlRow
from steer_verl.data.rows.verl import seed_from_row, verl_row
from steer_verl.errors import DataError
from steer_verl.types import DialogueKind, Seed, UserTurn
from tests.data.samples import picture, row
from tests.data.test_rows import seeds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    return tmp_path


def problems(file: Path) -> list[Problem]:
    return [problem for checked in check_file(file) for problem in checked.problems]


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_a_seed_survives_the_way_to_the_agent_loop(seed: Seed) -> None:
    assert seed_from_row(verl_row(seed, 3, split="train")["extra_info"]) == seed


def test_a_foreign_row_is_read_from_its_prompt_and_rest_messages() -> None:
    rest = [{"role": "user", "content": "And now?"}]
    parts: list[dict[str, str]] = [
        {"type": "text", "text": "Look: "},
        {"type": "image", "image": "/p/a.png"},
        {"type": "text", "text": " What?"},
    ]
    prompt: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    seed = seed_from_row({"index": 4, "interaction_kwargs": {"rest_messages": rest}}, prompt)
    assert seed.id == "4" and seed.kind is DialogueKind.RED_TEAM
    assert seed.turns == (UserTurn(text="Look: <image> What?", images=("/p/a.png",)), UserTurn(text="And now?"))


def test_a_foreign_row_of_one_question_is_played_where_preflight_lets_it_pass() -> None:
    seed = seed_from_row({"index": 4, "interaction_kwargs": {"rest_messages": []}}, [{"role": "user", "content": "q?"}])
    assert [turn.text for turn in seed.turns] == ["q?"]


@pytest.mark.parametrize(
    ("extra_info", "prompt"),
    [
        ({}, None),
        ({"index": 0}, [{"role": "user", "content": "Hi"}]),
        ({"interaction_kwargs": None}, [{"role": "user", "content": "Hi"}]),
        ({"seed": "{"}, None),
        ({"seed": '{"id": "a", "turns": []}'}, None),
        ({"interaction_kwargs": {"rest_messages": []}}, [{"role": "user", "content": "Hi"}]),
        (
            {"interaction_kwargs": {"rest_messages": [{"role": "user", "content": "Hm?"}]}},
            [{"role": "user", "content": [{"type": "image", "image": b"x"}, {"type": "text", "text": "Hi"}]}],
        ),
    ],
)
def test_a_row_without_a_whole_dialogue_is_a_one_line_error(extra_info: dict[str, Any], prompt: Any) -> None:
    with pytest.raises(DataError) as caught:
        seed_from_row(extra_info, prompt)
    assert "\n" not in str(caught.value)


def as_table(folder: Path, **changes: Any) -> Path:
    """A parquet file of two rows, with columns replaced in the second or, by ``...``, dropped from both."""
    seed = RlRow.read(row("s", images=[str(folder / "a.png")])).seed()
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
    assert (problem.row, problem.field) == (2, "agent_name") and "steer_dialogue" in problem.hint


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
        assert problem.row == 2 and problem.hint, extra_info


def test_a_foreign_parquet_is_read_by_its_prompt(folder: Path) -> None:
    foreign = {"index": 1, "interaction_kwargs": {"rest_messages": [{"role": "user", "content": "And?"}]}}
    assert not problems(as_table(folder, extra_info=foreign))


OPENING = "<image>What is this?"


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        ("images", ["http://127.0.0.1:9/a.png"], "images"),
        ("images", ["/etc/hostname"], "images"),
        ("images", [], "images"),
        ("images", None, "images"),
        ("prompt", [{"role": "user", "content": "<image>What is that?"}], "prompt"),
        ("prompt", [{"role": "user", "content": OPENING}, {"role": "user", "content": "More?"}], "prompt"),
        ("prompt", [{"role": "assistant", "content": OPENING}], "prompt"),
        ("prompt", [], "prompt"),
        ("prompt", None, "prompt"),
        ("prompt", [{"role": "system", "content": "<image>"}, {"role": "user", "content": OPENING}], "prompt"),
        ("prompt", [{"role": "system", "content": "<video>"}, {"role": "user", "content": OPENING}], "prompt"),
    ],
)
def test_what_verl_would_show_or_open_is_the_dialogues_own(folder: Path, column: str, value: Any, field: str) -> None:
    (problem,) = problems(as_table(folder, **{column: value}))
    assert (problem.row, problem.field) == (2, field) and problem.hint


def test_other_media_beside_a_dialogue_are_told(folder: Path) -> None:
    rows = pq.read_table(as_table(folder)).to_pylist()
    table = pa.Table.from_pylist(
        [{**rows[0], "videos": []}, {**rows[1], "videos": [{"video": "http://127.0.0.1:9/a"}]}]
    )
    pq.write_table(table, folder / "rows.parquet")
    assert [(problem.row, problem.field) for problem in problems(folder / "rows.parquet")] == [(2, "videos")]


def test_a_system_prompt_is_no_part_of_the_dialogue(folder: Path) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": OPENING}]
    assert not problems(as_table(folder, prompt=prompt))


def test_a_foreign_row_has_paths_and_not_pixels(folder: Path) -> None:
    foreign = {"index": 1, "interaction_kwargs": {"rest_messages": [{"role": "user", "content": "And?"}]}}
    seed = RlRow.read(row("s", images=[str(folder / "a.png")])).seed()
    value = {**verl_row(seed, 0, split="train"), "extra_info": foreign, "images": [{"bytes": b"PNG"}]}
    pq.write_table(pa.Table.from_pylist([value]), folder / "rows.parquet")
    (problem,) = problems(folder / "rows.parquet")
    assert problem.field == "images[0]" and "by value" in problem.what


MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
TYPES: list[tuple[pa.DataType, Any]] = [
    (pa.null(), None),
    (pa.int64(), 7),
    (pa.bool_(), True),
    (pa.float64(), float("nan")),
    (pa.decimal128(9, 2), 1),
    (pa.timestamp("ns"), 2**62),
    (pa.date32(), 2**30),
    (pa.duration("s"), 2**50),
    (pa.binary(), b"\xff\x00"),
    (pa.large_string(), "text"),
    (pa.dictionary(pa.int8(), pa.string()), "text"),
    (pa.list_(pa.int64()), [1, None]),
    (pa.list_(pa.list_(pa.string())), [["a.png"], None]),
    (pa.map_(pa.string(), pa.string()), [("a", "b")]),
    (pa.struct({"seed": pa.int64()}), {"seed": 1}),
    (pa.struct({"seed": pa.binary()}), {"seed": b"{}"}),
    (pa.struct({"seed": pa.string(), "interaction_kwargs": pa.string()}), {"seed": None, "interaction_kwargs": "x"}),
    (pa.list_(pa.struct({"role": pa.int64(), "content": MESSAGES})), [{"role": 1, "content": []}, None]),
    (pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})), [{"bytes": b"x", "path": None}, None]),
    (MESSAGES, [None, {"role": None, "content": None}]),
]
"""What a column may hold in place of what it should, with a value."""

RL_COLUMNS = ("prompt", "images", "extra_info", "agent_name", "videos")
SFT_COLUMNS = ("messages", "images", "id", "kind", "source", "source_id", "license", "videos")


def confused(path: Path, columns: dict[str, int]) -> Path:
    """A table whose columns have the types of these numbers."""
    arrays = {name: pa.array([TYPES[number][1], None], TYPES[number][0]) for name, number in columns.items()}
    pq.write_table(pa.table(arrays), path)
    return path


@pytest.mark.parametrize("column", sorted({*RL_COLUMNS, *SFT_COLUMNS}))
def test_columns_of_any_type_are_problems_and_no_traceback(folder: Path, column: str) -> None:
    good = pq.read_table(as_table(folder))
    for number, (kind, value) in enumerate(TYPES):
        if column in RL_COLUMNS:
            array = pa.array([value, None], kind)
            table = (
                good.set_column(good.column_names.index(column), column, array)
                if column in good.column_names
                else (good.append_column(column, array))
            )
            pq.write_table(table, folder / "rows.parquet")
            with suppress(DataError):
                load_seeds(folder / "rows.parquet")
            told_in_one_line(folder / "rows.parquet", (kind, column))
        if column in SFT_COLUMNS:
            told_in_one_line(confused(folder / "rows.parquet", {"messages": 19, column: number}), (kind, column))


def told_in_one_line(file: Path, what: Any) -> None:
    """Checked by the command: problems, a line of error, or nothing wrong; never a traceback."""
    result = CliRunner().invoke(app, ["check", str(file)])
    assert result.exit_code in (0, 1) and isinstance(result.exception, SystemExit | None), (what, result.exception)
    assert "Traceback" not in result.output


@given(st.dictionaries(st.sampled_from(sorted({*RL_COLUMNS, *SFT_COLUMNS})), st.integers(0, len(TYPES) - 1)))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tables_of_any_columns_are_read_to_their_end(tmp_path: Path, columns: dict[str, int]) -> None:
    file = confused(tmp_path / "rows.parquet", columns or {"x": 1})
    try:
        assert all(checked.problems for checked in check_file(file)), "none of these holds a dialogue"
    except DataError as error:
        assert "\n" not in str(error) and str(file) in str(error)


def test_a_table_that_is_torn_tells_what_comes_before(folder: Path) -> None:
    file = as_table(folder, agent_name="another")
    data = pq.read_table(file)
    pq.write_table(pa.concat_tables([data] * 100), file, row_group_size=100, compression="none", use_dictionary=False)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = b"\xff" * 4000
    file.write_bytes(content)
    found = problems(file)
    assert found[0].row == 2 and found[0].field == "agent_name"
    assert any(problem.field == "file" and "cannot be read" in problem.what for problem in found)


def test_deep_facts_in_a_table_are_a_problem(folder: Path) -> None:
    seed = RlRow.read(row("t", images=[str(folder / "a.png")])).seed()
    text = seed.model_dump_json().replace('"facts":{}', f'"facts":{"{"}"a":{"[" * 100}{"]" * 100}{"}"}')
    extra_info = {**verl_row(seed, 0, split="train")["extra_info"], "seed": text}
    assert [problem.field for problem in problems(as_table(folder, extra_info=extra_info))] == ["metadata.facts"]
