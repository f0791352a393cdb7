"""``steer data check`` on whole sets: every form, every problem, and what two files share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from steer_verl.data.commands import app
from steer_verl.data.likeness import indexes_in
from steer_verl.data.parquet import load_seeds, write_parquet
from steer_verl.data.set_files import Overlaps, check_set
from steer_verl.data.sets.files import sft_schema
from steer_verl.data.validate import Problem, Rules, Told
from tests.data.samples import picture, row, write_rows
from tests.data.test_bench_rows import bench

GOOD = "<thinking>A box.</thinking><answer>It is a box.</answer>"


def steer_check(*words: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, words)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    Image.new("RGB", (84, 56), "blue").save(tmp_path / "b.png")
    return tmp_path


def sft(name: str, image: Path, turns: int = 2, **more: Any) -> dict[str, Any]:
    """A good row of sft.parquet."""
    messages = []
    for turn in range(turns):
        question = f"{'' if turn else '<image>'}{name}: what is part {turn}?"
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": GOOD}]
    origin = {"kind": "benign", "source": "s", "source_id": name, "license": "CC-BY-4.0"}
    return {"id": name, "messages": messages, "images": [{"bytes": image.read_bytes()}], **origin, **more}


def write_sft_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, sft_schema()), path)
    return path


def problems(file: Path, rules: Rules | None = None) -> list[Problem]:
    return [problem for checked in check_set(file, rules or Rules()) for problem in checked.problems]


def test_every_form_is_known_and_counted(folder: Path) -> None:
    rl = write_rows(folder / "rl.jsonl", [row(i, turns=2 + i, license="CC-BY-NC-4.0") for i in range(3)])
    write_parquet(load_seeds(rl), folder / "rl.parquet")
    write_rows(folder / "bench.jsonl", [bench("x", turns=1), bench("y", turns=10)])
    tables = [sft("p", folder / "a.png"), sft("q", folder / "b.png", turns=4)]
    write_sft_rows(folder / "sft.parquet", tables)
    lines = [{**item, "images": ["a.png"]} for item in tables]
    write_rows(folder / "sft.jsonl", lines)
    for name, turns in {
        "rl.jsonl": "1x2, 1x3, 1x4",
        "rl.parquet": "1x2, 1x3, 1x4",
        "bench.jsonl": "1x1, 1x10",
        "sft.parquet": "1x2, 1x4",
        "sft.jsonl": "1x2, 1x4",
    }.items():
        result = steer_check(folder / name)
        assert result.exit_code == 0, (name, result.output)
        assert f"dialogues x turns: {turns}" in result.output
        assert ("so is the whole set" in result.output) == name.startswith("rl")
    together = steer_check(folder / "rl.jsonl", folder / "bench.jsonl", folder / "sft.parquet")
    assert together.exit_code == 0, together.output
    assert together.output.count("licences: ") == 2 and "2 CC-BY-4.0" in together.output


@pytest.mark.parametrize(
    ("at", "new", "field"),
    [
        (("messages", 1, "content"), "no format", "messages[1].content"),
        (("messages", 1, "content"), GOOD.replace("a box", "<image>"), "messages[1].content"),
        (("messages", 1, "content"), GOOD.replace("a box", "</s>"), "messages[1].content"),
        (("messages", 2, "content"), "  ", "messages[2].content"),
        (("messages", 2, "content"), "look: <video>", "messages[2].content"),
        (("messages", 2, "content"), "x" * 8001, "messages[2].content"),
        (("messages", 2, "role"), "assistant", "messages"),
        (("messages", 3, "role"), "user", "messages"),
        (("images", 0, "bytes"), b"\x89PNG torn", "images[0]"),
        (("images",), [], "images"),
        (("messages",), None, "messages"),
        (("id",), "good", "id"),
        (("id",), None, "id"),
    ],
)
def test_every_fault_of_an_sft_row_is_told_with_its_place(
    folder: Path, at: tuple[Any, ...], new: Any, field: str
) -> None:
    bad = sft("bad", folder / "a.png")
    inner: Any = bad
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = new
    found = problems(write_sft_rows(folder / "sft.parquet", [sft("good", folder / "a.png"), bad]))
    assert {problem.row for problem in found} == {2} and field in [problem.field for problem in found]
    assert all(problem.what and problem.cure and "\n" not in str(problem) for problem in found)


def test_a_system_turn_comes_first_or_not_at_all(folder: Path) -> None:
    item = sft("p", folder / "a.png")
    system = {"role": "system", "content": "Be brief."}
    first = {**item, "messages": [system, *item["messages"]]}
    last = {**item, "messages": [*item["messages"], system]}
    assert not problems(write_sft_rows(folder / "first.parquet", [first]))
    assert [p.field for p in problems(write_sft_rows(folder / "last.parquet", [last]))] == ["messages"]


def test_a_foreign_sft_table_with_paths_is_read(folder: Path) -> None:
    item = sft("p", folder / "a.png", images=[{"image": f"file://{folder}/a.png"}])
    pq.write_table(pa.Table.from_pylist([{key: item[key] for key in ("messages", "images")}]), folder / "f.parquet")
    (checked,) = check_set(folder / "f.parquet")
    assert checked.told is not None and (checked.told.id, checked.told.turns) == (f"{folder}/f.parquet:1", 2)


def test_bad_bench_rows_are_told_and_reading_goes_on(folder: Path) -> None:
    rows = [bench("x"), bench("x"), bench("y", image="../a.png"), "[]", bench("z", messages_fixed=[]), bench("w")]
    found = problems(write_rows(folder / "bench.jsonl", rows))
    assert [(problem.row, problem.field) for problem in found] == [
        (2, "question_id"),
        (3, "image"),
        (4, "line"),
        (5, "messages_fixed"),
    ]
    result = steer_check(folder / "bench.jsonl", "--report", folder / "report.jsonl")
    assert result.exit_code == 1 and "4 of 6 rows are bad" in result.output
    assert len((folder / "report.jsonl").read_text().splitlines()) == 4


def test_what_two_files_share_is_told_once_and_by_its_plainest_sign(folder: Path) -> None:
    words = "Which of the boxes on the long table by the window has a green lid and no label at all?"
    near = words.replace("long", "small")
    rl = [
        row("same-id", turns=2),
        row("r2", turns=2, source="s", source_id="7"),
        {**row("r3", turns=2), "question": [{"role": "user", "content": f"<image>{words}"}]},
        row("r4", turns=2, images=["b.png"]),
    ]
    rl[3]["question"][0]["content"] = "<image>Something quite different from all others in words?"
    others = [
        bench("same-id"),
        bench("b2", source="s", source_id="7"),
        bench("b3", messages_fixed=[near, "And then, question 2?"]),
        bench(
            "b4",
            image="a.png",
            messages_fixed=["Something quite different from all others in words?", "And then, question 2?"],
        ),
        bench("b5", messages_fixed=["Nothing that anybody else asks here today."]),
    ]
    files = write_rows(folder / "rl.jsonl", rl), write_rows(folder / "bench.jsonl", others)
    result = steer_check(*files, "--report", folder / "report.jsonl")
    told = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    assert result.exit_code == 1 and "3 are in another file too" in result.output
    assert [(t["row"], t["field"]) for t in told] == [(1, "id"), (2, "source_id"), (3, "turns")]
    assert all(t["file"].endswith("bench.jsonl") and "rl.jsonl" in t["what"] and t["cure"] for t in told)


def test_overlaps_equal_a_brute_force_comparison(tmp_path: Path) -> None:
    """Over generated files: what shares an id, a source seed or all words with a row of another file, and no other."""
    import random

    rng = random.Random(4)
    rows = []
    for number in range(160):
        file = Path(f"{rng.choice('abc')}.jsonl")
        name = f"id{rng.randrange(90)}"
        if any((place, other.id) == (file, name) for place, _, other in rows):
            continue  # told as a bad row before files are compared
        topic = rng.randrange(40)
        text = " ".join(f"word{topic}x{part}" for part in range(12))
        source_id = str(rng.randrange(60)) if rng.random() < 0.5 else ""
        rows.append((file, number, Told(name, 2, text, source="s", source_id=source_id)))
    overlaps = Overlaps(indexes_in(tmp_path))
    for position, (file, number, told) in enumerate(rows):
        before = [other for place, _, other in rows[:position] if place != file]
        shared = any(
            other.id == told.id or other.text == told.text or (told.source_id and other.source_id == told.source_id)
            for other in before
        )
        found = overlaps.add(file, number, told)
        if found:
            assert shared, (position, found)
        else:
            assert not shared or _hidden(rows[:position], file, told), position


def _hidden(before: list[tuple[Path, int, Told]], file: Path, told: Told) -> bool:
    """Whether only a row that was no news itself shares something: its own file had its id or its source seed first."""
    first: dict[Any, Path] = {}
    for place, _, other in before:
        first.setdefault(("id", other.id), place)
        if other.source_id:
            first.setdefault(("source", other.source_id), place)
    texts = [place for place, _, other in before if other.text == told.text]
    keys = [("id", told.id), ("source", told.source_id)]
    return all(first.get(key, file) == file for key in keys) and all(place == file for place in texts)
