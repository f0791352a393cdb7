"""``steer data check`` on whole sets: every form is counted, and what two files share is told."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from steer_verl.data.commands import app
from steer_verl.data.rows.check import Checked, Rules, check_file
from steer_verl.data.rows.images import Opened
from steer_verl.data.rows.overlaps import Overlaps
from steer_verl.data.rows.parquet import load_seeds, write_parquet
from steer_verl.data.rows.schema import RlRow
from tests.data.samples import row, write_rows
from tests.data.test_set_rows import bench, changed, sft


def steer_check(*words: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, words)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate("abc"):
        Image.new("RGB", (56 + 28 * number, 56), "red").save(tmp_path / f"{name}.png")
    return tmp_path


def write_sft(path: Path, rows: list[dict[str, Any]]) -> Path:
    """An SFT table with its images by value."""
    by_value = [{"bytes": (path.parent / name).read_bytes()} for item in rows for name in item["images"]]
    values = [{**item, "images": [image]} for item, image in zip(rows, by_value, strict=True)]
    pq.write_table(pa.Table.from_pylist(values), path)
    return path


def test_every_form_is_known_and_counted(folder: Path) -> None:
    rl = write_rows(folder / "rl.jsonl", [row(i, turns=2 + i, license="CC-BY-NC-4.0") for i in range(3)])
    write_parquet(load_seeds(rl), folder / "rl.parquet")
    write_rows(folder / "bench.jsonl", [bench("x", turns=1, image="b.png"), bench("y", turns=10, image=None)])
    tables = [sft("p", images=["c.png"]), sft("q", images=["c.png"], turns=4)]
    write_sft(folder / "sft.parquet", tables)
    write_rows(folder / "sft.jsonl", tables)
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
        assert ("text alone: 1 of them" in result.output) == name.startswith("bench")
    together = steer_check(folder / "rl.jsonl", folder / "bench.jsonl", folder / "sft.parquet")
    assert together.exit_code == 0, together.output
    assert together.output.count("licences: ") == 2 and "2 CC-BY-4.0" in together.output


def test_what_two_files_share_is_told_once_and_by_its_plainest_sign(folder: Path) -> None:
    words = "Which of the boxes on the long table by the window has a green lid and no label at all?"
    near = words.replace("long", "small")
    rl = [
        row("same-id", turns=2),
        row("r2", turns=2, source="s", source_id="7"),
        {**row("r3", turns=2), "question": [{"role": "user", "content": f"<image>{words}"}]},
        changed(row("r4", turns=2), "question.0.content", "<image>Something quite different from all others in words?"),
    ]
    other = ["Something quite different from all others in words?", "And then, question 2?"]
    others = [
        bench("same-id", image="b.png"),
        bench("b2", image="b.png", source="s", source_id="7"),
        bench("b3", image="a.png", messages_fixed=[near, "And then, question 2?"]),
        bench("b4", image="b.png", messages_fixed=other),
        bench("b5", image="a.png", messages_fixed=["Nothing that anybody else asks here today."]),
        bench("b6", image="b.png", messages_fixed=["Nor is this asked anywhere."]),
        bench("b7", image=None, messages_fixed=["And this needs no image at all."]),
    ]
    Image.open(folder / "a.png").save(folder / "copy.png", compress_level=0)
    others.append(bench("b8", image="copy.png", messages_fixed=["The same pixels under another name are the same."]))
    files = write_rows(folder / "rl.jsonl", rl), write_rows(folder / "bench.jsonl", others)
    result = steer_check(*files, "--report", folder / "report.jsonl")
    told = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    assert result.exit_code == 1 and "5 are in another file too" in result.output
    places = [(1, "id"), (2, "source_id"), (3, "turns"), (5, "images"), (8, "images")]
    assert [(t["row"], t["field"]) for t in told] == places
    assert all(t["file"].endswith("bench.jsonl") and "rl.jsonl" in t["what"] and t["hint"] for t in told)
    assert told[2]["what"].endswith("as row 3 of rl.jsonl")
    assert told[3]["what"] == "the same image as row 1 of rl.jsonl"


def test_an_image_may_serve_two_files_of_one_kind_of_training_set_and_no_two_sets(folder: Path) -> None:
    asked = {name: f"What does {name} alone want to know of it?" for name in ("one", "two", "learnt", "benchmark")}
    rl = {name: changed(row(name, turns=2), "question.0.content", f"<image>{asked[name]}") for name in ("one", "two")}
    one, two = (write_rows(folder / f"{name}.jsonl", [value]) for name, value in rl.items())
    learnt = write_sft(folder / "sft.parquet", [sft("learnt", images=["a.png"])])
    test = write_rows(folder / "bench.jsonl", [bench(image="a.png", messages_fixed=[asked["benchmark"]])])
    again = write_rows(folder / "bench2.jsonl", [bench("x", image="a.png", messages_fixed=["And yet another one?"])])
    for files, shared in (
        ((one, two), 0),
        ((one, learnt), 1),
        ((one, test), 1),
        ((test, again), 1),
        ((learnt, test), 1),
    ):
        output = steer_check(*files).output
        assert output.count("images: the same image as row 1 of") == shared, (files, output)


def test_two_files_are_compared_in_about_the_time_that_they_take_alone(folder: Path) -> None:
    words = [f"word{number}" for number in range(400)]
    rng = random.Random(0)
    files = []
    for name in "xy":
        rows = [row(f"{name}{number}", turns=4, images=[]) for number in range(300)]
        for value in rows:
            for message in (*value["question"], *value["metadata"]["rest_messages"]):
                message["content"] = " ".join(rng.choices(words, k=20))
        files.append(write_rows(folder / f"{name}.jsonl", rows))
    steer_check(*files)  # what is imported and drawn once
    began = time.process_time()
    assert all(steer_check(file).exit_code == 0 for file in files)
    alone = time.process_time() - began
    began = time.process_time()
    assert steer_check(*files).exit_code == 0
    together = time.process_time() - began
    assert together < 10 * alone + 1, (alone, together)


def compared(name: str, text: str, source_id: str, row_number: int, image: str) -> Checked:
    """A good row of an RL file."""
    value = row(name, turns=1, images=[], source="s", source_id=source_id)
    record = RlRow.read(changed(value, "question.0.content", text), min_turns=1)
    images = (Opened(f"/{image}.png", frozenset(), image),) if image else ()
    return Checked(row_number, 1, record=record, images=images)


def test_overlaps_equal_a_brute_force_comparison() -> None:
    """Over generated files: what shares an id, a source seed or all words and images with another file, and no more."""
    rng, rows = random.Random(4), list[tuple[Path, Checked]]()
    for file in map(Path, ("a.jsonl", "b.jsonl", "c.jsonl")):
        for number, name in enumerate(rng.sample(range(90), 50)):
            topic = rng.randrange(40)
            text = " ".join(f"word{topic}x{part}" for part in range(12))
            source_id = str(rng.randrange(200)) if rng.random() < 0.5 else ""
            rows.append((file, compared(f"id{name}", text, source_id, number, rng.choice(("", "p", "q")))))
    overlaps, found = Overlaps(), 0
    for position, (file, checked) in enumerate(rows):
        before = [other for place, other in rows[:position] if place != file]
        told = checked.told
        assert told is not None
        shared = {
            "id": any(other.told and other.told.id == told.id for other in before),
            "source_id": bool(told.source_id)
            and any(other.told and other.told.source_id == told.source_id for other in before),
            "turns": any(
                other.told and (other.told.asked, other.images) == (told.asked, checked.images) for other in before
            ),
        }
        wanted = [field for field, true in shared.items() if true][:1]
        assert [problem.field for problem in overlaps.add(file, checked)] == wanted, position
        found += len(wanted)
    assert 20 < found < 120


def test_a_bad_row_is_compared_with_nothing(folder: Path) -> None:
    one = write_rows(folder / "one.jsonl", [row("x")])
    two = write_rows(folder / "two.jsonl", [row("x", images=["gone.png"])])
    overlaps = Overlaps()
    for file in (one, two):
        assert not any(overlaps.add(file, checked) for checked in check_file(file, Rules(compared=True)))


def test_an_image_saved_in_another_format_or_size_is_known(folder: Path) -> None:
    random.seed(7)
    for name in ("one", "two"):
        rough = Image.frombytes("RGB", (12, 9), bytes(random.randrange(256) for _ in range(12 * 9 * 3)))
        rough.resize((360, 270), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    Image.open(folder / "one.png").save(folder / "one.jpg", quality=85)
    Image.open(folder / "one.png").resize((200, 150)).save(folder / "small.png")
    rows = [
        bench(str(n), image=image, messages_fixed=[f"Who asks for {image}?"])
        for n, image in enumerate(["one.jpg", "small.png", "two.png", "a.png"])
    ]
    learnt = sft("x", images=["one.png"])
    rows.append(
        bench(
            "again",
            image="one.jpg",
            messages_fixed=[m["content"].replace("<image>", "") for m in learnt["messages"][::2]],
        )
    )
    result = steer_check(
        write_rows(folder / "sft.jsonl", [learnt]), write_rows(folder / "bench.jsonl", rows), "--report", folder / "r"
    )
    told = [json.loads(line) for line in (folder / "r").read_text().splitlines()]
    assert result.exit_code == 1 and [(t["row"], t["field"]) for t in told] == [
        (1, "images"),
        (2, "images"),
        (5, "turns"),
    ]
    assert told[0]["what"] == told[1]["what"] == "an image that looks like that of row 1 of sft.jsonl"


def test_a_builds_dialogues_share_a_seed_by_its_content_and_not_by_an_id_that_the_source_repeats(folder: Path) -> None:
    names = [f"{n}" * 24 for n in range(2)]
    rows = [row(f"{names[0]}/benign", turns=2, source="s", source_id="7")]
    one = write_rows(folder / "one.jsonl", rows)
    for name, said in ((names[1], 0), (names[0], 1)):
        value = row(f"{name}/obfuscated", turns=2, images=["b.png"], source="s", source_id="7")
        other = write_rows(folder / "other.jsonl", [changed(value, "question.0.content", "<image>Whose is this hat?")])
        result = steer_check(one, other)
        assert result.exit_code == said and (f"{name} is the source of row 1 of one.jsonl" in result.output) == said


def test_files_of_one_name_are_told_apart_and_a_number_without_a_source_is_nobodys(folder: Path) -> None:
    (folder / "old").mkdir()
    asked = ["<image>What is on the table?", "<image>Who sits at the window?"]
    here, there = (
        write_rows(
            path, [changed(row(path.parent.name, turns=2, images=["a.png"], source_id="7"), "question.0.content", text)]
        )
        for path, text in zip((folder / "rl.jsonl", folder / "old" / "rl.jsonl"), asked, strict=True)
    )
    result = steer_check(here, there, "--image-root", folder)
    assert result.exit_code == 0, result.output
    write_rows(there, [*map(json.loads, here.read_text().splitlines())])
    result = steer_check(here, there, "--image-root", folder)
    assert result.exit_code == 1 and f"is row 1 of {here} too" in result.output


def test_every_file_is_looked_for_before_the_first_is_read(folder: Path) -> None:
    result = steer_check(write_rows(folder / "rl.jsonl", [row(0)]), folder / "gone.jsonl")
    assert result.exit_code == 1 and "gone.jsonl: cannot be read" in result.output and "good rows" not in result.output
